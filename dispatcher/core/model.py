"""The scheduler's memory: live tasks, agents, and the classes that tasks with equal requirements form.

These are mutable on purpose and private to the core: only `lifecycle` and `agents` change a status, and what leaves
the core are frozen decisions. A terminal task is not kept.
"""

from dataclasses import dataclass, field

from pydantic import JsonValue

from bus.messages import CapabilitySpec, TaskError
from bus.records import AttemptRecord
from bus.requirements import Clause, Preference, Value
from bus.states import AgentHealth, AgentStatus, TaskPriority, TaskStatus


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a task asks of an agent. Tasks with equal requirements form one class."""

    capability: str
    version: str | None = None
    conditions: tuple[Clause, ...] = ()
    preferences: tuple[Preference, ...] = ()


@dataclass(slots=True, eq=False)
class TaskState:
    """One live task."""

    id: str
    requirement: Requirement
    priority: TaskPriority
    score: int
    enqueued_at: int
    max_attempts: int = 3
    run_timeout_ms: int | None = None
    expires_at: int | None = None
    """When it fails as `expired` unless an agent has it."""
    not_before: int = 0
    fairness_key: str | None = None
    estimate_ms: float | None = None
    watchers: tuple[str, ...] = ()

    status: TaskStatus = TaskStatus.PENDING
    attempt: int = 0
    failures: int = 0
    agent: "AgentState | None" = None
    session: str = ""
    assigned_at: int | None = None
    started_at: int | None = None
    finished_at: int | None = None
    load_ms: float = 0.0
    """What this task adds to its agent's load while it is there."""
    progress: float | None = None
    note: str | None = None
    reason: str | None = None
    error: TaskError | None = None
    attempts: tuple[AttemptRecord, ...] = ()
    missing_since: int | None = None
    """First heartbeat of its agent that did not list it."""
    spec: bytes | None = None
    """The submission's body, until the ledger has it."""
    output: bytes | None = None
    stored: str = ""
    """The guard that the ledger has for it; empty before it was accepted."""

    @property
    def guard(self) -> str:
        """What the ledger's `state` field is to be; same text as `bus.records.Guard`."""
        agent = self.agent
        return f"{self.status}/{self.attempt}/{agent.id if agent else ''}/{self.session}"


@dataclass(slots=True, eq=False)
class AgentState:
    """One agent, signed in or remembered."""

    id: str
    session: str
    capabilities: tuple[CapabilitySpec, ...]
    slots: int
    registered_at: int
    lease_ms: int
    attributes: dict[str, Value] = field(default_factory=dict)
    accepts: tuple[Clause, ...] = ()
    """Conditions on the tasks that it is given, see `match.accepts`."""
    metadata: dict[str, JsonValue] = field(default_factory=dict)
    heartbeat_interval: float = 1.0
    retired: tuple[str, ...] = ()

    status: AgentStatus = AgentStatus.IDLE
    health: AgentHealth = AgentHealth.HEALTHY
    reason: str | None = None
    last_beat: int = 0
    deaf_until: int = 0
    tasks: dict[str, TaskState] = field(default_factory=dict)
    load_ms: float = 0.0
    completed: int = 0
    failed: int = 0
    index: int = -1
    """Its bit in the fleet's masks."""
    level: int = -1
    """Its level of free capacity in the fleet's masks; -1: takes nothing."""

    @property
    def open(self) -> bool:
        """True when it may be given work as far as its status and health go."""
        return self.health is AgentHealth.HEALTHY and self.status in (AgentStatus.IDLE, AgentStatus.RUNNING)
