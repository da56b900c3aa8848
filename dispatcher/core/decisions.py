"""What the scheduler decides: frozen values that the ledger renders into script calls.

A pass leaves at most one `TaskChange` per task, from the guard that the ledger has to the guard it shall have: a task
accepted and placed in one pass is one change, and so is one that started and finished. The transitions in between are
listed for whoever follows the events.

None of them is changed once it is made. They are not `frozen`, because a frozen dataclass takes six times as long to
make, and a task needs a dozen of them.
"""

from collections.abc import Container
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Self

from bus.messages import Control
from bus.names import SCHEDULE_PROGRESS_NOTE, SCHEDULES_NOTE
from bus.records import AgentRecord
from bus.states import AgentHealth, AgentStatus, TaskStatus


class Place(StrEnum):
    """Which index a task stands in after a change; the letters are what the commit script reads."""

    WAITING = "w"  # pending, by score
    DELAYED = "d"  # delayed, by due time
    ACTIVE = "a"  # leases, by time of assignment
    DONE = "f"  # finished, by time
    DEAD = "x"  # finished and dead letters, by time
    GONE = "g"  # none: the record is deleted


class NoteKind(StrEnum):
    """What a note is about; each kind is one hash of the pool's."""

    BREAKER = "breakers"  # one that is not closed, by agent and capability
    RATE = "rates"  # theoretical arrival time of the next start, by the limit's key
    STICKY = "sticky"  # the agent that had the last task of a sticky key, by the key
    BOUND = "bounds"  # most tasks that may wait, by capability; `*` is the pool
    TOMBSTONE = "tombstones"  # a cancel that found no task, by the task's id
    SWEEP = "sweeps"  # what is to be done to all tasks of a kind, by a number
    SCHEDULE = SCHEDULES_NOTE  # what is to be submitted again and again, by the schedule's id
    SCHEDULE_PROGRESS = SCHEDULE_PROGRESS_NOTE  # how far it is


@dataclass(slots=True)
class Handover:
    """An assignment to write to an agent's stream."""

    agent_id: str
    session: str
    attempt: int
    score: int
    at: int
    version: str | None = None
    """Version that was matched, where the agent offers several."""


@dataclass(slots=True)
class TaskChange:
    """One task's record, from what the ledger has to what it shall have."""

    task_id: str
    before: str
    """Guard the ledger must have; empty: the record must not exist."""
    after: str
    place: Place
    place_score: int
    run: bytes
    spec: bytes | None = None
    output: bytes | None = None
    release: str | None = None
    """Agent in whose assignments stream an entry of the old attempt may stand."""
    handover: Handover | None = None
    parent: str | None = None
    """Task in whose list of children a new one is entered."""
    last_of_kin: bool = False
    """The parent has ended: that list, or of an ended parent its own, is kept for the retention only."""
    queues: tuple[str, ...] = ()
    """The bounds that it counts for while it waits, see `dispatcher.core.bounds`."""

    @property
    def queued(self) -> bool | None:
        """True if it begins to wait with this change, False if it waits no longer, None if neither.

        One that is accepted and placed in one pass waits no longer: it was unread, which is waiting, too. So may be one
        that had FAILED: it was purged, and submitted again under the same id.
        """
        if self.place in (Place.WAITING, Place.DELAYED):
            return None if self.before.startswith("PENDING") else True
        return False if self.before.startswith(("PENDING", "FAILED")) or not self.before else None


@dataclass(slots=True)
class AgentChange:
    """One agent's record; `record` None forgets the agent."""

    agent_id: str
    record: AgentRecord | None


@dataclass(slots=True)
class Note:
    """Something else that the next leader must know, stored with the decisions that it comes from."""

    kind: NoteKind
    field: str
    value: bytes | None
    """JSON; None forgets it."""


@dataclass(slots=True)
class QueueChange:
    """Tasks that begin, or cease, to count for a bound; both empty: nothing counts for it any more."""

    scope: str
    add: list[str] = field(default_factory=list)
    remove: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Instruct:
    """A message to one agent's control stream."""

    agent_id: str
    message: Control


@dataclass(slots=True)
class Answer:
    """The outcome of a task, as JSON, for a waiting client."""

    task_id: str
    client_id: str
    outcome: bytes


@dataclass(slots=True)
class Reply:
    """The answer to a question, as JSON of `bus.messages.Reply`, for the client that asked."""

    client_id: str
    body: bytes


@dataclass(slots=True)
class TaskTransition:
    """One step of a task, for the events; written as `bus.messages.Transition`."""

    task_id: str
    status: TaskStatus
    attempt: int
    agent_id: str | None
    reason: str | None
    progress: float | None
    note: str | None
    capability: str | None = None
    chunk: str | None = None


@dataclass(slots=True)
class AgentTransition:
    """One step of an agent, for the events; written as `bus.messages.AgentTransition`."""

    agent_id: str
    status: AgentStatus
    health: AgentHealth
    reason: str | None


@dataclass(slots=True)
class Accepted:
    """For the observer: one submission is a task now."""

    task_id: str
    capability: str
    priority: str


@dataclass(slots=True)
class Placed:
    """For the observer: one attempt was given to an agent."""

    task_id: str
    capability: str
    waited_ms: int


@dataclass(slots=True)
class Ended:
    """For the observer: one task became terminal."""

    task_id: str
    capability: str
    status: str
    reason: str
    run_ms: float
    total_ms: int


@dataclass(slots=True)
class Firing:
    """For the observer: what became of instants at which a schedule was due, or of its earlier tasks."""

    schedule: str
    outcome: str
    """`fired`, `triggered`, `skipped`, `replaced` or `missed`."""
    count: int


@dataclass(slots=True)
class Decisions:
    """All that one pass decided, in order."""

    changes: list[TaskChange] = field(default_factory=list)
    agents: list[AgentChange] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    queues: list[QueueChange] = field(default_factory=list)
    instructions: list[Instruct] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    transitions: list[TaskTransition] = field(default_factory=list)
    agent_transitions: list[AgentTransition] = field(default_factory=list)
    accepted: list[Accepted] = field(default_factory=list)
    placed: list[Placed] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    retried: list[tuple[str, str]] = field(default_factory=list)
    """(capability, reason) of each task that went back to PENDING."""
    requeued: list[str] = field(default_factory=list)
    """Capability of each dead letter that was given a new life."""
    purged: int = 0
    """Dead letters that were deleted."""
    inquiries: list[str] = field(default_factory=list)
    """Tasks whose guards the scheduler wants to be told, by `events.Found`, when these decisions are stored."""
    firings: list[Firing] = field(default_factory=list)
    cancels: list[str] = field(default_factory=list)
    """Outcome of each cancel that is over, see `bus.records.CancelOutcome`."""
    stale: list[str] = field(default_factory=list)
    """Kind of each report that was refused."""

    def without(self, known: Container[str]) -> Self:
        """Return these decisions without all that concerns the tasks `known`: they were not to be decided again."""
        return replace(
            self,
            changes=[one for one in self.changes if one.task_id not in known],
            answers=[one for one in self.answers if one.task_id not in known],
            transitions=[one for one in self.transitions if one.task_id not in known],
            accepted=[one for one in self.accepted if one.task_id not in known],
            placed=[one for one in self.placed if one.task_id not in known],
            ended=[one for one in self.ended if one.task_id not in known],
        )

    def __len__(self) -> int:
        return (
            len(self.changes)
            + len(self.agents)
            + len(self.notes)
            + len(self.queues)
            + len(self.instructions)
            + len(self.answers)
            + len(self.replies)
            + len(self.inquiries)
        )
