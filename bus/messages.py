"""The messages on the bus: frozen pydantic models, plain JSON in the stream field ``__data__``.

Rules that keep rolling upgrades and other languages possible: every message has a version ``v``; unknown fields
are ignored; an unknown version is parked, never rejected; no message has a top-level field named ``data``. Durations
are seconds, instants are milliseconds since the epoch by the server's clock unless a field says otherwise.
"""

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, RootModel

from bus.acceptance import Acceptance
from bus.explanations import Explanation
from bus.ids import AGENT_ID_PATTERN, SESSION_PATTERN, TASK_ID_PATTERN
from bus.limits import Limit, Rate
from bus.requirements import AttributeName, CapabilityField, TaskRequirement, Value, requirement_key
from bus.retries import RetryPolicy
from bus.states import FailureReason, TaskPriority, TaskStatus

VERSION: Final = 1
"""The major version of all messages this code writes, and the highest it reads."""

MAX_BODY_BYTES: Final = 1024 * 1024
"""Default limit of one message's body."""

TaskIdField = Annotated[str, Field(pattern=TASK_ID_PATTERN)]
AgentIdField = Annotated[str, Field(pattern=AGENT_ID_PATTERN)]
SessionField = Annotated[str, Field(pattern=SESSION_PATTERN)]
Seconds = Annotated[float, Field(ge=0, le=366 * 86_400, allow_inf_nan=False)]
Amount = Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)]
Resources = Annotated[dict[AttributeName, Amount], Field(max_length=32)]
Tag = Annotated[str, Field(min_length=1, max_length=64)]


class Message(BaseModel):
    """What all messages share."""

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    v: int = Field(VERSION, ge=1, description="Major version of the message.")


# --- clients → leader -------------------------------------------------------------------------------------------


