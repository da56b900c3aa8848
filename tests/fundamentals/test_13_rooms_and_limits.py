"""A task may take more than a slot, resources, and its share of a limit; it waits until it can have them."""

import asyncio

from agent_runtime import Agent, TaskContext, capability
from bus import Client
from tests.fundamentals.conftest import RunAgent


class Workshop(Agent):
    slots = 4
    resources = {"gpu": 2, "mem_gb": 12}  # noqa: RUF012 - as an author writes it

    def __init__(self) -> None:
        self.weight = 0
        self.heaviest = 0
        self.begun: list[float] = []

    @capability("work")
    async def work(self, task: int) -> int:
        self.begun.append(asyncio.get_running_loop().time())
        self.weight += task
        self.heaviest = max(self.heaviest, self.weight)
        await asyncio.sleep(0.02)
        self.weight -= task
        return task

    @capability("one.at.a.time", concurrency=1)
    async def alone(self, task: None) -> None:
        await self.work(1)


async def test_tasks_of_several_slots_are_never_too_many(bus: Client, run_agent: RunAgent) -> None:
    agent = Workshop()
    await run_agent(agent)
    handles = [await bus.submit("work", weight, slots=weight) for weight in (3, 1, 2, 4, 1, 3, 2)]
    assert [await handle.result(timeout=30) for handle in handles] == [3, 1, 2, 4, 1, 3, 2]
    assert agent.heaviest == 4


async def test_resources_are_shared_out(bus: Client, run_agent: RunAgent) -> None:
    agent = Workshop()
    await run_agent(agent)
    handles = [await bus.submit("work", 1, resources={"gpu": 1, "mem_gb": 5}) for _ in range(6)]
    for handle in handles:
        await handle.result(timeout=30)
    assert agent.heaviest == 2, "two graphics cards, and memory for two"


async def test_a_limit_is_shared_by_all_who_name_it(bus: Client, run_agent: RunAgent) -> None:
    first, second = Workshop(), Workshop()
    await run_agent(first)
    await run_agent(second)
    handles = [await bus.submit("work", 1, limits=[{"key": "openai", "rate": "20/s"}]) for _ in range(7)]
    for handle in handles:
        await handle.result(timeout=30)
    begun = sorted(first.begun + second.begun)
    assert begun[-1] - begun[0] > 6 * 0.05 - 0.04, "seven starts, fifty milliseconds apart"


async def test_a_capability_may_be_limited_in_all_agents_together(bus: Client, run_agent: RunAgent) -> None:
    agent = Workshop()
    await run_agent(agent)
    handles = [await bus.submit("one.at.a.time") for _ in range(4)]
    for handle in handles:
        await handle.result(timeout=30)
    assert agent.heaviest == 1


class Patient(Agent):
    @capability("long")
    async def long(self, task: None, ctx: TaskContext) -> str:
        await ctx.extend(30)
        await asyncio.sleep(0.4)
        return "done after all"


async def test_work_that_is_known_to_be_alive_may_take_longer(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Patient())
    handle = await bus.submit("long", run_timeout=0.2)
    assert await handle.result(timeout=30) == "done after all"
