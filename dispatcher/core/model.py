"""The scheduler's memory: live tasks and agents.

These are mutable on purpose and private to the core: only `lifecycle` and `agents` change a status, and what leaves
the core are decisions. A terminal task is not kept. A million tasks may wait: what equal submissions have in common is
one object, `Terms`, and what only a task in an agent's hands has is another, `Attempt`.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from pydantic import JsonValue

from bus.agent_requests import AgentRequest, Pause
from bus.messages import CapabilitySpec, TaskError
from bus.overrides import Overrides
from bus.records import AttemptRecord, Cancellation, Requeued
from bus.requirements import Clause, Value
from bus.states import AgentHealth, AgentStatus, TaskPriority, TaskStatus
from dispatcher.core.kin import Kin
from dispatcher.core.limits import Gate, rate_gate
from dispatcher.core.predecessors import Predecessor
from dispatcher.core.tally import Tally
from dispatcher.core.terms import Requirement, Terms

if TYPE_CHECKING:
    from dispatcher.core.breaker import Breaker
    from dispatcher.core.lines import Line


@dataclass(slots=True, eq=False)
class Attempt:
    """The present assignment of a task: who has it, and how far it is."""

    agent: "AgentState | None"
    """None once it is over."""
    session: str
    assigned_at: int
    started_at: int | None = None
    heard_at: int = 0
    """Last word of progress."""
    extended_ms: int = 0
    """What it may run beyond its run_timeout, as its agent has asked."""
    load_ms: float = 0.0
    """What the task adds to its agent's load while it is there."""
    waiting: bool = False
    """It waits for its children, and has given up its room; see `dispatcher.core.room`."""
    progress: float | None = None
    note: str | None = None
    missing_since: int | None = None
    """First heartbeat of its agent that did not list it."""
    overdue: TaskError | None = None
    """Its agent was told to stop it, and this is why; it has failed with this when it stops, or does not."""
    overdue_until: int = 0
    recalled: bool = False
    """The agent was asked to hand it back."""
    gates: tuple[Gate, ...] = ()
    """The limits that it counts for."""
    why: tuple[int, ...] = ()
    """Why it went to its agent, see `bus.placement`."""


@dataclass(slots=True, eq=False)
class TaskState:
    """One live task."""

    id: str
    terms: Terms
    enqueued_at: int
    priority: TaskPriority | None = None
    """Where it was changed since the submission."""
    not_before: int = 0
    status: TaskStatus = TaskStatus.PENDING
    attempt: int = 0
    failures: int = 0
    current: Attempt | None = None
    line: "Line | None" = None
    """Where it waits; None when it does not."""
    watchers: tuple[str, ...] = ()
    """Clients that are told the outcome, beside the submitter."""
    attempts: tuple[AttemptRecord, ...] = ()
    requeues: tuple[Requeued, ...] = ()
    """Earlier lives, of which the attempts tell, too."""
    error: TaskError | None = None
    reason: str | None = None
    finished_at: int | None = None
    spec: bytes | None = None
    """The submission's body, until the ledger has it."""
    output: bytes | None = None
    cancellation: Cancellation | None = None
    kin: Kin | None = None
    """Its parent and children; None for the most, who have neither."""
    stored: str = ""
    """The guard that the ledger has for it; empty before it was accepted."""

    @property
    def score(self) -> int:
        """Its place in the order, in milliseconds; lower is earlier."""
        return self.enqueued_at - self.terms.head_start_ms

    @property
    def listeners(self) -> tuple[str, ...]:
        """All clients that are told the outcome."""
        reply_to = self.terms.reply_to
        return self.watchers if reply_to is None else (reply_to, *self.watchers)

    @property
    def expires_at(self) -> int | None:
        """When it fails as `expired` unless it has been started by then."""
        terms = self.terms
        if terms.queue_timeout_ms is None:
            return None
        return self.enqueued_at + terms.delay_ms + terms.queue_timeout_ms

    @property
    def present_attempts(self) -> tuple[AttemptRecord, ...]:
        """Those past attempts that count: the ones since it was last requeued."""
        if not self.requeues:
            return self.attempts
        before = self.requeues[-1].attempt
        return tuple(past for past in self.attempts if past.attempt > before)

    @property
    def begun(self) -> bool:
        """True once any attempt of it has run, in this life."""
        current = self.current
        return (current is not None and current.started_at is not None) or any(
            past.started_at for past in self.present_attempts
        )

    @property
    def agent(self) -> "AgentState | None":
        """The agent that has it."""
        return None if self.current is None else self.current.agent

    @property
    def guard(self) -> str:
        """What the ledger's `state` field is to be; same text as `bus.records.Guard`."""
        current = self.current
        if current is None or current.agent is None:
            return _free_guard(self.status, self.attempt)
        return f"{self.status}/{self.attempt}/{current.agent.id}/{current.session}"


