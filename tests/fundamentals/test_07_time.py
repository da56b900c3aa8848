"""A task may be delayed, and may refuse to wait too long. The server's clock decides both."""

import pytest

from agent_runtime import Agent, capability
from bus import Client, FailureReason, TaskTimeoutError
from tests.fundamentals.conftest import RunAgent


class Echo(Agent):
    @capability("echo")
    async def echo(self, task: str) -> str:
        return task


async def test_a_delayed_task_starts_no_earlier(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Echo())
    handle = await bus.submit("echo", "later", delay=0.3)
    assert await handle.result(timeout=10) == "later"
    record = await handle.get()
    assert record.assigned_at is not None
    assert record.assigned_at - record.enqueued_at >= 300


async def test_a_task_that_nobody_takes_in_time_expires_and_says_why(bus: Client) -> None:
    handle = await bus.submit("nobody.can.do.this", queue_timeout=0.1)
    with pytest.raises(TaskTimeoutError, match="no agent offers") as caught:
        await handle.result(timeout=10)
    assert caught.value.reason == FailureReason.EXPIRED
