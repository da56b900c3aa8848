"""The metrics of a dispatcher: an observer of its pools, which this module knows by what they tell, not by import."""

from collections import Counter as Tally
from collections.abc import Sequence
from typing import Protocol

from prometheus_client.registry import CollectorRegistry

from metrics import catalogue
from metrics.collectors import (
    AGENTS_TOLD_APART,
    CAPABILITIES_TOLD_APART,
    SCHEDULES_TOLD_APART,
    BatchHistogram,
    Bounded,
    SnapshotGauge,
    counter,
    gauge,
)


class Queue(Protocol):
    """How many tasks of one capability and priority wait."""

    @property
    def capability(self) -> str:
        """The capability's name."""

    @property
    def priority(self) -> str:
        """LOW, MEDIUM, HIGH or URGENT."""

    @property
    def waiting(self) -> int:
        """How many."""


class Agent(Protocol):
    """One agent as it is now."""

    @property
    def agent_id(self) -> str:
        """Its id."""

    @property
    def status(self) -> str:
        """An `AgentStatus`."""

    @property
    def health(self) -> str:
        """An `AgentHealth`."""

    @property
    def slots(self) -> int:
        """Tasks at once."""

    @property
    def used(self) -> int:
        """Tasks it has."""

    @property
    def heartbeat_age(self) -> float:
        """Seconds since it was heard of."""

    @property
    def paused(self) -> bool:
        """True if somebody has paused it."""

    @property
    def requests(self) -> Sequence[tuple[str, str]]:
        """Kind and state of what it was asked and has not done."""


