"""What an agent had in its hands when it left is done by another: handed back by a good one, taken from a dead one."""

import asyncio

from redis.asyncio import Redis

from agent_runtime import Agent, capability
from bus import AgentStatus, Client, TaskCreate
from tests.fundamentals.conftest import RunAgent, running_agent
from tests.support.bus import wire_agent
from tests.support.waiting import eventually


class Worker(Agent):
    slots = 2

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    @capability("work")
    async def work(self, task: int) -> int:
        self.begun.set()
        await self.go_on.wait()
        return task


async def test_an_agent_that_stops_finishes_what_runs_and_hands_back_the_rest(bus: Client, run_agent: RunAgent) -> None:
    first, second = Worker(), Worker()
    async with running_agent(bus, first):
        handles = await bus.submit_many(TaskCreate(capability="work", payload=n) for n in range(4))
        async with asyncio.timeout(30):
            await first.begun.wait()
        first.go_on.set()
    second.go_on.set()
    await run_agent(second)
    assert [await handle.result(timeout=30) for handle in handles] == [0, 1, 2, 3]


async def test_a_dead_agents_tasks_are_given_to_another_when_its_lease_ends(
    bus: Client, run_agent: RunAgent, redis: Redis
) -> None:
    async with wire_agent(redis, bus.pool, "work", agent_id="mortal", lease=1.0) as mortal:
        handle = await bus.submit("work", 7)
        await mortal.next()
        await mortal.fall_silent()
        heir = Worker()
        heir.go_on.set()
        await run_agent(heir)
        assert await handle.result(timeout=30) == 7
    record = await handle.get()
    assert (record.attempts[0].agent_id, record.attempts[0].outcome) == ("mortal", "agent_lost")

    async def in_error() -> bool:
        return (await bus.agent("mortal")).status is AgentStatus.ERROR

    await eventually(in_error)


async def test_a_drained_agent_gets_nothing_new(bus: Client, run_agent: RunAgent) -> None:
    leaving, staying = Worker(), Worker()
    leaving.go_on.set()
    staying.go_on.set()
    gone = await run_agent(leaving)
    await bus.drain_agent(gone.agent_id, "maintenance")

    async def stopped() -> bool:
        return (await bus.agent(gone.agent_id)).status is AgentStatus.STOPPED

    await eventually(stopped)
    stays = await run_agent(staying)
    handle = await bus.submit("work", 1)
    await handle.result(timeout=30)
    assert (await handle.get()).agent_id == stays.agent_id
