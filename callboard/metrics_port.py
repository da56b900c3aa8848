"""Where a process serves its metrics: the port that was asked for, or the usual one, or any that is free."""

import logging
from collections.abc import Callable
from typing import Final

from prometheus_client.registry import CollectorRegistry

from metrics.exposition import MetricsServer, PortTakenError

LOG: Final = logging.getLogger("callboard.metrics")


def serve_metrics(
    registry: CollectorRegistry,
    *,
    host: str,
    port: int | None,
    default: int,
    healthy: Callable[[], list[str]],
) -> MetricsServer:
    """Serve on `port`; if that is None on `default`, or on any free port if that one is taken.

    Raises `PortTakenError` only for a port that was asked for.
    """
    if port is not None:
        return MetricsServer(registry, host=host, port=port, healthy=healthy)
    try:
        return MetricsServer(registry, host=host, port=default, healthy=healthy)
    except PortTakenError:
        server = MetricsServer(registry, host=host, port=0, healthy=healthy)
        LOG.info("port %d is taken: the metrics are on port %d", default, server.port)
        return server
