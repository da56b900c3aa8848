"""The metrics of an API process: an observer of it, which this module knows by what it tells, not by import."""

from prometheus_client.registry import CollectorRegistry

from metrics import catalogue
from metrics.collectors import BatchHistogram, counter, gauge


class ApiMetrics:
    """The collectors of one API process. Labels are bounded: routes are templates, and methods those of HTTP."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = counter(catalogue.API_REQUESTS, registry)
        self._seconds = BatchHistogram(catalogue.API_SECONDS, registry)
        self._open = gauge(catalogue.API_OPEN, registry)
        self._dropped = counter(catalogue.API_DROPPED, registry)

    def requested(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        known = method if method in _METHODS else "other"
        self._requests.labels(route, known, str(status)).inc()
        self._seconds.observe((route,), (seconds,))

    def opened(self, difference: int) -> None:
        """Count streams and waiting requests that are open."""
        self._open.inc(difference)

    def dropped(self) -> None:
        """Count a stream whose reader was too slow."""
        self._dropped.inc()


_METHODS = frozenset({"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"})
