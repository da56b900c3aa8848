"""Clients → leader: tasks that are to be submitted again and again; and how such a schedule stands."""

from enum import StrEnum
from typing import Annotated, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationInfo, model_validator

from bus.ids import SCHEDULE_ID_PATTERN
from bus.messages.message import Message, SessionField
from bus.messages.tasks import TaskFields
from bus.recurrence import CRON_LENGTH, Cron, Every, cron

MAX_SCHEDULE_BYTES: Final = 64 * 1024
"""Most bytes of one schedule as JSON, its payload included: the leader remembers all of them."""

AS_STORED: Final = {"as_stored": True}
"""Validation context of who only looks: a timing is shown, though this machine may not know its time zone."""

_LAST_INSTANT: Final = 32_503_680_000_000
"""The year 3000."""

ScheduleIdField = Annotated[str, Field(pattern=SCHEDULE_ID_PATTERN)]
Instant = Annotated[int, Field(ge=0, le=_LAST_INSTANT)]


class Overlap(StrEnum):
    """What a firing does while an earlier task of the same schedule has not ended."""

    SKIP = "skip"
    QUEUE = "queue"
    REPLACE = "replace"


class Missed(StrEnum):
    """What becomes of firings that were due while nobody led the pool, or the schedule was paused."""

    SKIP = "skip"
    LATEST = "latest"
    ALL = "all"


class ScheduledTask(TaskFields):
    """The task that a schedule submits. Its id and `key` are the schedule's to make."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    payload: JsonValue = None

    @model_validator(mode="after")
    def _without_key(self) -> Self:
        if self.key is not None:
            raise ValueError("a task of a schedule has no key: each firing is one task anyway, leave the key out")
        return self


class ScheduleSpec(BaseModel):
    """What a schedule is to do, and when. Valid by construction: a timing that cannot be is refused."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    id: ScheduleIdField
    cron: str | None = Field(None, max_length=CRON_LENGTH, description="Five fields; this or `every`.")
    timezone: str = Field("UTC", max_length=64, description="Where the cron text's clock hangs: an IANA name.")
    every: float | None = Field(
        None, ge=1, le=366 * 86_400, allow_inf_nan=False, description="Seconds, counted from `start`; this or `cron`."
    )
    start: Instant | None = Field(None, description="Nothing before it; `every` counts from it. Else: from its making.")
    until: Instant | None = Field(None, description="Nothing after it.")
    max_runs: int | None = Field(None, ge=1, description="It ends when it has fired so often.")
    overlap: Overlap = Overlap.SKIP
    missed: Missed = Missed.LATEST
    task: ScheduledTask

    @model_validator(mode="after")
    def _one_timing(self, info: ValidationInfo) -> Self:
        if info.context == AS_STORED:
            return self
        if (self.cron is None) == (self.every is None):
            raise ValueError("a schedule has a cron text or an interval: give one of `cron` and `every`")
        if self.cron is not None:
            cron(self.cron, self.timezone)
        elif self.timezone != "UTC":
            raise ValueError("an interval is the same in all time zones: leave `timezone` out, or give a `cron` text")
        if self.until is not None and self.start is not None and self.until < self.start:
            raise ValueError("`until` is before `start`: nothing would ever fire")
        return self

    @property
    def timing(self) -> tuple[object, ...]:
        """What says when it fires: equal for schedules that fire at the same instants."""
        return self.cron, self.timezone, self.every, self.start

    def recurrence(self, made_at: int) -> Cron | Every:
        """Return when it recurs, without regard to `start` of a cron text, and to `until`."""
        if self.cron is not None:
            return cron(self.cron, self.timezone)
        return Every(round((self.every or 1) * 1000), made_at if self.start is None else self.start)


class ScheduleProgress(BaseModel):
    """How far a schedule is. Instants are ms since the epoch by the server's clock."""

    model_config = ConfigDict(extra="ignore")

    created_at: int
    anchor: int = Field(description="From when its present timing counts.")
    next_due: int | None = Field(None, description="None: it has ended.")
    paused: bool = False
    reason: str = Field("", description="Why it is paused.")
    resumed_at: int = 0
    last_due: int | None = Field(None, description="What its latest task was due at.")
    last_task: str | None = None
    fired: int = Field(0, description="Instants that became a task.")
    skipped: int = Field(0, description="Instants that did not, for an earlier task had not ended.")
    replaced: int = Field(0, description="Tasks that were cancelled for a later one.")
    missed: int = Field(0, description="Instants that passed while nobody led or it was paused, and were let go.")
    triggered: int = Field(0, description="Tasks that somebody asked for.")
    problem: str | None = Field(None, description="Why the leader cannot read the schedule; it does not fire.")


class ScheduleInfo(BaseModel):
    """A schedule as its readers see it."""

    model_config = ConfigDict(frozen=True)

    spec: ScheduleSpec
    progress: ScheduleProgress

    @property
    def id(self) -> str:
        """The name that was given to it."""
        return self.spec.id

    @property
    def state(self) -> Literal["active", "paused", "ended", "unreadable"]:
        """Whether it fires."""
        if self.progress.problem is not None:
            return "unreadable"
        if self.progress.next_due is None:
            return "ended"
        return "paused" if self.progress.paused else "active"

    def upcoming(self, count: int) -> list[int]:
        """Return the next `count` instants, fewer where it ends; overlaps and pauses may let some of them go."""
        progress, spec = self.progress, self.spec
        if progress.next_due is None:
            return []
        left = count if spec.max_runs is None else min(count, spec.max_runs - progress.fired)
        found = [progress.next_due]
        for at in spec.recurrence(progress.anchor).after(progress.next_due):
            if len(found) >= left or (spec.until is not None and at > spec.until):
                break
            found.append(at)
        return found[:left]


class PutSchedule(Message):
    """Make a schedule, or let the one of its id be so from now on; its counts, and a pause, stay."""

    type: Literal["put_schedule"] = "put_schedule"
    schedule: ScheduleSpec
    if_absent: bool = Field(default=False, description="One that exists stays as it is.")
    reply_to: SessionField | None = None


class DeleteSchedule(Message):
    """Forget a schedule. Its tasks go on."""

    type: Literal["delete_schedule"] = "delete_schedule"
    id: ScheduleIdField
    reply_to: SessionField | None = None


class PauseSchedule(Message):
    """Let a schedule rest until it is resumed."""

    type: Literal["pause_schedule"] = "pause_schedule"
    id: ScheduleIdField
    reason: str = Field("", max_length=1000)
    reply_to: SessionField | None = None


class ResumeSchedule(Message):
    """Let a schedule go on; what was due meanwhile is treated as its `missed` says."""

    type: Literal["resume_schedule"] = "resume_schedule"
    id: ScheduleIdField
    reply_to: SessionField | None = None


class TriggerSchedule(Message):
    """Submit the task of a schedule now, also of a paused one; its `overlap` counts."""

    type: Literal["trigger_schedule"] = "trigger_schedule"
    id: ScheduleIdField
    occasion: SessionField | None = Field(
        None, description="Of one occasion there is one task, however often it is sent."
    )
    reply_to: SessionField | None = None


ScheduleCommand = PutSchedule | DeleteSchedule | PauseSchedule | ResumeSchedule | TriggerSchedule
