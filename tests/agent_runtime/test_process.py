"""Agents as processes: signals, exit codes, memory, and a supervisor that keeps them alive."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from agent_runtime import out_of_memory
from agent_runtime.exit_codes import ExitCode
from agent_runtime.supervisor import Supervisor
from bus.messages import Register, Unregister
from bus.states import FailureReason
from tests.agent_runtime.leader import HandLeader
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.agent_runtime.process_agent"]

Start = Callable[..., subprocess.Popen[bytes]]


def _environment(redis_url: str, pool: str, **more: str) -> dict[str, str]:
    return {
        **os.environ,
        "CALLBOARD_REDIS_URL": redis_url,
        "CALLBOARD_POOL": pool,
        "CALLBOARD_AGENT_ID": "a1",
        "CALLBOARD_GRACE": "PT5S",
        "CALLBOARD_HEARTBEAT_INTERVAL": "PT0.1S",
        "PYTHONPATH": str(ROOT),
        **more,
    }


@pytest.fixture
def start(redis_url: str, pool: str) -> Iterator[Start]:
    """Provide a function that starts an agent's process; the environment may be added to."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(**more: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(COMMAND, env=_environment(redis_url, pool, **more), cwd=ROOT)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


async def _code(process: subprocess.Popen[bytes]) -> int:
    await eventually(lambda: process.poll() is not None)
    return process.returncode


async def test_sigterm_drains(leader: HandLeader, start: Start) -> None:
    process = start()
    signed = await leader.welcome()
    tasks = [await leader.assign(signed, n, 1.0, capability="slow") for n in ("a", "b")]
    await leader.wait_for(lambda: set(tasks) <= leader.started)
    waiting = await leader.assign(signed, "c", "c")
    await leader.wait_for(lambda: leader.heartbeats and waiting in dict(leader.heartbeats[-1].holding))
    process.send_signal(signal.SIGTERM)
    assert await _code(process) == ExitCode.STOPPED
    await leader.read()
    assert waiting in leader.returned
    assert {leader.results[task].output for task in tasks} == {1.0}
    assert isinstance(leader.registrations[-1], Unregister)


async def test_a_second_signal_stops_at_once(leader: HandLeader, start: Start) -> None:
    process = start(CALLBOARD_GRACE="PT60S")
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", 60.0, capability="slow")
    await leader.wait_started(task)
    process.send_signal(signal.SIGINT)
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].draining)
    process.send_signal(signal.SIGINT)
    assert await _code(process) == ExitCode.STOPPED


async def test_a_thread_that_never_ends_does_not_keep_the_process(leader: HandLeader, start: Start) -> None:
    process = start(CALLBOARD_GRACE="PT0S")
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", 300.0, capability="thread")
    await leader.wait_started(task)
    process.send_signal(signal.SIGTERM)
    assert await _code(process) == ExitCode.STOPPED
    await leader.read()
    assert leader.results[task].reason is FailureReason.AGENT_LOST


async def test_an_agent_whose_event_loop_had_no_memory_ends_as_by_a_crash(leader: HandLeader, start: Start) -> None:
    process = start()
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", 60.0, capability="starve")
    assert await _code(process) == out_of_memory.EXIT_CODE
    await leader.read()
    assert task not in leader.results
    assert not any(isinstance(message, Unregister) for message in leader.registrations)


async def test_a_killed_agent_says_nothing_more(leader: HandLeader, start: Start) -> None:
    process = start()
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", 60.0, capability="slow")
    await leader.wait_started(task)
    process.kill()
    assert await _code(process) == -signal.SIGKILL
    await leader.read()
    assert task not in leader.results
    assert not any(isinstance(message, Unregister) for message in leader.registrations)


async def test_a_process_at_rest_is_small_and_has_no_faststream(leader: HandLeader, start: Start) -> None:
    process = start()
    signed = await leader.welcome()
    loaded = await leader.result(await leader.assign(signed, "m", ["faststream", "asyncio"], capability="modules"))
    assert loaded.output == ["asyncio"]
    await leader.wait_for(lambda: len(leader.heartbeats) >= 2)
    assert psutil.Process(process.pid).memory_info().rss < 50 * 2**20


