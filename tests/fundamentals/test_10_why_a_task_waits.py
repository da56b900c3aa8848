"""A task that waits says why."""

import pytest

from agent_runtime import Agent, capability
from bus import Client, TaskHandle, TaskStatus, TaskTimeoutError, UnknownTaskError
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually


class Translator(Agent):
    @capability("translate", version="1.4", languages=["en"])
    async def translate(self, task: str) -> str:
        return task


async def reason(handle: TaskHandle[str]) -> str:
    async def why() -> str | None:
        return (await handle.get()).waiting_because

    return await eventually(why) or ""


async def test_nobody_offers_it(bus: Client) -> None:
    assert "no agent offers 'translate'" in await reason(await bus.submit("translate", "x"))


async def test_somebody_offers_it_and_does_not_meet_the_requirement(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Translator())
    words = await reason(await bus.submit("translate", "x", version=">=2"))
    assert "in version 1.4" in words
    assert "version >=2" in words
    assert "languages contains fr" in await reason(
        await bus.submit("translate", "x", requires=["languages contains fr"])
    )


async def test_it_is_not_time_yet(bus: Client) -> None:
    assert "may not start for another" in await reason(await bus.submit("translate", "x", delay=100))


async def test_a_task_that_has_ended_says_how_and_where_and_why_there(bus: Client, run_agent: RunAgent) -> None:
    worker = await run_agent(Translator())
    handle = await bus.submit("translate", "x")
    await handle.result(timeout=30)
    found = await bus.explain(handle.id)
    assert (found.status, found.agent_id) == (TaskStatus.COMPLETED, worker.agent_id)
    assert found.ended_at == (await handle.get()).finished_at
    assert found.text.startswith("COMPLETED at ")
    assert (
        f"on {worker.agent_id}, in attempt 1; attempt 1 was placed there as the only one that could do it" in found.text
    )


async def test_only_what_nobody_knows_cannot_be_explained(bus: Client) -> None:
    failed = await bus.submit("translate", 1, queue_timeout=0.1)
    with pytest.raises(TaskTimeoutError):
        await failed.result(timeout=30)
    assert "FAILED as expired" in (await bus.explain(failed.id)).text
    with pytest.raises(UnknownTaskError):
        await bus.explain(f"{bus.pool}.nobody")