class TaskFields(TaskRequirement):
    """What a task asks for, payload apart: shared by the wire and by `bus.TaskCreate`."""

    priority: TaskPriority = TaskPriority.MEDIUM
    run_timeout: Seconds | None = Field(None, description="Longest time one attempt may run.")
    queue_timeout: Seconds | None = Field(None, description="Longest time it may wait for an agent.")
    progress_timeout: Seconds | None = Field(
        None, description="Longest time without a word of progress; then its attempt is given up."
    )
    max_attempts: int = Field(3, ge=1, le=1000)
    retry: RetryPolicy | None = Field(
        None, description="How it is repeated; else as its capability, or the pool, says."
    )
    delay: Seconds = Field(0.0, description="Earliest start, counted from the submission's entry in the stream.")
    key: str | None = Field(None, min_length=1, max_length=256, description="Idempotency key.")
    fairness_key: str | None = Field(None, min_length=1, max_length=128)
    estimated_duration: Seconds | None = Field(None, description="Counts if it is longer than what was measured.")
    slots: int = Field(1, ge=1, le=100_000, description="Slots it takes in its agent.")
    resources: Resources = Field(default_factory=dict, description="What else of its agent's it takes: `{gpu: 1}`.")
    limits: tuple[Limit, ...] = Field((), max_length=8, description="Rates and concurrency it shares with others.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    tags: tuple[Tag, ...] = Field((), max_length=32)

    @property
    def requirement_key(self) -> str:
        """A text that is the same for all tasks that ask the same of an agent and of the pool's limits."""
        text = requirement_key(self.capability, self.version, self.requires, self.prefers)
        if self.slots != 1 or self.resources:
            text += f"|{self.slots}|{sorted(self.resources.items())}"
        if self.limits:
            text += "|" + "|".join(limit.model_dump_json(exclude_none=True) for limit in self.limits)
        return text


class TaskHeader(TaskFields, Message):
    """All of a submission but its payload: what the leader reads, the payload passing it as bytes."""

    id: TaskIdField | None = Field(None, description="Client-made id; derived from the entry when absent.")
    reply_to: SessionField | None = Field(None, description="Client whose replies stream is told the outcome.")


class SubmitTask(TaskHeader):
    """Do this work. Stored by the leader as it came; the agent reads it whole."""

    payload: JsonValue = None


class CancelTasks(Message):
    """Give up these tasks, whatever their state."""

    type: Literal["cancel"] = "cancel"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    reason: str = Field("", max_length=1000)
    by: str = Field("", max_length=200)


class Reprioritise(Message):
    """Give tasks another priority; those that have ended stay as they are."""

    type: Literal["reprioritise"] = "reprioritise"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    priority: TaskPriority


class Explain(Message):
    """Say on the replies stream of `reply_to` why a task waits, or why it is where it is."""

    type: Literal["explain"] = "explain"
    task_id: TaskIdField
    reply_to: SessionField


class Plan(Message):
    """Say on the replies stream of `reply_to` what would become of such a task."""

    type: Literal["plan"] = "plan"
    task: TaskFields
    reply_to: SessionField


class WatchTasks(Message):
    """Tell `reply_to` when these tasks end. Of those that have ended already nothing is told: their records say it."""

    type: Literal["watch"] = "watch"
    task_ids: tuple[TaskIdField, ...] = Field(min_length=1, max_length=1000)
    reply_to: SessionField


class AgentCommand(Message):
    """Drain (finish what it has, then stop) or restart (the same, then start anew) one agent."""

    type: Literal["drain", "restart"]
    agent_id: AgentIdField
    reason: str = Field("", max_length=1000)


class Command(
    RootModel[
        Annotated[CancelTasks | Reprioritise | Explain | Plan | WatchTasks | AgentCommand, Field(discriminator="type")]
    ]
):
    """Anything on the commands stream."""

    model_config = ConfigDict(frozen=True)


# --- agents → leader --------------------------------------------------------------------------------------------


class CapabilitySpec(BaseModel):
    """Something an agent can do."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: CapabilityField
    version: str = Field("1.0", max_length=64, description="PEP 440 version.")
    attributes: dict[str, Value] = Field(default_factory=dict)
    input_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the payload.")
    output_schema: dict[str, Any] | None = Field(None, description="JSON Schema of the output.")
    rate: Rate | None = Field(None, description="Most starts per time, of all agents together: `10/s`.")
    concurrency: int | None = Field(None, ge=1, description="Most tasks at once, of all agents together.")
    retry: RetryPolicy | None = Field(None, description="How its tasks are repeated that do not say it themselves.")
    exclusive: bool = Field(
        default=False, description="Must never run twice at once: cancelled when the lease is unsure."
    )


class Register(Message):
    """An agent signs in, or signs in anew. Repeating it is harmless."""

    type: Literal["register"] = "register"
    agent_id: AgentIdField
    session: SessionField
    capabilities: tuple[CapabilitySpec, ...] = Field(min_length=1, max_length=256)
    slots: int = Field(1, ge=1, le=100_000)
    resources: Resources = Field(default_factory=dict, description="What it has for its tasks: `{gpu: 2, mem_gb: 12}`.")
    rate: Rate | None = Field(None, description="Most tasks per time that it is to be given: `5/s`.")
    attributes: dict[str, Value] = Field(default_factory=dict)
    accepts: Acceptance = Field((), description="Conditions on tasks: it gets only those that meet all of them.")
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    heartbeat_interval: Seconds = 1.0
    lease: Seconds = Field(5.0, ge=0.1)


class Unregister(Message):
    """An agent signs out; what it still held is given to others."""

    type: Literal["unregister"] = "unregister"
    agent_id: AgentIdField
    session: SessionField
    reason: str = Field("", max_length=1000)


class Registration(RootModel[Annotated[Register | Unregister, Field(discriminator="type")]]):
    """Anything on the registrations stream."""

    model_config = ConfigDict(frozen=True)


class Heartbeat(Message):
    """An agent is alive, and holds these attempts."""

    agent_id: AgentIdField
    session: SessionField
    seq: int = Field(0, ge=0)
    holding: tuple[tuple[TaskIdField, int], ...] = Field(
        (), description="(task, attempt) received and not yet reported."
    )
    inbox: str = Field("0-0", description="Last entry of its assignments stream that it has read.")
    lag: Seconds = Field(0.0, description="How late its event loop is.")
    occupied: int = Field(0, ge=0, description="Slots in which code of attempts that are over still runs.")
    draining: bool = False


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


# --- leader → agents --------------------------------------------------------------------------------------------


class Assignment(Message):
    """Run this task. Entries appear in the order of their score, lower first."""

    task_id: TaskIdField
    attempt: int
    session: str
    score: int
    assigned_at: int
    version: str | None = Field(None, description="Version that was matched, if the agent offers the name in several.")
    task: SubmitTask


class Registered(Message):
    """The leader knows this session now; assignments may follow."""

    type: Literal["registered"] = "registered"
    session: str


class Reregister(Message):
    """The leader does not know this session: sign in again."""

    type: Literal["reregister"] = "reregister"
    session: str


class Superseded(Message):
    """Another, newer session has this agent's id: stop."""

    type: Literal["superseded"] = "superseded"
    session: str
    by: str


class CancelAttempt(Message):
    """Stop working on this attempt; its result no longer counts unless it is reported first."""

    type: Literal["cancel"] = "cancel"
    session: str
    task_id: TaskIdField
    attempt: int
    reason: str = ""


class RecallAttempt(Message):
    """Hand this attempt back (`returned`) if it has not begun; if it has, nothing changes."""

    type: Literal["recall"] = "recall"
    session: str
    task_id: TaskIdField
    attempt: int


class Instruction(Message):
    """Drain or restart."""

    type: Literal["drain", "restart"]
    session: str
    reason: str = ""


class Control(
    RootModel[
        Annotated[
            Registered | Reregister | Superseded | CancelAttempt | RecallAttempt | Instruction,
            Field(discriminator="type"),
        ]
    ]
):
    """Anything on an agent's control stream."""

    model_config = ConfigDict(frozen=True)


# --- leader → clients and everyone ------------------------------------------------------------------------------


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
