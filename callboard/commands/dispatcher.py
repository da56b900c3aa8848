"""`callboard dispatcher`: a dispatcher process with its metrics."""

import asyncio
import logging
from typing import Annotated, Final

from cyclopts import Parameter

from bus.long_process import new_loop, settle
from callboard.metrics_port import serve_metrics
from callboard.options import LOG_DEFAULTS, PORT_RANGE, Duration, LogOptions, RedisUrl, given
from callboard.signals import stop_on_signal
from dispatcher.service import Dispatcher
from dispatcher.settings import DispatcherSettings
from metrics.dispatcher_metrics import DispatcherMetrics
from metrics.exposition import new_registry

LOG: Final = logging.getLogger("callboard.dispatcher")

METRICS_PORT: Final = 9464


def dispatcher(  # noqa: PLR0913 - one per option
    *,
    pool: Annotated[
        list[str] | None, Parameter(metavar="STR", help="Pool to lead or stand by for; may be repeated.")
    ] = None,
    id: Annotated[str | None, Parameter(help="Stable name of this process; else host and process id.")] = None,  # noqa: A002
    redis_url: RedisUrl = None,
    leader_lease: Annotated[Duration | None, Parameter(help="How long a silent leader is waited for.")] = None,
    retention: Annotated[Duration | None, Parameter(help="How long finished tasks are kept.")] = None,
    events_retention: Annotated[
        Duration | None, Parameter(help="How long events are kept, if they are not too many.")
    ] = None,
    prefetch: Annotated[Duration | None, Parameter(help="Work an agent may have ahead of its slots.")] = None,
    retry_base: Annotated[Duration | None, Parameter(help="Upper bound of the first retry's backoff.")] = None,
    retry_cap: Annotated[Duration | None, Parameter(help="Upper bound of any retry's backoff.")] = None,
    head_starts: Annotated[
        list[str] | None,
        Parameter(
            metavar="LEVEL=DURATION",
            negative="",
            help="Head start of a priority, e.g. HIGH=10m, of one pool reports:HIGH=1h; may be repeated.",
        ),
    ] = None,
    fairness_weights: Annotated[
        list[str] | None,
        Parameter(
            metavar="KEY=NUMBER", negative="", help="Share of a fairness key, else 1, e.g. tenant-a=3; may be repeated."
        ),
    ] = None,
    max_pending: Annotated[
        list[str] | None,
        Parameter(
            metavar="BOUND",
            negative="",
            help="Most tasks that may wait: 10000 of the pool, text.count=500 of a capability; may be repeated.",
        ),
    ] = None,
    fail_fast_grace: Annotated[
        Duration | None, Parameter(help="How long tasks that fail fast wait for agents that may be starting.")
    ] = None,
    breaker_failures: Annotated[
        int | None, Parameter(help="Failures in a row that shut a capability off at an agent; 0 is never.")
    ] = None,
    cancel_grace: Annotated[
        Duration | None, Parameter(help="How long an agent has to stop what is cancelled, if the cancel does not say.")
    ] = None,
    breaker_cooldown: Annotated[Duration | None, Parameter(help="How long that lasts at first.")] = None,
    recall_after: Annotated[
        Duration | None, Parameter(help="How long work ahead of slots waits before others may have it.")
    ] = None,
    audit_every: Annotated[
        Duration | None, Parameter(help="Time from one audit of a pool to the next; 0 is never.")
    ] = None,
    metrics_host: Annotated[str, Parameter(help="Address of /metrics and /healthz.")] = "127.0.0.1",
    metrics_port: Annotated[
        int | None,
        Parameter(validator=PORT_RANGE, help=f"Else {METRICS_PORT}, or if it is taken any free one, as 0 is."),
    ] = None,
    log: LogOptions = LOG_DEFAULTS,
) -> int:
    """Run a dispatcher: it leads its pools, or stands by for them.

    It may be started before the server is up. SIGTERM and Ctrl-C give the lead back at once, so that another
    dispatcher takes over without waiting for the lease.
    """
    log.set_up()
    settings = DispatcherSettings(
        **given(
            pools=None if pool is None else tuple(dict.fromkeys(pool)),
            dispatcher_id=id,
            redis_url=redis_url,
            leader_lease=leader_lease,
            retention=retention,
            events_retention=events_retention,
            prefetch=prefetch,
            retry_base=retry_base,
            retry_cap=retry_cap,
            head_starts=None if head_starts is None else tuple(head_starts),
            fairness_weights=None if fairness_weights is None else tuple(fairness_weights),
            max_pending=None if max_pending is None else tuple(max_pending),
            fail_fast_grace=fail_fast_grace,
            breaker_failures=breaker_failures,
            cancel_grace=cancel_grace,
            breaker_cooldown=breaker_cooldown,
            recall_after=recall_after,
            audit_every=audit_every,
        )
    )
    # Not cyclopts' own loop: this one is worth a faster one.
    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(_run(settings, metrics_host, metrics_port))


async def _settle(ready: asyncio.Event) -> None:
    await ready.wait()
    settle()


async def _run(settings: DispatcherSettings, host: str, port: int | None) -> int:
    registry = new_registry()
    dispatcher = Dispatcher(settings, DispatcherMetrics(registry).of)
    server = serve_metrics(registry, host=host, port=port, default=METRICS_PORT, healthy=dispatcher.problems)
    LOG.info("%s serves pools %s; metrics at %s", settings.dispatcher_id, ", ".join(settings.pools), server.url)
    try:
        with stop_on_signal() as stop:
            ready = asyncio.Event()
            settling = asyncio.create_task(_settle(ready))
            await dispatcher.run(stop, ready)
            settling.cancel()
    finally:
        server.stop()
    return 0
