"""The states of tasks and agents, and the only moves between them, as data.

Everything that changes a state (the scheduler, the ledger's scripts, the tests, the diagrams in
the docs) reads these tables; no other module may hold an opinion on which move is allowed.
"""

from enum import StrEnum
from types import MappingProxyType
from typing import Final


class TaskStatus(StrEnum):
    """Where a task is in its life. A terminal status changes by `TASK_REVIVALS` alone."""

    PENDING = "PENDING"
    ASSIGNED = "ASSIGNED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def terminal(self) -> bool:
        """True for COMPLETED, FAILED and CANCELLED."""
        return self in TERMINAL


class TaskPriority(StrEnum):
    """How urgent a task is: each level is a head start in time, see `dispatcher.core.order`."""

    LOW = "LOW"
    MEDIUM = "MEDIUM"
    HIGH = "HIGH"
    URGENT = "URGENT"

    @classmethod
    def _missing_(cls, value: object) -> "TaskPriority | None":
        """Read a level in lower case, too."""
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None

    @property
    def level(self) -> str:
        """The lower-case name that stream names carry."""
        return self.value.lower()


class FailureReason(StrEnum):
    """Why a task is FAILED."""

    ERROR = "error"  # the last allowed attempt raised
    TIMEOUT = "timeout"  # the last allowed attempt ran longer than run_timeout
    AGENT_LOST = "agent_lost"  # the agent vanished during the last allowed attempt
    EXPIRED = "expired"  # no agent took it within queue_timeout
    REJECTED = "rejected"  # the task itself is wrong: bad payload, bad id, refused by the agent
    POISON = "poison"  # attempt after attempt killed its agent
    IMPOSSIBLE = "impossible"  # it was to fail fast, and no agent that is known could ever run it


class AgentStatus(StrEnum):
    """What an agent is doing, as operators see it."""

    IDLE = "IDLE"
    RUNNING = "RUNNING"
    DRAINING = "DRAINING"
    ERROR = "ERROR"
    STOPPED = "STOPPED"


class AgentHealth(StrEnum):
    """What an agent's heartbeats show. Only healthy agents are given work."""

    HEALTHY = "healthy"
    BLOCKED = "blocked"  # its event loop lags behind
    DEAF = "deaf"  # it beats but does not read its assignments
    LOST = "lost"  # no beat within its lease


TERMINAL: Final = frozenset({TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED})

_T = TaskStatus
TASK_TRANSITIONS: Final = MappingProxyType(
    {
        None: frozenset({_T.PENDING, _T.ASSIGNED, _T.FAILED, _T.CANCELLED}),
        _T.PENDING: frozenset({_T.ASSIGNED, _T.FAILED, _T.CANCELLED}),
        _T.ASSIGNED: frozenset({_T.RUNNING, _T.PENDING, _T.COMPLETED, _T.FAILED, _T.CANCELLED}),
        _T.RUNNING: frozenset({_T.PENDING, _T.COMPLETED, _T.FAILED, _T.CANCELLED}),
        _T.COMPLETED: frozenset[TaskStatus](),
        _T.FAILED: frozenset[TaskStatus](),
        _T.CANCELLED: frozenset[TaskStatus](),
    }
)
"""From each task status (None: not yet known to the ledger) to those it may become next.

None → ASSIGNED is a task placed in the commit that accepts it; ASSIGNED → COMPLETED one that started
and finished within a single flush of its agent's reports.
"""

_A = AgentStatus
AGENT_TRANSITIONS: Final = MappingProxyType(
    {
        None: frozenset({_A.IDLE}),
        _A.IDLE: frozenset({_A.RUNNING, _A.DRAINING, _A.ERROR, _A.STOPPED}),
        _A.RUNNING: frozenset({_A.IDLE, _A.DRAINING, _A.ERROR, _A.STOPPED}),
        _A.DRAINING: frozenset({_A.STOPPED, _A.ERROR, _A.IDLE, _A.RUNNING}),
        _A.ERROR: frozenset({_A.IDLE, _A.RUNNING, _A.DRAINING, _A.STOPPED}),
        _A.STOPPED: frozenset({_A.IDLE}),
    }
)
"""From each agent status to those it may become next; STOPPED → IDLE is a new session.

DRAINING → IDLE and DRAINING → RUNNING are a new session, or a resume that came before the process had ended.
"""


TASK_REVIVALS: Final = MappingProxyType({_T.FAILED: _T.PENDING})
"""The one way out of a terminal status: an operator requeues a dead letter, which begins a new life of the same task.

Not among `TASK_TRANSITIONS`, so that nothing else can take it.
"""


def task_may_be_revived(before: TaskStatus, after: TaskStatus) -> bool:
    """Tell whether a requeue may make the move `before → after`."""
    return TASK_REVIVALS.get(before) is after


def task_may_become(before: TaskStatus | None, after: TaskStatus) -> bool:
    """Tell whether the table has the move `before → after`."""
    return after in TASK_TRANSITIONS[before]


def agent_may_become(before: AgentStatus | None, after: AgentStatus) -> bool:
    """Tell whether the table has the move `before → after`; staying is always allowed."""
    return before == after or after in AGENT_TRANSITIONS[before]
