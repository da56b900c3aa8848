"""Agents → leader: how their tasks are coming along, and how they end."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from bus.messages.message import AgentIdField, Message, Seconds, SessionField, TaskIdField
from bus.states import FailureReason, TaskStatus

MAX_CHUNK: Final = 64 * 1024
"""Characters of one piece of output that is told while a task runs."""


class TaskError(BaseModel):
    """What went wrong in an attempt."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    type: str = Field(max_length=200)
    message: str = Field("", max_length=10_000)
    traceback: str | None = Field(None, max_length=50_000)
    details: JsonValue = Field(None, description="Machine-readable particulars, e.g. validation errors.")


class TaskUpdate(BaseModel):
    """How a task is coming along, reported while it runs."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: TaskIdField
    attempt: int = Field(ge=1)
    status: Literal[TaskStatus.RUNNING] = TaskStatus.RUNNING
    progress: float | None = Field(None, ge=0, le=1)
    note: str | None = Field(None, max_length=1000)
    extend: Seconds | None = Field(None, description="So much longer than run_timeout it may run, counted together.")
    waiting: bool | None = Field(
        None, description="It waits for its children, and does not use its slots and resources; false: it goes on."
    )
    cancel: Literal["delivered", "acknowledged"] | None = Field(
        None, description="How far its cancel is: its agent has been told, or its code has."
    )
    chunk: str | None = Field(
        None,
        max_length=MAX_CHUNK,
        description="A piece of what it puts out as it runs: told to whoever follows the task, and kept nowhere.",
    )
    started_at: float | None = Field(None, description="Seconds since the epoch by the agent's clock; shown, not used.")
    retry_count: int = Field(0, ge=0)


class TaskResult(BaseModel):
    """How an attempt ended, as its agent reports it."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    task_id: TaskIdField
    attempt: int = Field(ge=1)
    status: Literal[TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED]
    output: JsonValue = None
    error: TaskError | None = None
    reason: FailureReason | None = Field(None, description="Why it FAILED; `error` if absent.")
    abandoned: bool = Field(default=False, description="CANCELLED, and its code still runs: it did not stop in time.")
    retryable: bool = True
    retry_after: Seconds | None = Field(None, description="Earliest next attempt, instead of the backoff.")
    duration: Seconds | None = Field(
        None, description="Run time by the agent's monotonic clock; measured by the leader if absent."
    )


class HandBack(BaseModel):
    """An assignment the agent returns without having started it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: TaskIdField
    attempt: int = Field(ge=1)


class Report(Message):
    """All that an agent has to say of its tasks since its last report."""

    agent_id: AgentIdField
    session: SessionField
    updates: tuple[TaskUpdate, ...] = ()
    results: tuple[TaskResult, ...] = ()
    returned: tuple[HandBack, ...] = ()
