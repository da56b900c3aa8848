"""Leader → clients, and everyone: how tasks end, answers to questions, and every transition."""

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from bus.explanations import Explanation
from bus.messages.message import Message
from bus.messages.reports import TaskError
from bus.messages.schedules import ScheduleInfo
from bus.states import TaskStatus


class Outcome(BaseModel):
    """How a task ended, as its submitter is told."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    task_id: str
    status: TaskStatus
    attempt: int = 0
    agent_id: str | None = None
    output: JsonValue = None
    output_in_ledger: bool = Field(default=False, description="The output is too large for a reply: read the record.")
    error: TaskError | None = None
    reason: str | None = Field(None, description="A `FailureReason`, or the reason of a cancel.")
    by: str | None = Field(None, description="Who cancelled it.")
    given_up: bool = Field(default=False, description="It was cancelled, and its code may still run.")


class OfCancel(BaseModel):
    """What has come of a cancel when the leader has taken it: each task is in one of these."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    ended: tuple[str, ...] = Field((), description="CANCELLED.")
    under_way: tuple[str, ...] = Field((), description="Their agents are told; how they end is told as for all tasks.")
    not_live: tuple[str, ...] = Field((), description="Ended already, or not known; an unread one is cancelled yet.")


class OfDead(BaseModel):
    """What has become of the tasks that a requeue or a purge spoke of: each is in one of these."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    done: tuple[str, ...] = Field((), description="Requeued, or purged.")
    not_dead: tuple[str, ...] = Field((), description="They are live, or have ended otherwise than FAILED.")
    unknown: tuple[str, ...] = Field((), description="The ledger has no such tasks, or none that can be read.")
    refused: tuple[str, ...] = Field((), description="Their submissions were wrong: there is nothing that could run.")


class OfTimeOut(BaseModel):
    """What has come of declaring a task's attempt overdue."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    done: bool = Field(description="False: nothing was changed, for it is not that attempt that runs.")
    status: TaskStatus = Field(description="The task's status now: PENDING if it is tried again, FAILED if not.")
    attempt: int = Field(description="The attempt that was ended; else the task's latest.")


class Swept(BaseModel):
    """How far a command that speaks of all tasks of a kind has come."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    count: int = Field(0, description="Tasks that it has concerned so far.")
    finished: bool = Field(default=False, description="False: there are more, and more words follow.")


class Reply(Message):
    """Outcomes for one client, or the answer to a question."""

    outcomes: tuple[Outcome, ...] = ()
    explanation: Explanation | None = Field(None, description="Answer to `explain` or `plan`.")
    cancel: OfCancel | None = Field(None, description="Answer to `cancel`; of many tasks there are several.")
    dead: OfDead | None = Field(None, description="Answer to `requeue` or `purge`; of many tasks there are several.")
    timed_out: OfTimeOut | None = Field(None, description="Answer to `timeout`, unless it is `unknown`.")
    swept: Swept | None = Field(None, description="Answers to `cancel_matching` or `reprioritise_matching`.")
    unknown: bool = Field(default=False, description="What was asked about is not live: see its record.")
    schedule: ScheduleInfo | None = Field(None, description="A schedule as it is in force now.")
    task_id: str | None = Field(None, description="The task that `trigger_schedule` has made.")
    problem: str | None = Field(None, description="Why what was asked for was not done.")


class Transition(BaseModel):
    """One change of a task's state, or (status unchanged) of its progress."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    task_id: str
    status: TaskStatus
    attempt: int = 0
    agent_id: str | None = None
    reason: str | None = None
    progress: float | None = None
    note: str | None = None
    capability: str | None = Field(None, description="What the task asks for; absent where an older leader has told.")
    chunk: str | None = None
    """A piece of what it puts out as it runs."""


class AgentTransition(BaseModel):
    """One change of an agent's status or health."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    agent_id: str
    status: str
    health: str
    reason: str | None = None


class EventBatch(Message):
    """All transitions of one commit, in their order."""

    at: int
    epoch: int
    tasks: tuple[Transition, ...] = ()
    agents: tuple[AgentTransition, ...] = ()
