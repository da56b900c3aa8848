"""A failed attempt is repeated after a backoff; when none is left, the failure comes back with its reason and error."""

import asyncio

import pytest
from pydantic import BaseModel

from agent_runtime import Agent, Reject, RetryLater, TaskContext, capability
from bus import Client, FailureReason, TaskFailedError, TaskTimeoutError
from tests.fundamentals.conftest import RunAgent


class Amount(BaseModel):
    euros: int


class Moody(Agent):
    slots = 4

    @capability("third.time.lucky")
    async def third(self, task: None, ctx: TaskContext) -> int:
        if ctx.attempt < 3:
            raise ConnectionError("not yet")
        return ctx.attempt

    @capability("pay")
    async def pay(self, task: Amount) -> str:
        if task.euros < 0:
            raise Reject("an amount cannot be negative", {"euros": task.euros})
        return "paid"

    @capability("when.it.is.open")
    async def shop(self, task: None, ctx: TaskContext) -> int:
        if ctx.attempt == 1:
            raise RetryLater("closed", after=0.3)
        return ctx.attempt

    @capability("forever")
    async def forever(self, task: None) -> None:
        await asyncio.Event().wait()


async def test_what_fails_is_tried_again(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Moody())
    handle = await bus.submit("third.time.lucky", max_attempts=3)
    assert await handle.result(timeout=30) == 3
    record = await handle.get()
    assert [attempt.outcome for attempt in record.attempts] == ["error", "error", "completed"]


async def test_a_capability_may_say_when_to_try_again(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Moody())
    handle = await bus.submit("when.it.is.open")
    assert await handle.result(timeout=30) == 2
    first, second = (await handle.get()).attempts
    assert second.assigned_at - first.ended_at >= 290
    assert first.error is not None
    assert first.error.message == "closed"


async def test_errors_of_some_types_are_not_worth_another_try(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Moody())
    handle = await bus.submit("third.time.lucky", retry={"never_for": ["ConnectionError"]})
    with pytest.raises(TaskFailedError, match="not yet"):
        await handle.result(timeout=30)
    assert (await handle.get()).attempt == 1


async def test_after_the_last_attempt_the_error_comes_back(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Moody())
    handle = await bus.submit("third.time.lucky", max_attempts=2)
    with pytest.raises(TaskFailedError, match="not yet") as caught:
        await handle.result(timeout=30)
    assert caught.value.reason == FailureReason.ERROR
    assert caught.value.error is not None
    assert caught.value.error.type == "ConnectionError"
    assert "not yet" in (caught.value.error.traceback or "")


async def test_a_wrong_payload_is_rejected_with_the_validation_errors_and_never_repeated(
    bus: Client, run_agent: RunAgent
) -> None:
    await run_agent(Moody())
    handle = await bus.submit("pay", {"euros": "many"})
    with pytest.raises(TaskFailedError) as caught:
        await handle.result(timeout=30)
    assert caught.value.reason == FailureReason.REJECTED
    assert caught.value.error is not None
    assert "euros" in str(caught.value.error.details)
    assert (await handle.get()).attempt == 1


async def test_an_agent_may_reject_a_task_itself(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Moody())
    with pytest.raises(TaskFailedError, match="cannot be negative") as caught:
        await (await bus.submit("pay", {"euros": -1})).result(timeout=30)
    assert caught.value.reason == FailureReason.REJECTED


async def test_a_run_timeout_ends_an_attempt(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Moody())
    handle = await bus.submit("forever", run_timeout=0.1, max_attempts=1)
    with pytest.raises(TaskTimeoutError) as caught:
        await handle.result(timeout=30)
    assert caught.value.reason == FailureReason.TIMEOUT
