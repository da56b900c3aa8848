"""A filter means what its text says, whatever record of a task it is asked about."""

from datetime import datetime
from typing import Any

import pytest
from pydantic import ValidationError

from bus.filters import TaskFacts, TaskFilter, instant
from bus.messages import Command
from bus.states import FailureReason, TaskPriority, TaskStatus

NOW = 1_800_000_000_000
FAILED = TaskFacts(
    status=TaskStatus.FAILED,
    capability="text.count",
    priority=TaskPriority.HIGH,
    tags=("night", "eu"),
    fairness_key="tenant-7",
    agent_id="a",
    enqueued_at=NOW - 7_200_000,
    ended_at=NOW - 3_600_000,
    reason="timeout",
    error_type="shop.OrderError",
)
LIVE = FAILED._replace(status=TaskStatus.RUNNING, ended_at=None, reason=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "status=failed",
        "status=FAILED|cancelled",
        "capability=text.count",
        "tag=night",
        "tag=eu,tag=night",
        "priority=high fairness_key=tenant-7 agent=a",
        "reason=timeout",
        "reason=expired|timeout",
        "error=OrderError",
        "error=shop.OrderError",
        "enqueued_after=3h enqueued_before=1h",
        "ended_after=2h  ,  ended_before=30m",
    ],
)
def test_a_task_matches_if_all_conditions_hold(text: str) -> None:
    assert TaskFilter.parse(text, NOW).matches(FAILED)


@pytest.mark.parametrize(
    "text",
    [
        "status=pending",
        "capability=text",
        "tag=night tag=us",
        "priority=low",
        "fairness_key=tenant-8",
        "agent=b",
        "reason=expired|error",
        "error=Error",
        "error=shop",
        "enqueued_after=1h",
        "enqueued_before=2h",
        "ended_after=30m",
        "ended_before=1h",
        "status=failed tag=night reason=error",
    ],
)
def test_one_condition_that_does_not_hold_is_enough(text: str) -> None:
    assert not TaskFilter.parse(text, NOW).matches(FAILED)


@pytest.mark.parametrize("text", ["reason=timeout", "ended_after=1h", "ended_before=0", "status=failed"])
def test_a_live_task_has_not_ended(text: str) -> None:
    assert TaskFilter.parse("tag=night", NOW).matches(LIVE)
    assert not TaskFilter.parse(text, NOW).matches(LIVE)


def test_the_reason_of_a_cancel_is_no_reason_of_a_failure() -> None:
    cancelled = FAILED._replace(status=TaskStatus.CANCELLED)
    assert not TaskFilter(reason=(FailureReason.TIMEOUT,)).matches(cancelled)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("night", "'night' is no condition on tasks"),
        ("tag=night colour=red", "'colour=red' is no condition"),
        ("tag=", "is no condition"),
        ("reason=bad", "reason: "),
        ("status=dead", "status: "),
        ("capability=a[b", "capability: "),
        ("ended_after=yesterday", "'yesterday' is no instant: write e.g. 2026-11-25T08:00"),
        ("priority=low priority=high", "priority is given twice"),
    ],
)
def test_what_is_no_filter_is_refused_with_the_remedy(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=r"write e\.g\.|has but one") as caught:
        TaskFilter.parse(text, NOW)
    assert complaint in str(caught.value)


def test_an_instant_is_a_date_or_so_long_ago() -> None:
    assert instant("1h", NOW) == NOW - 3_600_000
    moment = datetime(2026, 11, 25, 8, 0).astimezone()
    assert instant("2026-11-25T08:00", NOW) == int(moment.timestamp() * 1000)
    assert instant("2026-11-25T08:00Z", NOW) == 1_795_593_600_000


def test_only_a_filter_that_asks_nothing_is_empty() -> None:
    assert TaskFilter.parse(" ", NOW).empty
    assert not TaskFilter(ended_after=0).empty


def test_a_command_with_a_condition_that_is_not_known_is_refused_and_not_widened() -> None:
    body: dict[str, Any] = {"type": "cancel_matching", "where": {"tags": ["x"], "colour": "red"}}
    with pytest.raises(ValidationError, match="colour"):
        Command.model_validate(body)
    del body["where"]["colour"]
    body["new_field"] = 1
    Command.model_validate(body)
