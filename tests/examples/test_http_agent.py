"""The agent in JavaScript works through two API processes in turn; it is cancelled, killed, replaced, and ended."""

import asyncio
import re
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

import pytest

from bus import Client, TaskHandle, TaskStatus, UnknownAgentError
from tests.dispatcher.api.conftest import serving
from tests.docs.pages import ROOT
from tests.support.bus import running_dispatcher
from tests.support.waiting import eventually

FILE: Final = ROOT / "examples" / "http_agent.mjs"
NODE: Final = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="there is no node here: apt install nodejs")

RunNode = Callable[[str], Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def bus(redis_url: str, pool: str) -> AsyncIterator[Client]:
    """Provide a client of a pool that is led."""
    async with running_dispatcher(redis_url, pool), Client(redis_url, pool=pool) as client:
        yield client


@pytest.fixture
async def node(redis_url: str, pool: str, bus: Client) -> AsyncIterator[RunNode]:
    """Provide a function that runs the agent with an id, through two API processes, until the test ends."""
    assert bus.pool == pool
    started: list[asyncio.subprocess.Process] = []
    async with serving(redis_url, pool) as one, serving(redis_url, pool) as two:
        roots = ",".join(str(api.base_url).removesuffix("/api/v1/") for api in (one, two))

        async def run(agent_id: str) -> asyncio.subprocess.Process:
            process = await asyncio.create_subprocess_exec(
                *(NODE or "node", str(FILE)),
                env={"CALLBOARD_URL": roots, "AGENT_ID": agent_id, "PATH": "/usr/bin:/bin"},
                stdout=asyncio.subprocess.PIPE,
            )
            started.append(process)
            assert process.stdout is not None
            async with asyncio.timeout(20):
                assert await process.stdout.readline() == f"{agent_id} is signed in\n".encode()
            return process

        try:
            yield run
        finally:
            for process in started:
                if process.returncode is None:
                    process.kill()
                await process.communicate()


async def runs(bus: Client, task: TaskHandle[object]) -> None:
    """Return when a task runs and its agent has said so."""

    async def waiting() -> bool:
        return (await bus.get(task.id, patience=5)).note == "waiting"

    await eventually(waiting)


async def test_it_does_tasks_through_two_api_processes(bus: Client, node: RunNode) -> None:
    await node("js-1")
    shouted = [await bus.submit("text.shout", f"hello {n}") for n in range(20)]
    assert [await task.result(timeout=30) for task in shouted] == [f"HELLO {n}" for n in range(20)]
    wrong = await bus.submit("text.shout", 7, max_attempts=1)
    with pytest.raises(Exception, match="not a function"):
        await wrong.result(timeout=30)
    record = await bus.get(wrong.id)
    assert record.error is not None
    assert (record.status, record.error.type) == (TaskStatus.FAILED, "TypeError")
    assert (await bus.agent("js-1")).metadata == {"protocol": "http"}


async def test_a_cancel_reaches_it(bus: Client, node: RunNode) -> None:
    await node("js-1")
    task = await bus.submit("text.wait", 600)
    await runs(bus, task)
    report = await bus.cancel_and_wait([task.id], "no need")
    assert report.cancelled == (task.id,)
    record = await bus.get(task.id)
    assert (record.status, record.attempts[-1].outcome) == (TaskStatus.CANCELLED, "cancelled")
    assert await (await bus.submit("text.shout", "on")).result(timeout=30) == "ON"


async def test_what_a_killed_one_had_is_given_to_another(bus: Client, node: RunNode) -> None:
    killed = await node("js-1")
    task = await bus.submit("text.wait", 1)
    await runs(bus, task)
    killed.send_signal(signal.SIGKILL)
    await node("js-2")
    assert await task.result(timeout=25) == 1
    record = await bus.get(task.id)
    assert [(one.agent_id, one.outcome) for one in record.attempts] == [("js-1", "agent_lost"), ("js-2", "completed")]


async def test_told_to_end_it_finishes_and_is_forgotten(bus: Client, node: RunNode) -> None:
    leaving = await node("js-1")
    task = await bus.submit("text.wait", 1)
    await runs(bus, task)
    leaving.send_signal(signal.SIGTERM)
    assert await task.result(timeout=30) == 1
    async with asyncio.timeout(20):
        assert await leaving.wait() == 0

    async def gone() -> bool:
        try:
            await bus.agent("js-1")
        except UnknownAgentError:
            return True
        return False

    await eventually(gone)


async def test_the_later_of_two_with_one_id_wins(node: RunNode, bus: Client) -> None:
    earlier = await node("js-1")
    await node("js-1")
    async with asyncio.timeout(20):
        assert await earlier.wait() == 1
    assert await (await bus.submit("text.shout", "one")).result(timeout=30) == "ONE"


def test_it_is_sixty_lines_and_needs_nothing_but_node() -> None:
    text = FILE.read_text()
    assert len(text.splitlines()) <= 60
    assert re.findall(r'from "([^"]+)"', text) == ["node:timers/promises"]
