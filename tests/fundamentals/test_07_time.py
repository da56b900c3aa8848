"""A task may be delayed, and may refuse to wait too long. The server's clock decides both."""

import asyncio
from typing import Any

import pytest

from agent_runtime import Agent, TaskContext, capability
from bus import Client, FailureReason, NotRunningError, TaskHandle, TaskStatus, TaskTimeoutError
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually


class Echo(Agent):
    @capability("echo")
    async def echo(self, task: str) -> str:
        return task


async def test_a_delayed_task_starts_no_earlier(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Echo())
    handle = await bus.submit("echo", "later", delay=0.3)
    assert await handle.result(timeout=30) == "later"
    record = await handle.get()
    assert record.assigned_at is not None
    assert record.assigned_at - record.enqueued_at >= 300


async def test_a_task_that_nobody_takes_in_time_expires_and_says_why(bus: Client) -> None:
    handle = await bus.submit("nobody.can.do.this", queue_timeout=0.1)
    with pytest.raises(TaskTimeoutError, match="no agent offers") as caught:
        await handle.result(timeout=30)
    assert caught.value.reason == FailureReason.EXPIRED


class Hangs(Agent):
    def __init__(self) -> None:
        super().__init__()
        self.attempts: list[int] = []

    @capability("hangs.once")
    async def once(self, task: str, ctx: TaskContext) -> str:
        self.attempts.append(ctx.attempt)
        if ctx.attempt == 1:
            await asyncio.Event().wait()
        return task


async def test_an_attempt_that_hangs_is_declared_overdue_and_the_next_one_succeeds(
    bus: Client, run_agent: RunAgent
) -> None:
    agent = Hangs()
    await run_agent(agent)
    handle = await bus.submit("hangs.once", "well", retry={"base": 0})
    await eventually(lambda: _runs(handle))
    told = await bus.timeout(handle.id, "it hangs", by="alice")
    assert (told.status, told.attempt) == (TaskStatus.PENDING, 1)
    assert await handle.result(timeout=30) == "well"
    past = (await handle.get()).attempts[0]
    assert (past.outcome, past.error and past.error.message) == ("timeout", "declared overdue by alice: it hangs")
    with pytest.raises(NotRunningError, match="COMPLETED"):
        await bus.timeout(handle.id)


async def _runs(handle: TaskHandle[Any]) -> bool:
    return await handle.status() is TaskStatus.RUNNING
