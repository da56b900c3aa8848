"""The pipeline, through the testing kit: what an author writes, and what becomes of it."""

import asyncio
import threading
from datetime import UTC, date, datetime
from typing import Annotated, Any
from unittest.mock import Mock

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict, JsonValue

from agent_runtime import Agent, Reject, TaskContext, capability
from agent_runtime.execution import MAX_OUTPUT_BYTES
from agent_runtime.testing import AgentKit
from bus.errors import TaskCancelledError, TaskFailedError, TaskTimeoutError
from bus.messages import TaskError
from bus.states import FailureReason
from tests.support.waiting import eventually


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date
    ids: tuple[int, ...]


def _broken(_value: int) -> int:
    raise KeyError("not for validators")


class WordyError(Exception):
    def __str__(self) -> str:
        return "x" * 50_000 + "\ud800"


class UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Stage(Agent):
    slots = 2

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.entered = asyncio.Event()
        self.gate = threading.Event()

    @capability("strict")
    async def strict(self, task: Strict) -> Strict:
        return task

    @capability("same")
    async def same(self, task: JsonValue) -> JsonValue:
        return task

    @capability("thread")
    def in_thread(self, task: int, ctx: TaskContext) -> str:
        ctx.progress(0.25, "begun")
        return f"{task} in {'main' if threading.current_thread() is threading.main_thread() else 'thread'}"

    @capability("stubborn")
    def stubborn(self, task: int, ctx: TaskContext) -> bool:
        self.gate.wait(10)
        self.seen.append(ctx.cancelled)
        return task > 0

    @capability("raise")
    async def fail(self, task: str) -> None:
        errors: dict[str, BaseException] = {
            "value": ValueError("a bad value"),
            "wordy": WordyError(),
            "unspeakable": UnspeakableError(),
            "exit": SystemExit(3),
            "reject": Reject("no such language", {"known": ["en"]}),
            "cancel": asyncio.CancelledError(),
        }
        raise errors[task]

    @capability("wrong")
    async def wrong(self, task: str) -> int:
        return {"type": "text", "long": 0}[task]  # type: ignore[return-value]

    @capability("large")
    async def large(self, task: int) -> str:
        return "x" * task

    @capability("validator")
    async def validator(self, task: Annotated[int, AfterValidator(_broken)]) -> int:
        return task

    @capability("wait")
    async def wait(self, task: str, ctx: TaskContext) -> None:
        self.entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.seen.append((task, ctx.cancelled))

    @capability("context")
    async def context(self, task: None, ctx: TaskContext) -> dict[str, Any]:
        await ctx.progress(0.5, "half")
        await ctx.progress(1)
        ctx.log.warning("spoken")
        return {"attempt": ctx.attempt, "metadata": dict(ctx.metadata), "deadline": ctx.deadline, "task": task}

    @capability("versions", version="1.0")
    async def one(self, task: str | None) -> str:
        return f"one{task or ''}"

    @capability("versions", version="2.1")
    async def two(self, task: str | None) -> str:
        return f"two{task or ''}"


async def _failure(name: str, payload: Any) -> tuple[TaskFailedError, TaskError]:
    async with AgentKit(Stage()) as kit:
        with pytest.raises(TaskFailedError) as caught:
            await kit.run(name, payload)
    assert caught.value.error is not None
    return caught.value, caught.value.error


async def test_strict_models_are_validated_as_the_json_they_came_as() -> None:
    async with AgentKit(Stage()) as kit:
        assert await kit.run("strict", {"day": "2026-01-02", "ids": [1]}) == {"day": "2026-01-02", "ids": [1]}


async def test_a_method_in_place_of_the_name_gives_a_typed_result() -> None:
    given = Strict(day=date(2026, 1, 2), ids=(1, 2))
    async with AgentKit(Stage()) as kit:
        assert await kit.run(Stage.strict, given) == given


async def test_json_passes_unchanged() -> None:
    value = {"text": "ä", "list": [1, None, True, 1.5, 10**30]}
    async with AgentKit(Stage()) as kit:
        assert await kit.run("same", value) == value


async def test_a_plain_method_runs_in_a_thread_and_reports_from_there() -> None:
    async with AgentKit(Stage()) as kit:
        assert await kit.run("thread", 7) == "7 in thread"
        assert [(p.fraction, p.note) for p in kit.progress] == [(0.25, "begun")]


async def test_a_payload_that_does_not_fit_is_rejected_with_pydantics_errors() -> None:
    failure, error = await _failure("strict", {"day": "soon", "ids": [1, "b"]})
    assert failure.reason is FailureReason.REJECTED
    assert error.type == "InvalidPayload"
    assert isinstance(error.details, list)
    assert [d["loc"] for d in error.details if isinstance(d, dict)] == [["day"], ["ids", 1]]


async def test_an_exception_is_told_with_type_text_and_traceback() -> None:
    failure, error = await _failure("raise", "value")
    assert failure.reason is FailureReason.ERROR
    assert (error.type, error.message) == ("ValueError", "a bad value")
    assert error.traceback is not None
    assert "in fail" in error.traceback
    assert "_invoke" not in error.traceback


async def test_a_huge_text_with_odd_characters_is_bounded_and_can_be_sent() -> None:
    _, error = await _failure("raise", "wordy")
    assert error.type.endswith("WordyError")
    assert len(error.message) == 10_000
    assert len(error.traceback or "") <= 50_000


