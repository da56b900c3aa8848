"""With a key, submitting twice is submitting once."""

from agent_runtime import Agent, capability
from bus import Client
from tests.fundamentals.conftest import RunAgent


class Till(Agent):
    slots = 4

    def __init__(self) -> None:
        self.booked: list[int] = []

    @capability("book")
    async def book(self, task: int) -> int:
        self.booked.append(task)
        return len(self.booked)


async def test_the_same_key_returns_the_existing_task(bus: Client, run_agent: RunAgent) -> None:
    till = Till()
    await run_agent(till)
    first = await bus.submit("book", 5, key="invoice 7")
    again = await bus.submit("book", 5, key="invoice 7")
    assert again.id == first.id
    assert await first.result(timeout=30) == await again.result(timeout=30) == 1
    assert await (await bus.submit("book", 5, key="invoice 7")).result(timeout=30) == 1
    assert till.booked == [5]
