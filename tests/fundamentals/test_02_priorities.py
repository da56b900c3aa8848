"""A priority is a head start in time: URGENT goes first, and nothing waits for ever."""

from agent_runtime import Agent, capability
from bus import Client, TaskCreate, TaskPriority
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually


class OneAtATime(Agent):
    def __init__(self) -> None:
        self.seen: list[str] = []

    @capability("note")
    async def note(self, task: str) -> None:
        self.seen.append(task)


async def test_among_waiting_tasks_the_most_urgent_goes_first(bus: Client, run_agent: RunAgent) -> None:
    order = [TaskPriority.LOW, TaskPriority.HIGH, TaskPriority.MEDIUM, TaskPriority.URGENT]
    handles = await bus.submit_many(TaskCreate(capability="note", payload=p.value, priority=p) for p in order)

    async def all_wait() -> bool:
        return (await bus.queue_status()).waiting == len(order)

    await eventually(all_wait)
    agent = OneAtATime()
    await run_agent(agent)
    for handle in handles:
        await handle.result(timeout=30)
    assert agent.seen == ["URGENT", "HIGH", "MEDIUM", "LOW"]
