"""The metrics of an agent's process: an observer of its worker, known by what it tells and not by import."""

from collections.abc import Sequence

from prometheus_client.registry import CollectorRegistry

from metrics import catalogue
from metrics.collectors import CAPABILITIES_TOLD_APART, BatchHistogram, Bounded, counter, gauge


class RuntimeMetrics:
    """Told by a worker what happens in it: the methods of `agent_runtime.observer.RuntimeObserver`."""

    def __init__(self, agent_id: str, pool: str, registry: CollectorRegistry) -> None:
        self._labels = (pool, agent_id)
        self._started = counter(catalogue.RUN_STARTED, registry)
        self._finished = counter(catalogue.RUN_FINISHED, registry)
        self._seconds = BatchHistogram(catalogue.RUN_SECONDS, registry)
        self._slots = gauge(catalogue.RUN_SLOTS, registry).labels(*self._labels)
        self._used = gauge(catalogue.RUN_SLOTS_USED, registry).labels(*self._labels)
        beats = counter(catalogue.RUN_HEARTBEATS, registry)
        self._beats = {True: beats.labels(*self._labels, "ok"), False: beats.labels(*self._labels, "failed")}
        self._reports = counter(catalogue.RUN_REPORTS, registry).labels(*self._labels)
        self._flush = BatchHistogram(catalogue.RUN_FLUSH, registry)
        self._lag = gauge(catalogue.RUN_LAG, registry).labels(*self._labels)
        self._connected = gauge(catalogue.RUN_CONNECTED, registry).labels(*self._labels)
        self._capability = Bounded(CAPABILITIES_TOLD_APART)
        self._starts = {}  # type: ignore[var-annotated] # prometheus-client's labelled counters
        self._ends = {}  # type: ignore[var-annotated]

    def started(self, capability: str, count: int) -> None:
        """Count attempts that were begun."""
        child = self._starts.get(capability)
        if child is None:
            child = self._starts[capability] = self._started.labels(*self._labels, self._capability(capability))
        child.inc(count)

    def finished(self, capability: str, status: str, reason: str, seconds: Sequence[float]) -> None:
        """Count attempts that have their results."""
        key = (capability, status, reason)
        child = self._ends.get(key)
        if child is None:
            name = self._capability(capability)
            child = self._ends[key] = self._finished.labels(*self._labels, name, status, reason)
        child.inc(len(seconds))
        self._seconds.observe((*self._labels, self._capability(capability)), seconds)

    def slots(self, used: int, total: int) -> None:
        """Show how many slots are in use."""
        self._used.set(used)
        self._slots.set(total)

    def heartbeat(self, ok: bool) -> None:  # noqa: FBT001 - two outcomes of one event
        """Count a heartbeat."""
        self._beats[ok].inc()

    def reports(self, count: int, seconds: float) -> None:
        """Count what one flush delivered, and its time."""
        self._reports.inc(count)
        self._flush.observe(self._labels, (seconds,))

    def loop_lag(self, seconds: float) -> None:
        """Show how late the event loop is."""
        self._lag.set(seconds)

    def connected(self, ok: bool) -> None:  # noqa: FBT001 - two outcomes of one event
        """Show whether the server answers."""
        self._connected.set(1 if ok else 0)