async def test_a_restart_reaches_a_process_whose_loop_is_stuck(leader: HandLeader, start: Start) -> None:
    process = start()
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", 300.0, capability="block")
    await leader.wait_for(lambda: leader.heartbeats and task in dict(leader.heartbeats[-1].holding))
    await leader.instruct(signed, "restart")
    assert await _code(process) == ExitCode.RESTART


@pytest.mark.parametrize(("attempt", "max_attempts"), [(2, 3), (1, 1)])
async def test_a_task_that_kills_its_agent_again_or_may_be_tried_once_only_is_known_to_have_begun(
    leader: HandLeader, start: Start, attempt: int, max_attempts: int
) -> None:
    process = start()
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", 9, capability="crash", attempt=attempt, max_attempts=max_attempts)
    assert await _code(process) == 9
    await leader.read()
    assert task in leader.started


# --- supervised


class Supervised:
    def __init__(self, environment: dict[str, str], **fields: Any) -> None:
        self.supervisor = Supervisor(lambda _number: COMMAND, env=environment, **fields)
        self.stop = asyncio.Event()
        self.task = asyncio.create_task(self.supervisor.run(self.stop))

    async def ended(self) -> int:
        async with asyncio.timeout(15):
            return await self.task


@pytest.fixture
async def supervise(redis_url: str, pool: str) -> Any:
    made: list[Supervised] = []

    def begin(**fields: Any) -> Supervised:
        supervised = Supervised(_environment(redis_url, pool), **fields)
        made.append(supervised)
        return supervised

    yield begin
    for supervised in made:
        supervised.task.cancel()
        await asyncio.wait([supervised.task])


async def test_a_crashed_process_is_started_again_and_stop_drains_it(leader: HandLeader, supervise: Any) -> None:
    supervised = supervise(backoff_base=0.05)
    first = await leader.welcome()
    pid = supervised.supervisor.pids[1]
    await leader.assign(first, "a", 9, capability="crash")
    second = await leader.welcome(count=2)
    assert second.session != first.session
    assert supervised.supervisor.pids[1] != pid
    task = await leader.assign(second, "b", 0.3, capability="slow")
    await leader.wait_started(task)
    supervised.stop.set()
    assert await supervised.ended() == 0
    await leader.read()
    assert leader.results[task].output == 0.3


async def test_a_restart_starts_anew_at_once(leader: HandLeader, supervise: Any) -> None:
    supervised = supervise(backoff_base=60.0)
    first = await leader.welcome()
    await leader.instruct(first, "restart")
    await leader.wait_for(lambda: sum(isinstance(message, Register) for message in leader.registrations) == 2)
    assert not supervised.task.done()


@pytest.mark.parametrize(("say", "code"), [("drain", 0), ("supersede", 1)])
async def test_a_drained_or_superseded_process_is_not_started_again(
    leader: HandLeader, supervise: Any, say: str, code: int
) -> None:
    supervised = supervise()
    signed = await leader.welcome()
    if say == "drain":
        await leader.instruct(signed, "drain")
    else:
        await leader.supersede(signed)
    assert await supervised.ended() == code
    assert supervised.supervisor.pids == {}


async def test_a_process_that_does_not_end_in_its_grace_is_killed(leader: HandLeader, supervise: Any) -> None:
    supervised = supervise(grace=0.2)
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", 60.0, capability="block")
    await leader.wait_for(lambda: leader.heartbeats and task in dict(leader.heartbeats[-1].holding))
    supervised.stop.set()
    assert await supervised.ended() == 1


async def test_children_do_not_outlive_a_supervisor_that_is_killed(
    redis_url: str, pool: str, leader: HandLeader
) -> None:
    program = (
        "import asyncio\n"
        "from agent_runtime.supervisor import Supervisor\n"
        f"run = Supervisor(lambda _number: {COMMAND!r}, processes=2).run\n"
        "asyncio.run(run(asyncio.Event()))\n"
    )
    environment = _environment(redis_url, pool)
    del environment["CALLBOARD_AGENT_ID"]
    parent = subprocess.Popen(  # noqa: ASYNC220 - returns at once
        [sys.executable, "-c", program], env=environment, cwd=ROOT
    )
    try:
        await leader.wait_for(lambda: len({message.agent_id for message in leader.registrations}) == 2)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) == 2
    finally:
        parent.kill()
        parent.wait()
    await eventually(lambda: not any(child.is_running() for child in children))
