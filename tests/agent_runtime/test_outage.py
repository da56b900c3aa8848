"""What a worker does while the server is away, and when it is back."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from agent_runtime import Agent, TaskContext, capability
from bus.states import FailureReason, TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader
from tests.support.proxy import Proxy
from tests.support.waiting import eventually


class Patient(Agent):
    slots = 4

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.cancelled: list[str] = []
        self.runs: list[str] = []

    @capability("wait")
    async def wait(self, task: str, ctx: TaskContext) -> str:
        return await self._wait(task, ctx)

    @capability("alone", exclusive=True)
    async def alone(self, task: str, ctx: TaskContext) -> str:
        return await self._wait(task, ctx)

    async def _wait(self, task: str, ctx: TaskContext) -> str:
        self.runs.append(task)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            assert ctx.cancelled
            self.cancelled.append(task)
            raise
        return task


@pytest.fixture
async def proxy(redis_url: str) -> AsyncIterator[Proxy]:
    async with Proxy(redis_url) as made:
        yield made


async def test_work_goes_on_through_an_outage_and_its_result_arrives_afterwards(
    leader: HandLeader, start_worker: StartWorker, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Patient()
    start_worker(agent, redis_url=proxy.url)
    signed = await leader.welcome()
    first = await leader.assign(signed, "a", "a", capability="wait")
    await leader.wait_started(first)
    caplog.set_level("INFO")
    proxy.cut()
    await eventually(lambda: any("no answer from the server" in record.message for record in caplog.records))
    second = await leader.assign(signed, "b", "b", capability="wait")
    agent.gate.set()
    proxy.mend()
    assert (await leader.result(first)).output == "a"
    assert (await leader.result(second)).output == "b"
    assert sorted(agent.runs) == ["a", "b"]
    await eventually(lambda: "the server answers again" in caplog.text)
    assert caplog.text.count("no answer from the server") == caplog.text.count("the server answers again") == 1
    await leader.wait_for(lambda: leader.heartbeats and not leader.heartbeats[-1].holding)
    assert len(leader.registrations) == 1


async def test_what_was_read_before_is_not_run_again_after_a_lost_connection(
    leader: HandLeader, start_worker: StartWorker, proxy: Proxy
) -> None:
    agent = Patient()
    agent.gate.set()
    running = start_worker(agent, redis_url=proxy.url)
    signed = await leader.welcome()
    await leader.result(await leader.assign(signed, "a", "a", capability="wait"))
    proxy.cut()
    await eventually(lambda: running.worker._reader.cursor == "0-0")
    proxy.mend()
    await leader.result(await leader.assign(signed, "b", "b", capability="wait"))
    assert agent.runs == ["a", "b"]


async def test_exclusive_work_is_cancelled_before_the_lease_ends_and_other_work_is_not(
    leader: HandLeader, start_worker: StartWorker, proxy: Proxy
) -> None:
    agent = Patient()
    start_worker(agent, redis_url=proxy.url, lease=2.0)
    signed = await leader.welcome()
    shared = await leader.assign(signed, "s", "shared", capability="wait")
    alone = await leader.assign(signed, "a", "alone", capability="alone")
    await leader.wait_for(lambda: {shared, alone} <= leader.started)
    proxy.cut()
    cut = asyncio.get_running_loop().time()
    await eventually(lambda: agent.cancelled)
    assert asyncio.get_running_loop().time() - cut < 2.0
    assert agent.cancelled == ["alone"]
    proxy.mend()
    result = await leader.result(alone)
    assert (result.status, result.reason, result.retryable) == (TaskStatus.FAILED, FailureReason.AGENT_LOST, True)
    agent.gate.set()
    assert (await leader.result(shared)).output == "shared"


async def test_exclusive_work_goes_on_while_heartbeats_are_stored(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Patient()
    start_worker(agent, lease=1.5)
    signed = await leader.welcome()
    alone = await leader.assign(signed, "a", "alone", capability="alone")
    await leader.wait_started(alone)
    seen = len(leader.heartbeats)
    await leader.wait_for(lambda: len(leader.heartbeats) > seen + 12)
    agent.gate.set()
    assert (await leader.result(alone)).output == "alone"


async def test_an_entry_that_makes_no_sense_is_left_out(
    leader: HandLeader, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    agent = Patient()
    agent.gate.set()
    start_worker(agent)
    signed = await leader.welcome()
    for body in (b"{", b"[]", b"{}"):
        await leader.redis.xadd(leader.names.control(signed.agent_id), {"__data__": body})
        await leader.redis.xadd(leader.names.assignments(signed.agent_id), {"__data__": body})
    task = await leader.assign(signed, "a", "a", capability="wait", run_timeout=5)
    assert (await leader.result(task)).output == "a"
    assert "cannot be understood" in caplog.text
