"""A task tells how it is coming along, and knows what it works on."""

import asyncio

from agent_runtime import Agent, TaskContext, capability
from bus import Client, TaskStatus
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually


class Painter(Agent):
    def __init__(self) -> None:
        self.dry = asyncio.Event()

    @capability("paint")
    async def paint(self, task: str, ctx: TaskContext) -> dict[str, object]:
        await ctx.progress(0.5, "first coat")
        ctx.log.info("waiting for it to dry")
        await self.dry.wait()
        return {"task": ctx.task_id, "attempt": ctx.attempt, "for": ctx.metadata["for"], "cancelled": ctx.cancelled}


async def test_progress_is_seen_by_everybody_while_the_task_runs(bus: Client, run_agent: RunAgent) -> None:
    painter = Painter()
    await run_agent(painter)
    handle = await bus.submit("paint", "fence", metadata={"for": "Tom"}, run_timeout=60)

    async def half_way() -> bool:
        record = await handle.get()
        return (record.status, record.progress, record.note) == (TaskStatus.RUNNING, 0.5, "first coat")

    await eventually(half_way)
    painter.dry.set()
    assert await handle.result(timeout=30) == {"task": handle.id, "attempt": 1, "for": "Tom", "cancelled": False}