@lru_cache(maxsize=1024)
def _free_guard(status: TaskStatus, attempt: int) -> str:
    """Return the guard of a task that nobody has: one text for all that are alike."""
    return f"{status}/{attempt}//"


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
    predecessors: dict[str, Predecessor] = field(default_factory=dict)
    """Sessions that it has replaced and whose exclusive work may still run."""

    status: AgentStatus = AgentStatus.IDLE
    health: AgentHealth = AgentHealth.HEALTHY
    reason: str | None = None
    pause: Pause | None = None
    request: AgentRequest | None = None
    """What was asked of its life last; see `dispatcher.core.steering`."""
    update: AgentRequest | None = None
    """The last wish to change what it offers."""
    overrides: Overrides | None = None
    wanted: Overrides | None = None
    """What the overrides shall be when the agent has confirmed them."""
    told_at: int = 0
    """When it was last told of its request; 0: not in this session."""
    told_offer_at: int = 0
    last_beat: int = 0
    deaf_until: int = 0
    tasks: dict[str, TaskState] = field(default_factory=dict)
    lost: list[tuple[str, int]] = field(default_factory=list)
    """Attempts that had begun when its lease ended: tasks and numbers. None of them has killed it if it comes back."""
    resources: dict[str, int] = field(default_factory=dict)
    """Thousandths of each resource that it has."""
    used: int = 0
    """Slots that its tasks take; with work ahead of them, more than it has."""
    granted: dict[str, int] = field(default_factory=dict)
    """Thousandths of each resource that its tasks have."""
    occupied: int = 0
    """Slots in which code runs that should have stopped, as its last heartbeat said."""
    blocked_since: int | None = None
    breakers: "dict[str, Breaker]" = field(default_factory=dict)
    """By capability; those that have nothing to tell are left out."""
    shut: set[str] = field(default_factory=set)
    """Capabilities that it is not eligible for, for the time being."""
    rate: str | None = None
    throttled: bool = False
    """It was given as many tasks as its rate allows for now."""
    watched: bool = False
    """A timer will look whether work waits in it."""
    load_ms: float = 0.0
    tallies: dict[str, Tally] = field(default_factory=dict)
    """By capability, what it has done of it."""
    completed: int = 0
    failed: int = 0
    success: float = 1.0
    """Moving average of how its attempts end: 1 is well, 0 is badly."""
    latency_ms: float = 0.0
    """Moving average of the time from assignment to start."""
    standing: int = 0
    """What speaks for it among agents of equal room: its success, then its latency, both in coarse steps."""
    life: int = 0
    """Number of this life, which its lease timer carries."""
    deleted: bool = False
    """It has left for good: its record is dropped when its tasks are given on."""
    gates: tuple[Gate, ...] = field(init=False)
    """The limit of its own."""
    retries: bool = field(init=False)
    """True when a capability says how its tasks are repeated."""
    ambiguous: bool = field(init=False)
    """True when it offers a capability in several versions."""
    index: int = -1
    """Its bit in the fleet's masks."""
    seen_free: int = 0
    """Free slots when its level was last looked at."""
    level: int = -1
    """Its level of free capacity in the fleet's masks; -1: takes nothing."""

    def __post_init__(self) -> None:
        self._judge()
        self.gates = () if self.rate is None else (rate_gate(f"agent {self.id}", self.rate),)
        self.retries = any(capability.retry is not None for capability in self.capabilities)
        self.ambiguous = len({capability.name for capability in self.capabilities}) < len(self.capabilities)

    def tally(self, capability: str) -> Tally:
        """Return what it has done of a capability, to be counted on."""
        found = self.tallies.get(capability)
        if found is None:
            found = self.tallies[capability] = Tally()
        return found

    def began(self, latency_ms: int) -> None:
        """Note how long a task took from its assignment to its start."""
        self.latency_ms += 0.1 * (latency_ms - self.latency_ms)
        self._judge()

    def ended(self, *, well: bool) -> None:
        """Note how an attempt ended."""
        self.success += 0.1 * (well - self.success)
        self._judge()

    def _judge(self) -> None:
        self.standing = 64 * round(10 * self.success) - int(self.latency_ms).bit_length()

    @property
    def free(self) -> int:
        """Slots that nothing takes; negative with work ahead of them."""
        return self.slots - self.used - self.occupied

    def fits(self, requirement: Requirement) -> bool:
        """Tell whether there is room now for a task of `requirement`."""
        if self.free < requirement.slots:
            return False
        granted = self.granted
        return all(self.resources.get(name, 0) - granted.get(name, 0) >= much for name, much in requirement.resources)

    def could_fit(self, requirement: Requirement) -> bool:
        """Tell whether there would be room for a task of `requirement` if it had no other."""
        return self.slots >= requirement.slots and all(
            self.resources.get(name, 0) >= much for name, much in requirement.resources
        )

    @property
    def open(self) -> bool:
        """True when it may be given work as far as its status, health and rate go, and nobody has paused it."""
        return (
            self.pause is None
            and self.health is AgentHealth.HEALTHY
            and self.status in (AgentStatus.IDLE, AgentStatus.RUNNING)
            and not self.throttled
        )


def session_of(task: TaskState) -> str | None:
    """Return the session that has the task."""
    return None if task.current is None else task.current.session
