"""What is done to processes and networks from outside, and by tasks to their own agents; work is in flight each time.

The server keeps its data, nobody starts or repairs anything. `python -m tests.chaos` does all of it for longer.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import pytest
import pytest_asyncio

from bus import Client, TaskCreate, TaskFailedError, TaskHandle
from tests.chaos.agent import Job
from tests.chaos.auditor import Evidence, Execution
from tests.chaos.stage import POOL, Stage
from tests.support.processes import paused
from tests.support.waiting import eventually

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(120), pytest.mark.group(__name__)]

BEYOND_S: Final = 6.5
"""Longer than the leases of agents and leaders."""
BESIDE: Final = 12


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with Stage(tmp_path_factory.mktemp("harm") / "run", agents=2, producers=1) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def bus(stage: Stage) -> AsyncIterator[Client]:
    async with Client(stage.proxies["p1"].url, pool=POOL) as client:
        yield client


def of(stage: Stage, *handles: TaskHandle[Any]) -> list[Execution]:
    """Return the executions of tasks, by what agents wrote down."""
    of_task = Evidence(stage.journals).of_task
    return [one for handle in handles for one in of_task.get(handle.id, ())]


async def in_flight(stage: Stage, bus: Client, ms: int, number: int = BESIDE) -> list[TaskHandle[Any]]:
    """Have tasks begun on both agents which take so long."""
    handles = await bus.submit_many(TaskCreate(capability="chaos.work", payload=Job(n=n, ms=ms)) for n in range(number))
    await eventually(lambda: len(of(stage, *handles)) == number, timeout=30)
    assert {one.agent for one in of(stage, *handles)} == set(stage.agents)
    return handles


async def ended_once(stage: Stage, handles: list[TaskHandle[Any]]) -> list[Execution]:
    """Await all results; return the executions that they are of."""
    outputs = [await handle.result(timeout=60) for handle in handles]
    assert [output["n"] for output in outputs] == list(range(len(handles)))
    executions = Evidence(stage.journals).executions
    return [executions[output["token"]] for output in outputs]


async def test_a_task_that_takes_all_memory_fails_and_its_agent_goes_on(stage: Stage, bus: Client) -> None:
    beside = await in_flight(stage, bus, ms=3_000)
    pids = [stage.worker_pids(name) for name in stage.agents]
    hungry = await bus.submit("chaos.work", Job(n=0, grows=1, hungry_ms=1_500), max_attempts=1)
    with pytest.raises(TaskFailedError, match="MemoryError"):
        await hungry.result(timeout=30)
    assert {one.attempt for one in await ended_once(stage, beside)} == {1}
    await asyncio.sleep(2)
    handles = await in_flight(stage, bus, ms=50)
    assert {one.attempt for one in await ended_once(stage, handles)} == {1}
    assert [stage.worker_pids(name) for name in stage.agents] == pids


@pytest.mark.parametrize("how", ["dies", "killed"])
async def test_a_task_that_ends_its_agents_process_is_tried_elsewhere_and_the_process_is_started_anew(
    stage: Stage, bus: Client, how: str
) -> None:
    beside = await in_flight(stage, bus, ms=2_000)
    handle = await bus.submit("chaos.work", Job.model_validate({"n": 0, how: 1}))
    assert (await handle.result(timeout=30))["n"] == 0
    assert [one.attempt for one in of(stage, handle)] == [1, 2]
    victim = of(stage, handle)[0].agent
    for one in await ended_once(stage, beside):
        assert one.attempt == 1 or one.agent != victim or one.began > of(stage, handle)[0].began
    await eventually(lambda: all(stage.worker_pids(name) for name in stage.agents), timeout=20)
    await asyncio.gather(*(stage.processes[name].wait_for("is signed in") for name in stage.agents))


async def test_what_a_stopped_agent_ends_when_it_goes_on_is_refused(stage: Stage, bus: Client) -> None:
    handles = await in_flight(stage, bus, ms=2_000)
    (pid,) = stage.worker_pids("a1")
    await paused(pid, BEYOND_S)
    of_results = await ended_once(stage, handles)
    late = [one for one in of(stage, *handles) if one.agent == "a1" and one.attempt == 1]
    await eventually(lambda: all(one.end for one in of(stage, *handles)))
    assert late
    assert not {one.token for one in late} & {one.token for one in of_results}
    assert all(one.agent == "a2" and one.attempt == 2 for one in of_results if one.task in {old.task for old in late})


async def test_a_server_that_does_not_answer_with_open_sockets_costs_no_attempt(stage: Stage, bus: Client) -> None:
    handles = await in_flight(stage, bus, ms=3_000)
    await paused(stage.server.pid, BEYOND_S)
    assert {one.attempt for one in await ended_once(stage, handles)} == {1}
    assert (await (await bus.submit("chaos.work", Job(n=0))).result(timeout=30))["n"] == 0


@pytest.mark.parametrize("way", ["up", "down"])
async def test_a_network_that_is_lost_one_way_costs_no_attempt_and_no_result(
    stage: Stage, bus: Client, way: str
) -> None:
    handles = await in_flight(stage, bus, ms=3_000)
    for proxy in stage.proxies.values():
        proxy.black_hole(up=way == "up", down=way == "down")
    await asyncio.sleep(BEYOND_S)
    for proxy in stage.proxies.values():
        proxy.mend()
    assert {one.attempt for one in await ended_once(stage, handles)} == {1}
    assert (await (await bus.submit("chaos.work", Job(n=0))).result(timeout=30))["n"] == 0
