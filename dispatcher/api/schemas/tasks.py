"""Of tasks: what is asked for, and what is answered."""

from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, model_validator
from pydantic.config import JsonDict

from bus.messages import Outcome, Seconds, TaskIdField
from bus.records import Task, TaskCreate
from bus.states import TaskPriority, TaskStatus
from dispatcher.api.schemas.many import Meant

MAX_TASKS: Final = 1000
"""Tasks that one request may submit."""

_ONE: Final[JsonDict] = {"capability": "text.count", "payload": {"text": "to be or not to be"}}


def _as_shown(schema: dict[str, Any]) -> None:
    schema.get("properties", {}).pop("pool", None)
    schema["examples"] = [_ONE]


class NewTask(TaskCreate):
    """A task to submit. Its `capability` may say more, as in `translate>=2[lang contains de]`."""

    model_config = ConfigDict(json_schema_extra=_as_shown)

    @model_validator(mode="after")
    def _pool_is_in_the_query(self) -> Self:
        if self.pool is not None:
            raise ValueError("a task has no field `pool` here: name it in the query, ?pool=…")
        return self


class NewTasks(BaseModel):
    """Several tasks to submit at once, into one pool."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    tasks: tuple[NewTask, ...] = Field(min_length=1, max_length=MAX_TASKS, description="The tasks, in their order.")


def _kind(given: Any) -> str:  # noqa: ANN401 - whatever was given, before it is validated
    return "tasks" if isinstance(given, NewTasks) or (isinstance(given, dict) and "tasks" in given) else "task"


class TaskDispatchRequest(
    RootModel[Annotated[Annotated[NewTask, Tag("task")] | Annotated[NewTasks, Tag("tasks")], Discriminator(_kind)]]
):
    """One task, or with `tasks` up to a thousand."""

    model_config = ConfigDict(frozen=True, json_schema_extra={"examples": [_ONE, {"tasks": [_ONE]}]})

    @property
    def tasks(self) -> tuple[NewTask, ...]:
        """The tasks, in any case."""
        return self.root.tasks if isinstance(self.root, NewTasks) else (self.root,)


class DispatchedTask(BaseModel):
    """A task that is stored, or that there was no room for."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(description="The task's id.", examples=["default.019ac3f2b1c7d0e5a91"])
    known: bool = Field(description="True if its key was used before: nothing new was stored, the id is that task's.")
    refused: bool = Field(
        default=False, description="True if as many tasks wait as may: it was not stored, submit it again later."
    )


class TaskDispatchResponse(BaseModel):
    """The receipt: all tasks are stored, but those that were refused. Their records say what becomes of them."""

    model_config = ConfigDict(frozen=True)

    pool: str = Field(description="The pool that they are in.")
    tasks: tuple[DispatchedTask, ...] = Field(description="The tasks, in the order of the request.")


class TaskList(BaseModel):
    """One page of a list of tasks."""

    model_config = ConfigDict(frozen=True)

    tasks: tuple[Task, ...] = Field(description="The tasks of this page; it may be short, or empty, before the last.")
    next: str | None = Field(description="The `cursor` of the next page; null at the end of the list.")


class UnfinishedTask(BaseModel):
    """A task that has not ended yet."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.")
    status: TaskStatus | None = Field(description="Its status; null while its submission waits to be read.")
    progress: float | None = Field(None, description="How far it is, from 0 to 1, if it has said so.")
    note: str | None = Field(None, description="What it has last said of itself.")


class ResultsRequest(BaseModel):
    """Tasks whose results are wanted."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"task_ids": ["default.order-17"]}]}
    )

    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=500, description="Their ids, of any pools.")


class Results(BaseModel):
    """The results of tasks: each that was named is in one of these."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    ended: tuple[Outcome, ...] = Field(description="How they ended, well or badly: `status` says how.")
    unfinished: tuple[str, ...] = Field(description="They have not ended yet: ask again.")
    unknown: tuple[str, ...] = Field(description="They were never submitted, or have ended long ago.")
    unreadable: tuple[str, ...] = Field((), description="Their records cannot be read: see the log.")


class CancelRequest(Meant):
    """Tasks that are to be given up."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"task_ids": ["default.order-17"], "reason": "no need"},
                {"where": {"tags": ["night"], "status": ["PENDING"]}},
            ]
        }
    )

    reason: str = Field("", max_length=1000, description="Kept with the tasks.")
    grace: Seconds | None = Field(
        None, description="Seconds that their code may take to stop, 5 if absent; of tasks by their ids only."
    )

    @model_validator(mode="after")
    def _grace_is_of_ids(self) -> Self:
        if self.grace is not None and not self.task_ids:
            raise ValueError("a grace is given with `task_ids` only: leave it out")
        return self


