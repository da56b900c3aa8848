"""Of schedules: what is asked for, and what is answered."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from bus.messages import Missed, Overlap, ScheduleInfo
from bus.recurrence import CRON_LENGTH
from dispatcher.api.schemas.tasks import NewTask

_Instant = Annotated[int, Field(ge=0, le=32_503_680_000_000)]


class ScheduleRequest(BaseModel):
    """What a schedule is to do, and when: one of `cron` and `every` is needed."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"cron": "0 3 * * *", "timezone": "Europe/Berlin", "task": {"capability": "text.count"}},
                {"every": 60, "overlap": "queue", "task": {"capability": "text.count"}},
            ]
        },
    )

    task: NewTask = Field(description="What is submitted each time, as by `POST /tasks/dispatch`, without a `key`.")
    cron: str | None = Field(None, max_length=CRON_LENGTH, description="Five fields: `0 3 * * *`.")
    timezone: str | None = Field(None, max_length=64, description="Whose clock a cron text goes by; UTC if absent.")
    every: float | None = Field(None, ge=1, le=366 * 86_400, description="Seconds between two firings.")
    start: _Instant | None = Field(None, description="Nothing before it; `every` counts from it. Else: from now.")
    until: _Instant | None = Field(None, description="Nothing after it.")
    max_runs: int | None = Field(None, ge=1, le=1 << 53, description="It ends when it has fired so often.")
    overlap: Overlap = Field(
        Overlap.SKIP, description="What a firing does while the task of an earlier one has not ended."
    )
    missed: Missed = Field(
        Missed.LATEST, description="What becomes of firings that were due while nobody led, or it was paused."
    )


class ScheduleList(BaseModel):
    """One page of a list of schedules, ordered by their ids."""

    model_config = ConfigDict(frozen=True)

    schedules: tuple[ScheduleInfo, ...] = Field(description="The schedules of this page.")
    next: str | None = Field(description="The `cursor` of the next page; null at the end of the list.")


class SchedulePause(BaseModel):
    """Why a schedule is paused."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"reason": "audit"}]})

    reason: str = Field("", max_length=1000, description="Shown with the schedule.")


class DeletedSchedule(BaseModel):
    """A schedule that is no more; its tasks go on."""

    model_config = ConfigDict(frozen=True)

    schedule_id: str = Field(description="The schedule's id.")


class TriggeredSchedule(BaseModel):
    """A task of a schedule that was submitted by request."""

    model_config = ConfigDict(frozen=True)

    schedule_id: str = Field(description="The schedule's id.")
    task_id: str = Field(description="The task's id.")
