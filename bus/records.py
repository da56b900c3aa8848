"""What the ledger keeps of a task and an agent, and the views of it that people and programs read.

The record of a task is one hash of five fields (few fields keep a million waiting tasks within a gigabyte):

- ``state``: the guard ``STATUS/attempt/agent/session`` that every script compares before it writes;
- ``spec``: the submission's body, byte for byte as it came;
- ``run``: JSON of `Run`: times, error, past attempts;
- ``result``: JSON of the output, once there is one;
- ``entry``: id of its latest assignment in its agent's stream, so that it can be taken back.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from bus.agent_requests import AgentRequest, Pause
from bus.alike import NOTHING, make_alike
from bus.ids import POOL_PATTERN
from bus.messages import CapabilitySpec, ScheduleRun, SubmitTask, TaskError, TaskFields
from bus.overrides import Overrides
from bus.requirement_text import parse_requirement
from bus.requirements import CapabilityField, Clause, TaskRequirement, Value, capability_name, is_capability_name
from bus.states import AgentHealth, AgentStatus, TaskPriority, TaskStatus


class Guard(NamedTuple):
    """The part of a task's record that scripts compare: who may change it, and from what."""

    status: TaskStatus
    attempt: int = 0
    agent_id: str = ""
    session: str = ""

    def __str__(self) -> str:
        return f"{self.status.value}/{self.attempt}/{self.agent_id}/{self.session}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `str` wrote. Raises `ValueError` for anything else."""
        status, attempt, agent_id, session = text.split("/")
        return cls(TaskStatus(status), int(attempt), agent_id, session)


@dataclass(slots=True)
class AttemptRecord:
    """One attempt that is over; never changed, but replaced by one that says more. No pydantic model: one per task."""

    attempt: int
    agent_id: str
    assigned_at: int
    ended_at: int
    outcome: Annotated[
        str,
        Field(
            description="`completed`, `cancelled`, a `FailureReason`; `returned` or `undelivered` if it was not begun."
        ),
    ]
    started_at: int | None = None
    error: TaskError | None = None


class CancelOutcome(StrEnum):
    """What came of a cancel."""

    FINISHED = "finished"  # the attempt has ended, or there was none
    GIVEN_UP = "given_up"  # nobody knows whether its code has stopped
    TOO_LATE = "too_late"  # its result was on its way


@dataclass(slots=True)
class Cancellation:
    """The cancel of a task, as far as it is. Instants as in `Run`."""

    requested_at: int
    reason: str = ""
    by: str = ""
    grace_ms: int = 0
    """How long its agent has to stop it."""
    delivered_at: int | None = None
    """Its agent has been told."""
    acknowledged_at: int | None = None
    """Its code has been told."""
    outcome: CancelOutcome | None = None
    """None while it is under way; it ended when the task did."""


@dataclass(slots=True)
class Requeued:
    """A life of a task that is over: how it ended, and who gave the task another. Instants as in `Run`."""

    at: int
    by: str
    why: str
    """What the operator gave as the reason."""
    ended_at: int
    reason: str | None = None
    """What it had failed as: a `FailureReason`."""
    error: TaskError | None = None
    attempt: int = 0
    """The latest attempt of that life."""


