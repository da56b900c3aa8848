"""What a dispatcher tells whoever watches it. `metrics` implements this without being imported here."""

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol


class AgentGauge(NamedTuple):
    """One agent as it is now."""

    agent_id: str
    status: str
    health: str
    slots: int
    used: int
    heartbeat_age: float
    paused: bool = False
    requests: tuple[tuple[str, str], ...] = ()
    """(kind, state) of what it was asked and has not done."""


class QueueGauge(NamedTuple):
    """How many tasks of one capability and priority wait."""

    capability: str
    priority: str
    waiting: int


class DispatcherObserver(Protocol):
    """Told by the leader of one pool after each commit; must return at once and never raise. Durations in seconds."""

    def accepted(self, capability: str, priority: str, count: int) -> None:
        """`count` submissions are in the ledger now."""

    def placed(self, capability: str, waits: Sequence[float]) -> None:
        """One attempt per item was given to an agent, so long after the task could have started."""

    def finished(
        self, capability: str, status: str, reason: str, runs: Sequence[float], totals: Sequence[float]
    ) -> None:
        """Tasks became terminal: their last attempt's run time and their time since submission."""

    def firings(self, schedule: str, outcome: str, count: int) -> None:
        """`count` instants of a schedule were fired, triggered, skipped or missed, or earlier tasks of it replaced."""

    def retried(self, capability: str, reason: str, count: int) -> None:
        """Tasks went back to PENDING after an attempt: error, timeout, agent_lost, returned."""

    def requeued(self, capability: str, count: int) -> None:
        """Dead letters were given a new life."""

    def purged(self, count: int) -> None:
        """Dead letters were deleted for good."""

    def cancels(self, outcome: str, count: int) -> None:
        """`count` cancels are over: finished, given_up or too_late."""

    def stale(self, kind: str, count: int) -> None:
        """Late or foreign reports were refused."""

    def unreadable(self, topic: str, count: int) -> None:
        """Messages could not be understood and went to `rejected`."""

    def decided(self, decisions: int, seconds: float) -> None:
        """One pass of the scheduler: CPU time and the number of its decisions."""

    def committed(self, decisions: int, seconds: float) -> None:
        """One commit to the ledger: round trip and size."""

    def defect(self) -> None:
        """Something failed that is nobody's fault but the dispatcher's; the log has the traceback."""

    def leading(self, epoch: int) -> None:
        """Lead with this epoch; 0: lead no longer."""

    def queues(self, gauges: Sequence[QueueGauge]) -> None:
        """Every non-empty queue, about once a second."""

    def agents(self, gauges: Sequence[AgentGauge]) -> None:
        """Every known agent, about once a second."""

    def backlog(self, topic: str, entries: int) -> None:
        """Entries of an inbound stream that are not yet consumed, about once a second."""

    def parked(self, topic: str, entries: int) -> None:
        """Those of them of a version that this leader does not know, about once a second."""

    def dead_letters(self, count: int) -> None:
        """FAILED tasks that are kept, about once a second."""

    def audited(self, kind: str, count: int) -> None:
        """`count` findings of an audit that is over are of this kind, see `dispatcher.audit.findings.Kind`."""


class Silent:
    """A `DispatcherObserver` that tells nobody."""

    def accepted(self, capability: str, priority: str, count: int) -> None:
        """Ignore it."""

    def placed(self, capability: str, waits: Sequence[float]) -> None:
        """Ignore it."""

    def finished(
        self, capability: str, status: str, reason: str, runs: Sequence[float], totals: Sequence[float]
    ) -> None:
        """Ignore it."""

    def firings(self, schedule: str, outcome: str, count: int) -> None:
        """Ignore it."""

    def retried(self, capability: str, reason: str, count: int) -> None:
        """Ignore it."""

    def requeued(self, capability: str, count: int) -> None:
        """Ignore it."""

    def purged(self, count: int) -> None:
        """Ignore it."""

    def cancels(self, outcome: str, count: int) -> None:
        """Ignore it."""

    def stale(self, kind: str, count: int) -> None:
        """Ignore it."""

    def unreadable(self, topic: str, count: int) -> None:
        """Ignore it."""

    def decided(self, decisions: int, seconds: float) -> None:
        """Ignore it."""

    def committed(self, decisions: int, seconds: float) -> None:
        """Ignore it."""

    def defect(self) -> None:
        """Ignore it."""

    def leading(self, epoch: int) -> None:
        """Ignore it."""

    def queues(self, gauges: Sequence[QueueGauge]) -> None:
        """Ignore it."""

    def agents(self, gauges: Sequence[AgentGauge]) -> None:
        """Ignore it."""

    def backlog(self, topic: str, entries: int) -> None:
        """Ignore it."""

    def parked(self, topic: str, entries: int) -> None:
        """Ignore it."""

    def dead_letters(self, count: int) -> None:
        """Ignore it."""

    def audited(self, kind: str, count: int) -> None:
        """Ignore it."""


SILENT: Final[DispatcherObserver] = Silent()
