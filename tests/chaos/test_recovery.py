"""How soon work goes on after each fault, with the defaults of all settings, and by itself: nobody starts or repairs.

One stage of real processes serves all of these tests; each leaves it as it was. What is measured in seconds is tried up
to `TAKES` times: the limits are Callboard's, and say nothing of a machine on which others need the processor just then.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any, Final

import pytest
import pytest_asyncio

from bus import Client, TaskCreate, TaskHandle, UnknownTaskError
from bus.connection import CONNECTION_ERRORS
from bus.names import DISPATCHERS_GROUP
from bus.states import TaskPriority
from tests.chaos.agent import Job
from tests.chaos.auditor import Evidence, Execution
from tests.chaos.residue import inbound, residue
from tests.chaos.stage import POOL, Stage
from tests.support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120), pytest.mark.alone]

WAITING: Final = 10_000
"""Tasks that wait for an agent which never comes, while the lead goes from hand to hand."""
LONG_MS: Final = 30_000
TAKES: Final = 3


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("stage") / "run", agents=2, producers=1) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bus(stage: Stage) -> AsyncIterator[Client]:
    async with Client(stage.server.url, pool=POOL) as client:
        yield client


def executions(stage: Stage) -> list[Execution]:
    return list(Evidence(stage.journals).executions.values())


async def begun(stage: Stage, task_id: str, attempt: int = 1) -> Execution:
    """Return an execution once its agent has written that it began."""

    def found() -> Any:
        return next((one for one in executions(stage) if (one.task, one.attempt) == (task_id, attempt)), None)

    execution: Execution = await eventually(found, timeout=40)
    return execution


async def works(bus: Client, timeout: float = 40) -> None:
    """Return when a task that is submitted now has a result."""
    handle = await bus.submit("chaos.work", Job(n=0))
    assert (await handle.result(timeout=timeout))["n"] == 0


@asynccontextmanager
async def running(stage: Stage, bus: Client, number: int) -> AsyncIterator[list[TaskHandle[Any]]]:
    """Have tasks begun that would take long; they are cancelled in the end."""
    handles = await bus.submit_many(
        TaskCreate(capability="chaos.work", payload=Job(n=n, ms=LONG_MS)) for n in range(number)
    )
    for handle in handles:
        await begun(stage, handle.id)
    yield handles
    for handle in handles:
        await handle.cancel()


async def within(limit: float, take: Callable[[], Awaitable[float]]) -> None:
    """Measure until it took less than `limit` seconds, up to `TAKES` times."""
    measured: list[float] = []
    while not measured or measured[-1] >= limit:
        assert len(measured) < TAKES, f"{measured} s, and {limit} s are promised"
        measured.append(await take())


async def test_the_tasks_of_a_killed_agent_run_elsewhere_within_six_seconds(stage: Stage, bus: Client) -> None:
    await within(6.0, lambda: _agent_killed(stage, bus))


async def _agent_killed(stage: Stage, bus: Client) -> float:
    async with running(stage, bus, 12) as handles:
        mine = {handle.id for handle in handles}
        victims = [one for one in executions(stage) if one.agent == "a1" and one.task in mine]
        assert victims
        process = stage.processes.pop("a1")
        killed = time.monotonic()
        await process.kill()
        again = [await begun(stage, one.task, 2) for one in victims]
        assert {one.agent for one in again} == {"a2"}
        stage.start("a1")
        await stage.processes["a1"].wait_for("is signed in")
        return max(one.began for one in again) - killed


@asynccontextmanager
async def a_crowd(bus: Client) -> AsyncIterator[None]:
    """Have many tasks wait that nobody can do."""
    handles = await bus.submit_many([TaskCreate(capability="chaos.none")] * WAITING)
    await eventually(lambda: _waiting(bus), timeout=30)
    yield
    await bus.cancel(handle.id for handle in handles)


async def _waiting(bus: Client) -> bool:
    return (await bus.queue_status()).waiting >= WAITING


async def test_a_successor_places_tasks_soon_after_the_leaders_end(stage: Stage, bus: Client) -> None:
    async with a_crowd(bus):
        await within(4.0, lambda: _leader_ended(stage, bus, signal.SIGKILL))
        await within(2.0, lambda: _leader_ended(stage, bus, signal.SIGTERM))


async def _leader_ended(stage: Stage, bus: Client, number: int) -> float:
    leader = await eventually(stage.leader)
    assert leader is not None
    process = stage.processes.pop(leader)
    ended = time.monotonic()
    process.signal(number)
    handle = await bus.submit("chaos.work", Job(n=0))
    execution = await begun(stage, handle.id)
    await process.ended()
    stage.start(leader)
    await stage.processes[leader].wait_for("metrics at")
    return execution.began - ended


async def test_work_flows_within_three_seconds_of_the_servers_return(stage: Stage, bus: Client) -> None:
    for away in (0.0, 2.0, 6.0):
        await within(3.0, partial(_server_killed, stage, bus, away))


async def _server_killed(stage: Stage, bus: Client, away: float) -> float:
    async with running(stage, bus, 2) as handles:
        await stage.server.kill()
        await asyncio.sleep(away)
        await stage.server.start()
        back = time.monotonic()
        await works(bus)
        took = time.monotonic() - back
        assert [one.attempt for one in executions(stage) if one.task == handles[0].id] == [1]
        return took


async def test_a_server_that_comes_back_empty_is_a_new_start_and_who_waits_is_told(stage: Stage, bus: Client) -> None:
    await _all_is_lost(stage, bus, lambda: _restarted_empty(stage))


async def test_flushall_is_a_new_start_and_who_waits_is_told(stage: Stage, bus: Client) -> None:
    await _all_is_lost(stage, bus, stage.redis.flushall)


async def _restarted_empty(stage: Stage) -> None:
    await stage.server.kill()
    stage.server.forget()
    await stage.server.start()


async def _all_is_lost(stage: Stage, bus: Client, deed: Any) -> None:
    async with running(stage, bus, 2) as handles:
        waiting = await bus.submit("chaos.none")
        await eventually(lambda: _one_waits(bus))
        told = [asyncio.create_task(handle.result()) for handle in (*handles, waiting)]
        await asyncio.sleep(0)
        await deed()
        await works(bus)
        for one in told:
            with pytest.raises(UnknownTaskError):
                await one
        status = await bus.queue_status()
        assert (status.waiting, status.active) == (0, 0)
    await eventually(lambda: _tidy(stage), timeout=20)


async def _one_waits(bus: Client) -> bool:
    return (await bus.queue_status()).waiting == 1


async def _tidy(stage: Stage) -> bool:
    with suppress(*CONNECTION_ERRORS):
        return not await residue(stage.redis, stage.names, stage.dispatchers)
    return False


async def test_groups_that_are_destroyed_are_made_again_and_nothing_is_lost(stage: Stage, bus: Client) -> None:
    for stream in inbound(stage.names):
        await stage.redis.xgroup_destroy(stream, DISPATCHERS_GROUP)
    handles = await bus.submit_many(
        TaskCreate(capability="chaos.work", payload=Job(n=n), priority=level)
        for n in range(5)
        for level in TaskPriority
    )
    for handle in handles:
        assert await handle.result(timeout=30)


async def test_streams_that_are_deleted_are_made_again(stage: Stage, bus: Client) -> None:
    await stage.redis.delete(*inbound(stage.names))
    await asyncio.gather(*(works(bus) for _ in range(5)))
    streams = [stage.names.assignments(agent) for agent in stage.agents]
    await stage.redis.delete(*streams, *(stage.names.control(agent) for agent in stage.agents))
    await asyncio.gather(*(works(bus) for _ in range(20)))


async def test_ten_take_overs_in_a_row_lose_nothing(stage: Stage, bus: Client) -> None:
    handles = []
    for n in range(10):
        handles.append(await bus.submit("chaos.work", Job(n=n, ms=300)))
        await stage.redis.delete(stage.names.leader)
        await eventually(stage.leader)
    for n, handle in enumerate(handles):
        assert (await handle.result(timeout=30))["n"] == n


async def test_after_all_of_it_nothing_is_left(stage: Stage) -> None:
    await eventually(lambda: _tidy(stage), timeout=30)
    assert all(process.running for process in stage.processes.values())