class DispatcherMetrics:
    """The collectors of one dispatcher process; `of(pool)` is the observer of one of its pools."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.accepted = counter(catalogue.TASKS_ACCEPTED, registry)
        self.finished = counter(catalogue.TASKS_FINISHED, registry)
        self.firings = counter(catalogue.FIRINGS, registry)
        self.retries = counter(catalogue.TASK_RETRIES, registry)
        self.cancels = counter(catalogue.CANCELS, registry)
        self.requeued = counter(catalogue.DEAD_REQUEUED, registry)
        self.purged = counter(catalogue.DEAD_PURGED, registry)
        self.dead_letters = gauge(catalogue.DEAD_LETTERS, registry)
        self.placed = counter(catalogue.ATTEMPTS_PLACED, registry)
        self.wait = BatchHistogram(catalogue.QUEUE_WAIT, registry)
        self.run = BatchHistogram(catalogue.TASK_RUN, registry)
        self.end_to_end = BatchHistogram(catalogue.END_TO_END, registry)
        self.waiting = SnapshotGauge(catalogue.TASKS_WAITING, registry)
        self.agents = SnapshotGauge(catalogue.AGENTS, registry)
        self.paused = SnapshotGauge(catalogue.AGENTS_PAUSED, registry)
        self.requests = SnapshotGauge(catalogue.AGENT_REQUESTS, registry)
        self.slots = SnapshotGauge(catalogue.AGENT_SLOTS, registry)
        self.used = SnapshotGauge(catalogue.AGENT_SLOTS_USED, registry)
        self.heartbeat_age = SnapshotGauge(catalogue.HEARTBEAT_AGE, registry)
        self.stale = counter(catalogue.STALE_REPORTS, registry)
        self.unreadable = counter(catalogue.UNREADABLE, registry)
        self.defects = counter(catalogue.DEFECTS, registry)
        self.findings = counter(catalogue.AUDIT_FINDINGS, registry)
        self.decisions = counter(catalogue.DECISIONS, registry)
        self.pass_seconds = BatchHistogram(catalogue.PASS_SECONDS, registry)
        self.commit_seconds = BatchHistogram(catalogue.COMMIT_SECONDS, registry)
        self.leader = gauge(catalogue.LEADER, registry)
        self.epoch = gauge(catalogue.LEADER_EPOCH, registry)
        self.backlog = gauge(catalogue.BACKLOG, registry)
        self.parked = gauge(catalogue.PARKED, registry)
        self.capability = Bounded(CAPABILITIES_TOLD_APART)
        self.schedule = Bounded(SCHEDULES_TOLD_APART)
        self.agent = Bounded(AGENTS_TOLD_APART)
        self.snapshots: dict[str, tuple[Sequence[Queue], Sequence[Agent]]] = {}
        """What each pool last told of its queues and agents."""

    def of(self, pool: str) -> "PoolMetrics":
        """Return the observer of `pool`."""
        return PoolMetrics(self, pool)

    def show_snapshots(self) -> None:
        """Bring the gauges of queues and agents, of all pools together, up to date."""
        queues = [(pool, queue) for pool, (found, _) in self.snapshots.items() for queue in found]
        agents = [(pool, agent) for pool, (_, found) in self.snapshots.items() for agent in found]
        self.waiting.replace(((pool, self.capability(q.capability), q.priority), q.waiting) for pool, q in queues)
        states = Tally((pool, a.status, a.health) for pool, a in agents)
        self.agents.replace((labels, float(number)) for labels, number in states.items())
        paused = Tally((pool,) for pool, a in agents if a.paused)
        self.paused.replace(((pool,), float(paused[pool,])) for pool in self.snapshots)
        requests = Tally((pool, *request) for pool, a in agents for request in a.requests)
        self.requests.replace((labels, float(number)) for labels, number in requests.items())
        self.slots.replace(((pool, self.agent(a.agent_id)), a.slots) for pool, a in agents)
        self.used.replace(((pool, self.agent(a.agent_id)), a.used) for pool, a in agents)
        self.heartbeat_age.replace(((pool, self.agent(a.agent_id)), a.heartbeat_age) for pool, a in agents)


class PoolMetrics:
    """Told by a dispatcher what happens in one pool: the methods of `dispatcher.observer.DispatcherObserver`."""

    def __init__(self, metrics: DispatcherMetrics, pool: str) -> None:
        self._m = metrics
        self._pool = pool
        self.leading(0)

    def accepted(self, capability: str, priority: str, count: int) -> None:
        """Count submissions that are in the ledger."""
        self._m.accepted.labels(self._pool, self._m.capability(capability), priority).inc(count)

    def placed(self, capability: str, waits: Sequence[float]) -> None:
        """Count attempts given to agents, and how long their tasks had waited."""
        name = self._m.capability(capability)
        self._m.placed.labels(self._pool, name).inc(len(waits))
        self._m.wait.observe((self._pool, name), waits)

    def finished(
        self, capability: str, status: str, reason: str, runs: Sequence[float], totals: Sequence[float]
    ) -> None:
        """Count tasks that became terminal, how long they ran, and how long it took altogether."""
        name = self._m.capability(capability)
        # The reason of a cancel is its author's own words: not a label.
        shown = reason if status == "FAILED" else ""
        self._m.finished.labels(self._pool, name, status, shown).inc(len(totals))
        self._m.run.observe((self._pool, name), runs)
        self._m.end_to_end.observe((self._pool, name), totals)

    def firings(self, schedule: str, outcome: str, count: int) -> None:
        """Count what became of a schedule's instants."""
        self._m.firings.labels(self._pool, self._m.schedule(schedule), outcome).inc(count)

    def retried(self, capability: str, reason: str, count: int) -> None:
        """Count tasks that went back to PENDING."""
        self._m.retries.labels(self._pool, self._m.capability(capability), reason).inc(count)

    def requeued(self, capability: str, count: int) -> None:
        """Count dead letters that live again."""
        self._m.requeued.labels(self._pool, self._m.capability(capability)).inc(count)

    def purged(self, count: int) -> None:
        """Count dead letters that were deleted."""
        self._m.purged.labels(self._pool).inc(count)

    def dead_letters(self, count: int) -> None:
        """Show how many dead letters there are."""
        self._m.dead_letters.labels(self._pool).set(count)

    def cancels(self, outcome: str, count: int) -> None:
        """Count cancels that are over."""
        self._m.cancels.labels(self._pool, outcome).inc(count)

    def stale(self, kind: str, count: int) -> None:
        """Count reports that were refused."""
        self._m.stale.labels(self._pool, kind).inc(count)

    def unreadable(self, topic: str, count: int) -> None:
        """Count messages that could not be understood."""
        self._m.unreadable.labels(self._pool, topic).inc(count)

    def audited(self, kind: str, count: int) -> None:
        """Count what an audit has found."""
        self._m.findings.labels(self._pool, kind).inc(count)

    def decided(self, decisions: int, seconds: float) -> None:
        """Take one pass of the scheduler."""
        self._m.decisions.labels(self._pool).inc(decisions)
        self._m.pass_seconds.observe((self._pool,), (seconds,))

    def committed(self, decisions: int, seconds: float) -> None:  # noqa: ARG002 - the size is the pass's
        """Take one commit."""
        self._m.commit_seconds.observe((self._pool,), (seconds,))

    def defect(self) -> None:
        """Count a failure of the dispatcher itself."""
        self._m.defects.labels(self._pool).inc()

    def leading(self, epoch: int) -> None:
        """Show whether this process leads. Who does not lead knows nothing of queues and agents."""
        self._m.leader.labels(self._pool).set(1 if epoch else 0)
        self._m.epoch.labels(self._pool).set(epoch)
        if not epoch:
            self._m.snapshots.pop(self._pool, None)
            self._m.show_snapshots()

    def queues(self, gauges: Sequence[Queue]) -> None:
        """Show every queue as it is."""
        self._m.snapshots[self._pool] = (gauges, self._m.snapshots.get(self._pool, ((), ()))[1])
        self._m.show_snapshots()

    def agents(self, gauges: Sequence[Agent]) -> None:
        """Show every agent as it is."""
        self._m.snapshots[self._pool] = (self._m.snapshots.get(self._pool, ((), ()))[0], gauges)
        self._m.show_snapshots()

    def backlog(self, topic: str, entries: int) -> None:
        """Show how much of an inbound stream is not consumed."""
        self._m.backlog.labels(self._pool, topic).set(entries)

    def parked(self, topic: str, entries: int) -> None:
        """Show how much of it waits for a dispatcher of a newer version."""
        self._m.parked.labels(self._pool, topic).set(entries)
