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


class Reply(Message):
    """Outcomes for one client."""

    outcomes: tuple[Outcome, ...] = ()
    explanation: Explanation | None = Field(None, description="Answer to `explain` or `plan`.")
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
