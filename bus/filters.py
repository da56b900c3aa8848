"""Which tasks are meant: conditions on what everybody knows of a task, all of which must hold.

One model and one `matches` for lists, dead letters and what the leader does to all tasks of a kind, so that a filter
which was tried out by `tasks list` cannot mean something else to `tasks cancel`.

In a text, ``capability=text.count tag=nightly reason=timeout|expired ended_after=2h``: words ``name=value``, separated
by spaces or commas. A repeated `tag` means both; alternatives of a `status` or a `reason` are separated by ``|``. An
instant is an ISO date, ``2026-11-25T08:00``, or how long ago it was, ``2h``.

A condition that is not known is refused and not ignored, unlike other fields of messages: who cancels by a filter must
not cancel more than was meant.
"""

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Annotated, Any, Final, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bus.durations import seconds
from bus.ids import AGENT_ID_PATTERN, CAPABILITY_PATTERN
from bus.states import FailureReason, TaskPriority, TaskStatus

_WORD: Final = re.compile(r"[\s,]*([a-z_]+)=([^\s,]+)[\s,]*")
EXAMPLE: Final = "capability=text.count tag=nightly reason=timeout|expired ended_after=2h"


class TaskFacts(NamedTuple):
    """What a filter may ask of a task, from whatever record of it there is. Instants are ms by the server's clock."""

    status: TaskStatus
    capability: str
    priority: TaskPriority
    tags: tuple[str, ...]
    fairness_key: str | None
    agent_id: str | None
    """Who has it, or had its last attempt."""
    enqueued_at: int
    ended_at: int | None
    reason: str | None
    error_type: str | None


class TaskFilter(BaseModel):
    """Conditions on tasks; a task matches if all hold. What is absent asks nothing. Instants are ms, as in records."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    status: tuple[TaskStatus, ...] = Field((), max_length=len(TaskStatus), description="One of these.")
    capability: Annotated[str, Field(pattern=CAPABILITY_PATTERN)] | None = None
    tags: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        (), max_length=32, description="All of these."
    )
    priority: TaskPriority | None = None
    fairness_key: str | None = Field(None, min_length=1, max_length=128)
    reason: tuple[FailureReason, ...] = Field((), max_length=len(FailureReason), description="FAILED as one of these.")
    agent_id: Annotated[str, Field(pattern=AGENT_ID_PATTERN)] | None = Field(
        None, description="Who has it, or had its last attempt."
    )
    error: str | None = Field(
        None, min_length=1, max_length=256, description="Type of its error: its full name, or the last part of it."
    )
    enqueued_after: int | None = Field(None, ge=0)
    enqueued_before: int | None = Field(None, ge=0)
    ended_after: int | None = Field(None, ge=0)
    ended_before: int | None = Field(None, ge=0)

    @classmethod
    def parse(cls, text: str, now: int) -> Self:
        """Read the text form; `now` (ms) is what "ago" counts from. Raises `ValueError`, whose text is the remedy."""
        found: dict[str, list[str]] = {}
        text, at = text.strip(), 0
        while at < len(text):
            word = _WORD.match(text, at)
            if word is None or word[1] not in _READ:
                names = ", ".join(_READ)
                raise ValueError(f"{text[at:]!r} is no condition on tasks ({names}): write e.g. {EXAMPLE}")
            found.setdefault(word[1], []).append(word[2])
            at = word.end()
        fields: dict[str, Any] = {}
        for name, values in found.items():
            field, read = _READ[name]
            if len(values) > 1 and field != "tags":
                raise ValueError(f"{name} is given twice: a task has but one")
            fields[field] = tuple(values) if field == "tags" else read(values[0], now)
        return cls.of(**fields)

    @classmethod
    def of(cls, **fields: Any) -> Self:
        """Make a filter; what is None or empty is left out. Raises `ValueError`, whose text is the remedy."""
        try:
            return cls.model_validate({name: value for name, value in fields.items() if value not in (None, (), [])})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            name = str(problem["loc"][0]) if problem["loc"] else "a filter"
            raise ValueError(f"{name}: {problem['msg']}: write e.g. {EXAMPLE}") from None

    @property
    def empty(self) -> bool:
        """True if every task matches."""
        return not self.model_dump(exclude_defaults=True)

    def matches(self, task: TaskFacts) -> bool:
        """Tell whether all conditions hold for `task`."""
        return (
            (not self.status or task.status in self.status)
            and (self.capability is None or self.capability == task.capability)
            and (not self.tags or set(self.tags) <= set(task.tags))
            and (self.priority is None or self.priority is task.priority)
            and (self.fairness_key is None or self.fairness_key == task.fairness_key)
            and (self.agent_id is None or self.agent_id == task.agent_id)
            and (self.error is None or _is_type(task.error_type, self.error))
            and (not self.reason or (task.status is TaskStatus.FAILED and task.reason in self.reason))
            and _within(self.enqueued_after, task.enqueued_at, self.enqueued_before)
            and _within(self.ended_after, task.ended_at, self.ended_before)
        )


def _is_type(found: str | None, asked: str) -> bool:
    return found is not None and asked in (found, found.rpartition(".")[2])


def _within(after: int | None, at: int | None, before: int | None) -> bool:
    if after is None and before is None:
        return True
    return at is not None and (after is None or at >= after) and (before is None or at < before)


def instant(text: str, now: int) -> int:
    """Read an ISO date in local time, or a duration before `now` (ms); return ms. Raises `ValueError`."""
    try:
        return max(0, now - int(seconds(text) * 1000))
    except ValueError:
        pass
    try:
        return max(0, int(datetime.fromisoformat(text).astimezone().timestamp() * 1000))
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no instant: write e.g. 2026-11-25T08:00, or 2h for two hours ago") from None


def _alternatives(text: str, _: int) -> tuple[str, ...]:
    return tuple(text.split("|"))


def _statuses(text: str, _: int) -> tuple[str, ...]:
    return tuple(text.upper().split("|"))


def _text(text: str, _: int) -> str:
    return text


def _upper(text: str, _: int) -> str:
    return text.upper()


_READ: Final[Mapping[str, tuple[str, Callable[[str, int], Any]]]] = {
    "status": ("status", _statuses),
    "capability": ("capability", _text),
    "tag": ("tags", _text),
    "priority": ("priority", _upper),
    "fairness_key": ("fairness_key", _text),
    "reason": ("reason", _alternatives),
    "agent": ("agent_id", _text),
    "error": ("error", _text),
    "enqueued_after": ("enqueued_after", instant),
    "enqueued_before": ("enqueued_before", instant),
    "ended_after": ("ended_after", instant),
    "ended_before": ("ended_before", instant),
}
"""By the name in a text: the field, and what reads its value."""