class Run(BaseModel):
    """The changing part of a task's record. Instants are ms since the epoch by the server's clock."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="constants")

    enqueued_at: int = 0
    priority: TaskPriority | None = Field(None, description="Where it was changed since the submission.")
    not_before: int | None = None
    assigned_at: int | None = None
    started_at: int | None = None
    extended_ms: int = Field(0, description="What its attempt may run beyond run_timeout.")
    waiting: Annotated[bool, Field(description="Its attempt waits for its children, without its slots.")] = False
    children: int = Field(0, description="Children that were accepted.")
    finished_at: int | None = None
    progress: float | None = None
    note: str | None = None
    why: tuple[int, ...] = Field((), description="Why its attempt went to its agent, see `bus.placement`.")
    reason: str | None = None
    error: TaskError | None = None
    failures: int = Field(0, description="Attempts that count against max_attempts.")
    watchers: tuple[str, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()
    cancellation: Annotated[Cancellation | None, Field(description="Who cancelled it, and how far that is.")] = None
    requeues: tuple[Requeued, ...] = Field((), description="Earlier lives, the latest last.")


class TaskCreate(TaskFields):
    """A task to submit: what `Client.submit_many` takes, field by field as `Client.submit` does.

    `capability` may be a text that says more, ``translate>=2[lang contains de]``: its conditions and preferences come
    before those of `requires` and `prefers`, and its range of versions excludes a `version`.

    Valid by construction: what is wrong with a task is said where it is made, by pydantic's `ValidationError`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    capability: Annotated[CapabilityField, BeforeValidator(capability_name)]
    payload: Any = Field(None, description="JSON, or a pydantic model.")
    pool: Annotated[str, Field(pattern=POOL_PATTERN)] | None = Field(None, description="The client's pool if absent.")

    if not TYPE_CHECKING:  # where its arguments are the fields, as of every model

        def __init__(self, /, payload: object = NOTHING, **options: object) -> None:
            if type(self) is not TaskCreate or not make_alike(self, payload, options):
                super().__init__(**options if payload is NOTHING else {"payload": payload, **options})

        # What is not made by a call, pydantic need not make by one.
        __init__.__pydantic_base_init__ = True

    @field_validator("run_timeout", "queue_timeout", "progress_timeout")
    @classmethod
    def _lets_it_begin(cls, seconds: float | None, info: ValidationInfo) -> float | None:
        if seconds == 0:
            raise ValueError(f"a {info.field_name} of 0 would end it before it begins: leave it out for no limit")
        return seconds

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given, before it is validated
        capability = given.get("capability") if isinstance(given, dict) else None
        if not isinstance(capability, str) or is_capability_name(capability):
            return given
        try:
            return _merged(parse_requirement(capability), given)
        except ValueError as error:
            problem = InitErrorDetails(type="value_error", loc=("capability",), input=capability, ctx={"error": error})
            raise ValidationError.from_exception_data(cls.__name__, [problem]) from None