class CancelStep(StrEnum):
    """How far a cancel has come."""

    REQUESTED = "requested"
    DELIVERED = "delivered"
    ACKNOWLEDGED = "acknowledged"
    FINISHED = "finished"
    GIVEN_UP = "given_up"


class CancelledTask(BaseModel):
    """A task that is cancelled, or about to be."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.")
    step: CancelStep = Field(
        description="`finished`: it is CANCELLED, and nothing of it runs. `given_up`: CANCELLED, and its code may "
        "still run. Else its agent has not stopped it: it is told (`requested`), has read it (`delivered`), or the "
        "code knows (`acknowledged`)."
    )


class EndedTask(BaseModel):
    """A task that had ended before, or before its agent was told; it stays so."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.")
    status: TaskStatus = Field(description="How it ended.")


class CancelResponse(BaseModel):
    """What has come of the cancel: each task that was named is in one of these."""

    model_config = ConfigDict(frozen=True)

    cancelled: tuple[CancelledTask, ...] = Field(
        (), description="They are CANCELLED, or their agents are stopping them."
    )
    over: tuple[EndedTask, ...] = Field((), description="They had ended, and stay as they are.")
    unknown: tuple[str, ...] = Field(
        (), description="There is no record of them; if a submission is read within a minute, it is cancelled."
    )
    matched: int | None = Field(None, description="Of conditions: how many tasks they have met, which are cancelled.")


class TimeoutRequest(BaseModel):
    """Why an attempt is overdue, and which."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"reason": "it hangs"}]})

    reason: str = Field("", max_length=1000, description="Kept with the attempt.")
    attempt: int | None = Field(
        None, ge=1, le=1_000_000, description="The attempt that is meant; else the one that runs."
    )


class TimedOut(BaseModel):
    """An attempt that was ended as overdue."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.")
    attempt: int = Field(description="The attempt that has ended.")
    status: TaskStatus = Field(description="The task's status: PENDING if it is tried again, FAILED if not.")


class RetryRequest(BaseModel):
    """How a task that has failed is tried again."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"reason": "disk is back"}]})

    reason: str = Field("", max_length=1000, description="Kept with the task.")
    priority: TaskPriority | None = Field(None, description="Its priority from now on; else as it was.")


class Requeued(BaseModel):
    """A task that waits for an agent again."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.")
    requested: str = Field("retry", description="What was asked for, and done.")


class PriorityRequest(BaseModel):
    """Another priority for one task."""

    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra={"examples": [{"priority": "URGENT"}]})

    priority: TaskPriority = Field(description="How urgent it is from now on.")


class ReprioritiseRequest(Meant):
    """Another priority for many tasks."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"where": {"tags": ["night"]}, "priority": "LOW"}]})

    priority: TaskPriority = Field(description="How urgent they are from now on.")


class Reprioritised(BaseModel):
    """Tasks that are to have another priority."""

    model_config = ConfigDict(frozen=True)

    priority: TaskPriority = Field(description="How urgent they are now.")
    requested: tuple[str, ...] = Field(
        (), description="Those that were named: it is stored; ended ones stay as they are."
    )
    matched: int | None = Field(None, description="Of conditions: how many tasks they have met, which have it now.")


class Moment(BaseModel):
    """Something that happened to a task."""

    model_config = ConfigDict(frozen=True)

    at: int = Field(description="When, in milliseconds since the epoch by the server's clock.")
    what: str = Field(
        description="`submitted`, `assigned`, `started`, `ended` (an attempt), `finished` (the task), or `not before`.",
        examples=["assigned"],
    )
    attempt: int | None = Field(None, description="The attempt that it happened in.")
    agent_id: str | None = Field(None, description="Who had the task.")
    outcome: str | None = Field(None, description="How an attempt, or the task, ended.")
    detail: str | None = Field(None, description="More of it, in words.")


class Timeline(BaseModel):
    """The life of a task so far."""

    model_config = ConfigDict(frozen=True)

    task_id: str = Field(description="The task's id.")
    status: TaskStatus = Field(description="Its status now.")
    moments: tuple[Moment, ...] = Field(description="What has happened, in the order of time.")
