"""Of tasks: what is asked for, and what is answered."""

from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, RootModel, Tag, model_validator
from pydantic.config import JsonDict

from bus.messages import TaskIdField
from bus.records import Task, TaskCreate
from bus.states import TaskStatus

MAX_TASKS: Final = 1000
"""Tasks that one request may submit, or cancel."""

_ONE: Final[JsonDict] = {"capability": "text.count", "payload": {"text": "to be or not to be"}}


def _without_pool(schema: dict[str, Any]) -> None:
    schema.get("properties", {}).pop("pool", None)


class NewTask(TaskCreate):
    """A task to submit. Its `capability` may say more, as in `translate>=2[lang contains de]`."""

    model_config = ConfigDict(json_schema_extra=_without_pool)

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


class CancelRequest(BaseModel):
    """Tasks that are to be given up."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", json_schema_extra={"examples": [{"task_ids": ["default.order-17"]}]}
    )

    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=MAX_TASKS, description="Their ids.")
    reason: str = Field("", max_length=1000, description="Kept with the tasks.")


class CancelResponse(BaseModel):
    """What becomes of the tasks, as far as their records tell when the request is stored."""

    model_config = ConfigDict(frozen=True)

    requested: tuple[str, ...] = Field(description="They were live: the leader is asked to cancel them.")
    ended: tuple[str, ...] = Field(description="They had ended before, and stay as they are.")
    unknown: tuple[str, ...] = Field(
        description="There is no record of them; if a submission is read within a minute, it is cancelled."
    )


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
