"""An agent offers capabilities; a client submits tasks that ask for one; the dispatcher brings them together."""

from pydantic import BaseModel

from agent_runtime import Agent, capability
from bus import Client, TaskStatus
from tests.fundamentals.conftest import RunAgent


class Text(BaseModel):
    text: str


class Count(BaseModel):
    words: int


class Counter(Agent):
    slots = 8

    @capability("text.count", version="1.2", languages=["en", "de"])
    async def count(self, task: Text) -> Count:
        return Count(words=len(task.text.split()))

    @capability("text.reverse")
    def reverse(self, task: str) -> str:
        # A plain `def` runs in a thread, so that it may block.
        return task[::-1]


async def test_a_task_is_submitted_and_its_result_awaited(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Counter())
    handle = await bus.submit("text.count", {"text": "a b c"})
    assert await handle.result(timeout=30) == {"words": 3}


async def test_named_by_its_method_a_task_has_a_typed_result(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Counter())
    handle = await bus.submit(Counter.count, Text(text="a b"))
    result = await handle.result(timeout=30)
    assert isinstance(result, Count)
    assert result.words == 2


async def test_a_plain_method_works_in_a_thread(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Counter())
    assert await (await bus.submit("text.reverse", "abc")).result(timeout=30) == "cba"


async def test_the_ledger_keeps_what_happened(bus: Client, run_agent: RunAgent) -> None:
    worker = await run_agent(Counter())
    handle = await bus.submit("text.count", {"text": "a"}, metadata={"from": "the tour"}, tags=["tour"])
    await handle.result(timeout=30)
    record = await handle.get()
    assert record.status is TaskStatus.COMPLETED
    assert (record.agent_id, record.attempt) == (worker.agent_id, 1)
    assert record.metadata == {"from": "the tour"}
    assert record.enqueued_at <= (record.assigned_at or 0) <= (record.finished_at or 0)