def _merged(asked: TaskRequirement, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a task with what its capability's text asks for among them."""
    fields = {**given, "capability": asked.capability}
    if asked.version is not None:
        if given.get("version") is not None:
            raise ValueError(
                f"the version is given twice, as {asked.version!r} and {given['version']!r}: leave one out"
            )
        fields["version"] = asked.version
    for name, items in (("requires", asked.requires), ("prefers", asked.prefers)):
        more = given.get(name, ())
        if items and isinstance(more, Iterable) and not isinstance(more, str | bytes | dict):
            fields[name] = (*items, *more)
    return fields


class Task(BaseModel):
    """A task as its readers see it."""

    model_config = ConfigDict(frozen=True)

    id: str
    pool: str
    capability: str
    status: TaskStatus
    priority: TaskPriority
    attempt: int
    max_attempts: int
    uncounted: int = Field(
        0, description="Attempts that max_attempts does not count: those before it was requeued, or not begun."
    )
    agent_id: str | None
    enqueued_at: int
    not_before: int | None = None
    assigned_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    progress: float | None = None
    note: str | None = None
    reason: str | None = None
    error: TaskError | None = None
    schedule: ScheduleRun | None = Field(None, description="Where a schedule has submitted it: which firing it is.")
    tags: tuple[str, ...] = ()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    parent: str | None = Field(None, description="Task that has submitted it.")
    depth: int = Field(0, description="How many ancestors it has.")
    trace: str | None = Field(None, description="What it has in common with its whole tree.")
    children: int = Field(0, description="How many tasks it has submitted itself.")
    waiting: Annotated[bool, Field(description="It waits for its children, without its slots.")] = False


class TaskInDB(Task):
    """The full stored record of a task."""

    session: str | None = None
    spec: SubmitTask
    output: JsonValue = None
    attempts: tuple[AttemptRecord, ...] = ()
    cancellation: Cancellation | None = Field(None, description="Who cancelled it, and how far that is.")
    requeues: tuple[Requeued, ...] = ()
    waiting_because: str | None = Field(None, description="Why a PENDING task has no agent yet.")
    placed_because: str | None = Field(None, description="Why its latest attempt went to its agent.")


class TaskQueueStatus(BaseModel):
    """How much waits and runs in a pool."""

    pool: str
    waiting: int = Field(description="PENDING tasks that may start now.")
    delayed: int = Field(description="PENDING tasks that may not start yet.")
    active: int = Field(description="ASSIGNED and RUNNING tasks.")
    unread: int = Field(description="Submissions that the leader has not accepted yet.")
    dead: int = Field(description="FAILED tasks kept as dead letters.")


class LoopBeat(BaseModel):
    """When a loop of the leader was seen last, as it was published."""

    model_config = ConfigDict(frozen=True)

    at: int = Field(description="When this was written; ms since the epoch.")
    age: float = Field(description="Seconds for which it had been busy with one thing then; 0 while it waits for work.")


class CapabilityWorkload(BaseModel):
    """What one agent has to do of one capability, and has done in its session under the present leader."""

    model_config = ConfigDict(frozen=True)

    capability: str
    running: int = Field(description="Tasks of it that run in the agent.")
    prefetched: int = Field(description="Tasks of it that were given to the agent, which it has not begun.")
    completed: int = Field(description="Tasks of it that the agent has completed.")
    failed: int = Field(description="Attempts at it that have failed in the agent.")
    rate: float = Field(description="Tasks completed per second, an average of about the last minute.")
    failure_rate: float = Field(description="Attempts failed per second, alike.")
    p50: float | None = Field(None, description="Seconds that half of the completed tasks ran at most, within 5 %.")
    p90: float | None = Field(None, description="Seconds that nine of ten ran at most; recent tasks count most.")
    p99: float | None = Field(None, description="Seconds that all but one of a hundred ran at most.")


class AgentWorkload(BaseModel):
    """What one agent has to do, and has done in its session under the present leader."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    status: AgentStatus
    slots: int
    running: int
    assigned: int
    completed: int = 0
    failed: int = 0
    used: int | None = Field(None, description="Slots that its tasks take; null if an older dispatcher leads.")
    waiting: int = Field(0, description="Tasks that wait for their children, without their slots.")
    occupied: int = Field(0, description="Slots held by code that was given up and does not stop.")
    granted: dict[str, float] = Field(default_factory=dict, description="What its tasks have of its resources.")

    rate: float = Field(0.0, description="Tasks completed per second, an average of about the last minute.")
    failure_rate: float = Field(0.0, description="Attempts failed per second, alike.")
    start_latency: float = Field(0.0, description="Seconds from assignment to start, a moving average.")
    capabilities: tuple[CapabilityWorkload, ...] = Field(
        (), description="The same of each capability that it has, or had, tasks of."
    )

    @property
    def taken(self) -> int:
        """Return how many slots its tasks take; with work ahead of them, more than it has."""
        return self.running + self.assigned if self.used is None else self.used


class Replaced(BaseModel):
    """A session that another process has replaced, and which holds tasks that must never run twice at once."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    session: str
    lease: float = 5.0
    exclusive: tuple[str, ...] = ()


class AgentRecord(BaseModel):
    """What the ledger keeps of an agent."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    agent_id: str
    session: str
    status: AgentStatus
    health: AgentHealth
    slots: int
    resources: dict[str, float] = Field(default_factory=dict)
    rate: str | None = None
    capabilities: tuple[CapabilitySpec, ...]
    attributes: dict[str, Value] = Field(default_factory=dict)
    accepts: tuple[Clause, ...] = ()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    heartbeat_interval: float = 1.0
    lease: float = 5.0
    registered_at: int = 0
    retired: tuple[str, ...] = Field((), description="Past sessions, which may not come back.")
    replaced: tuple[Replaced, ...] = Field(
        (), description="Past sessions whose `exclusive` tasks are not given to others until their leases are over."
    )
    reason: str | None = None
    pause: Pause | None = Field(None, description="It gets nothing new, whatever its status.")
    request: AgentRequest | None = Field(None, description="The last one to pause, resume, drain or restart it.")
    update: AgentRequest | None = Field(None, description="The last one to change what it offers.")
    overrides: Overrides | None = Field(None, description="What operators have changed of what it offers.")
    wanted: Overrides | None = Field(None, description="What they shall be when the agent has confirmed the update.")
    shut: dict[str, int] = Field(
        default_factory=dict,
        description="Capabilities of which it gets nothing, for they have failed again and again, until then (ms since "
        "the epoch); from then on one task at a time, as a probe.",
    )

    def seen_at(self, now: int) -> Self:
        """Return it with how far its requests are at `now`."""
        seen = {name: one.seen_at(now) for name in ("request", "update") if (one := getattr(self, name)) is not None}
        return self.model_copy(update=seen) if seen else self


class AgentInfo(AgentRecord):
    """An agent as its readers see it."""

    workload: AgentWorkload | None = Field(None, description="As the leader last published it; None without a leader.")
