"""A group of child processes."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from callboard.processes import ProcessGroup
from tests.support.waiting import eventually

SLEEPER = """\
import signal, sys
def stop(*_):
    print("{0} stops", flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print("{0} works", flush=True)
while True:
    signal.pause()
"""
STUBBORN = """\
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("works", flush=True)
while True:
    signal.pause()
"""


def python(program: str) -> list[str]:
    return [sys.executable, "-c", program]


async def until_said(log: Path, text: str, times: int = 1) -> None:
    await eventually(lambda: log.exists() and log.read_text().count(text) == times, timeout=30)


async def test_the_youngest_is_stopped_first(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "all.log"
    async with ProcessGroup() as group:
        children = []
        for name in ("one", "two"):
            children.append(await group.start(name, python(SLEEPER.format(name)), log=log))
            await until_said(log, f"{name} works")
        assert [child.returncode for child in children] == [None, None]
    assert log.read_text().split("\n")[2:4] == ["two stops", "one stops"]
    assert [child.returncode for child in children] == [3, 3]


async def test_who_does_not_stop_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    async with ProcessGroup(grace=0.1) as group:
        child = await group.start("stubborn", python(STUBBORN), log=log)
        await until_said(log, "works")
    assert (child.returncode, child.ending) == (-signal.SIGKILL, "SIGKILL")


async def test_a_cancelled_stop_leaves_nothing_running(tmp_path: Path) -> None:
    log = tmp_path / "log"
    group = ProcessGroup(grace=60)
    for name in ("one", "two"):
        await group.start(name, python(STUBBORN), log=log)
    await until_said(log, "works", times=2)
    stopping = asyncio.create_task(group.stop())
    await asyncio.sleep(0)
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping
    assert all(child.returncode is not None for child in group.children)


async def test_the_first_to_end_is_told(tmp_path: Path) -> None:
    async with ProcessGroup() as group:
        await group.start("lasting", python(SLEEPER.format("x")), log=tmp_path / "log")
        short = await group.start("short", python("raise SystemExit(7)"))
        assert await group.first_to_end() is short
        assert (await short.wait(), short.ending) == (7, "exit code 7")


async def test_the_environment_is_added_to(tmp_path: Path) -> None:
    program = "import os; print(os.environ['PATH'] != '', os.environ['ADDED'])"
    async with ProcessGroup() as group:
        child = await group.start("env", python(program), env={"ADDED": "yes"}, log=tmp_path / "log")
        assert await child.wait() == 0
    assert (tmp_path / "log").read_text() == "True yes\n"


async def test_children_do_not_outlive_a_parent_that_is_killed() -> None:
    program = (
        "import asyncio, sys\n"
        "from callboard.processes import ProcessGroup\n"
        "async def main():\n"
        "    group = ProcessGroup()\n"
        "    child = await group.start('x', [sys.executable, '-c', 'import signal; signal.pause()'])\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    with subprocess.Popen(python(program), stdout=subprocess.PIPE, text=True) as parent:  # noqa: ASYNC220 - at once
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([child], timeout=10)
    assert not alive
