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
from typing import Annotated, Any, NamedTuple, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from bus.ids import POOL_PATTERN
from bus.messages import CapabilitySpec, ScheduleRun, SubmitTask, TaskError, TaskFields
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
    """One attempt that is over; never changed. Not a pydantic model: the leader makes one per task."""

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


class Run(BaseModel):
    """The changing part of a task's record. Instants are ms since the epoch by the server's clock."""

    model_config = ConfigDict(extra="ignore", ser_json_inf_nan="constants")

    enqueued_at: int = 0
    priority: TaskPriority | None = Field(None, description="Where it was changed since the submission.")
    not_before: int | None = None
    assigned_at: int | None = None
    started_at: int | None = None
    extended_ms: int = Field(0, description="What its attempt may run beyond run_timeout.")
    finished_at: int | None = None
    progress: float | None = None
    note: str | None = None
    reason: str | None = None
    error: TaskError | None = None
    failures: int = Field(0, description="Attempts that count against max_attempts.")
    watchers: tuple[str, ...] = ()
    attempts: tuple[AttemptRecord, ...] = ()


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


class TaskInDB(Task):
    """The full stored record of a task."""

    session: str | None = None
    spec: SubmitTask
    output: JsonValue = None
    attempts: tuple[AttemptRecord, ...] = ()
    waiting_because: str | None = Field(None, description="Why a PENDING task has no agent yet.")


class TaskQueueStatus(BaseModel):
    """How much waits and runs in a pool."""

    pool: str
    waiting: int = Field(description="PENDING tasks that may start now.")
    delayed: int = Field(description="PENDING tasks that may not start yet.")
    active: int = Field(description="ASSIGNED and RUNNING tasks.")
    unread: int = Field(description="Submissions that the leader has not accepted yet.")
    dead: int = Field(description="FAILED tasks kept as dead letters.")


class AgentWorkload(BaseModel):
    """What one agent has to do, and has done in its session."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    status: AgentStatus
    slots: int
    running: int
    assigned: int
    completed: int = 0
    failed: int = 0


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
    reason: str | None = None


class AgentInfo(AgentRecord):
    """An agent as its readers see it."""

    workload: AgentWorkload | None = Field(None, description="As the leader last published it; None without a leader.")