async def test_an_exception_that_cannot_be_shown_is_told_nevertheless() -> None:
    _, error = await _failure("raise", "unspeakable")
    assert "cannot be had" in error.message


async def test_exit_and_cancel_by_the_users_code_fail_the_task_only() -> None:
    assert (await _failure("raise", "exit"))[1].type == "SystemExit"
    assert (await _failure("raise", "cancel"))[1].type == "CancelledError"


async def test_reject_fails_the_task_for_good() -> None:
    failure, error = await _failure("raise", "reject")
    assert failure.reason is FailureReason.REJECTED
    assert (error.type, error.message, error.details) == ("Reject", "no such language", {"known": ["en"]})
    assert error.traceback is None


async def test_an_output_that_is_not_as_declared_is_an_error() -> None:
    failure, error = await _failure("wrong", "type")
    assert failure.reason is FailureReason.ERROR
    assert error.type == "InvalidOutput"


async def test_an_output_that_is_too_long_is_an_error_that_says_so() -> None:
    _, error = await _failure("large", MAX_OUTPUT_BYTES)
    assert error.type == "OutputTooLarge"
    assert "return a reference" in error.message


async def test_a_validator_that_raises_anything_fails_the_task_only() -> None:
    assert (await _failure("validator", 1))[1].type == "KeyError"


async def test_an_unknown_capability_fails() -> None:
    assert (await _failure("nothing", 1))[1].type == "UnknownCapability"


async def test_of_several_versions_the_latest_that_fits_is_run() -> None:
    async with AgentKit(Stage()) as kit:
        assert await kit.run("versions") == "two"
        assert await kit.run("versions", version="<2") == "one"
        assert await kit.run(Stage.one) == "one"


async def test_the_context_tells_of_the_task(caplog: pytest.LogCaptureFixture) -> None:
    before = datetime.now(UTC)
    async with AgentKit(Stage()) as kit:
        told = await kit.run(Stage.context, metadata={"user": "u"}, run_timeout=60, attempt=2)
        assert (told["attempt"], told["metadata"]) == (2, {"user": "u"})
        assert 55 < (datetime.fromisoformat(told["deadline"]) - before).total_seconds() < 65
        assert (await kit.run("context"))["deadline"] is None
        assert [p.fraction for p in kit.progress[:2]] == [0.5, 1.0]
    assert "[test.1#2] spoken" in caplog.text
    assert caplog.records[0].__dict__["attempt"] == 2


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_progress_beyond_its_bounds_is_refused(fraction: float) -> None:
    ctx = TaskContext("p.t", 1, {}, None, lambda _fraction, _note: None, lambda _seconds: None, Mock())
    with pytest.raises(ValueError, match="from 0 to 1"):
        ctx.progress(fraction)


async def test_run_timeout_cancels_a_coroutine_which_may_clean_up() -> None:
    agent = Stage()
    async with AgentKit(agent) as kit:
        with pytest.raises(TaskTimeoutError) as caught:
            await kit.run("wait", "t", run_timeout=0.02)
    assert caught.value.reason is FailureReason.TIMEOUT
    assert agent.seen == [("t", True)]


async def test_a_thread_that_does_not_stop_is_reported_in_time_and_told() -> None:
    agent = Stage()
    async with AgentKit(agent) as kit:
        with pytest.raises(TaskTimeoutError):
            await kit.run("stubborn", 1, run_timeout=0.02)
        agent.gate.set()
        assert await kit.run("thread", 1)
        await eventually(lambda: agent.seen)
    assert agent.seen == [True]


async def test_a_cancel_raises_cancelled() -> None:
    agent = Stage()
    async with AgentKit(agent) as kit:
        running = asyncio.ensure_future(kit.run("wait", "t"))
        await agent.entered.wait()
        kit.cancel("changed my mind")
        with pytest.raises(TaskCancelledError) as caught:
            await running
    assert caught.value.reason == "changed my mind"


async def test_the_kit_must_be_open() -> None:
    with pytest.raises(RuntimeError, match="async with AgentKit"):
        await AgentKit(Stage()).run("same", 1)


class Extended(Agent):
    slots = 2

    @capability("loop")
    async def in_loop(self, task: float, ctx: TaskContext) -> bool:
        before = ctx.deadline
        await ctx.extend(task)
        assert before is not None
        assert ctx.deadline is not None
        assert (ctx.deadline - before).total_seconds() == pytest.approx(task, abs=0.001)
        await asyncio.sleep(0.3)
        return ctx.cancelled

    @capability("thread")
    def in_thread(self, task: float, ctx: TaskContext) -> bool:
        ctx.wait(ctx.extend(task))
        ctx.wait(ctx.progress(0.5))
        threading.Event().wait(0.3)
        return ctx.cancelled


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_a_run_timeout_is_extended_from_within(where: str) -> None:
    async with AgentKit(Extended()) as kit:
        assert await kit.run(where, 30, run_timeout=0.1) is False
        with pytest.raises(TaskTimeoutError, match="longer than its run_timeout"):
            await kit.run(where, 0.1, run_timeout=0.1)


@pytest.mark.parametrize("seconds", [-1, float("inf"), float("nan")])
async def test_an_extension_is_a_number_of_seconds(seconds: float) -> None:
    async with AgentKit(Extended()) as kit:
        with pytest.raises(TaskFailedError, match="an extension is a number of seconds"):
            await kit.run("loop", seconds, run_timeout=9)
