"""Thousands of tasks cost a few round trips, and waiting for all of them one blocked read."""

from agent_runtime import Agent, capability
from bus import Client, TaskCreate
from tests.fundamentals.conftest import RunAgent


class Squarer(Agent):
    slots = 50

    @capability("square")
    async def square(self, task: int) -> int:
        return task * task


async def test_results_come_in_the_order_in_which_tasks_end(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Squarer())
    handles = await bus.submit_many(TaskCreate(capability="square", payload=n) for n in range(1000))
    results = [await handle.result() async for handle in bus.as_completed(handles)]
    assert sorted(results) == [n * n for n in range(1000)]


async def test_two_agents_share_the_work(bus: Client, run_agent: RunAgent) -> None:
    workers = {(await run_agent(Squarer())).agent_id for _ in range(2)}
    handles = await bus.submit_many(TaskCreate(capability="square", payload=n) for n in range(200))
    for handle in handles:
        await handle.result(timeout=30)
    assert {(await handle.get()).agent_id for handle in handles} == workers
