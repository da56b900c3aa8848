"""A dispatcher process: candidate for the lead of each of its pools, until it is told to stop."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from bus.broker import make_broker
from bus.connection import connect
from bus.ids import check_pool
from bus.names import DISPATCHERS_GROUP
from bus.retries import RetryPolicy
from dispatcher.commit_call import LedgerLimits
from dispatcher.core.config import SchedulerConfig
from dispatcher.decoding import Batch, Topic
from dispatcher.intake import Intake
from dispatcher.observer import DispatcherObserver
from dispatcher.placement_settings import fairness_weights, head_starts, max_pending
from dispatcher.pool import PoolDispatcher
from dispatcher.settings import DispatcherSettings


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


def config_of(settings: DispatcherSettings, pool: str) -> SchedulerConfig:
    """Return the policy of one of the pools that are served."""
    pools = settings.pools
    of_pool, of_capabilities = max_pending(settings.max_pending, pools, pool)
    return SchedulerConfig(
        head_start_ms=head_starts(settings.head_starts, pools, pool),
        fairness_weights=fairness_weights(settings.fairness_weights, pools, pool),
        max_pending=of_pool,
        capability_max_pending=of_capabilities,
        fail_fast_grace_ms=_ms(settings.fail_fast_grace),
        breaker_failures=settings.breaker_failures,
        cancel_grace_ms=_ms(settings.cancel_grace),
        breaker_cooldown_ms=_ms(settings.breaker_cooldown),
        recall_after_ms=_ms(settings.recall_after),
        prefetch_ms=_ms(settings.prefetch),
        retry=RetryPolicy(base=settings.retry_base.total_seconds(), cap=settings.retry_cap.total_seconds()),
    )


class Dispatcher:
    """All candidates of one process. Connects when it runs; the server may be away at any time, also at the start."""

    def __init__(self, settings: DispatcherSettings, observer_for: Callable[[str], DispatcherObserver]) -> None:
        self._settings = settings
        self._redis = connect(
            settings.redis_url, name=f"callboard-dispatcher-{settings.dispatcher_id}", max_connections=32
        )
        # Each subscriber's blocked read holds a connection: eight topics per pool, and a few for starting them.
        self._broker = make_broker(settings.redis_url, max_connections=10 * len(settings.pools) + 6)
        self._waiting = set(settings.pools)
        self._ready: asyncio.Event | None = None
        self._pools = [
            PoolDispatcher(
                redis=self._redis,
                intake=self._intake,
                pool=check_pool(pool),
                dispatcher_id=settings.dispatcher_id,
                lease_ms=_ms(settings.leader_lease),
                config=config_of(settings, pool),
                limits=LedgerLimits(
                    retention_ms=_ms(settings.retention), events_retention_ms=_ms(settings.events_retention)
                ),
                observer=observer_for(pool),
                audit_every_s=settings.audit_every.total_seconds(),
            )
            for pool in settings.pools
        ]

    async def run(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Run until `stop` is set; then give every lead back and return.

        `ready` is set when each pool has a leader that reads, this process or another.
        """
        self._ready = ready
        try:
            async with asyncio.TaskGroup() as group:
                for candidate in self._pools:
                    settled = partial(self._settled, candidate.pool)
                    group.create_task(candidate.run(stop, settled), name=f"pool {candidate.pool}")
        finally:
            await self._broker.stop()
            await self._redis.aclose()

    def problems(self) -> list[str]:
        """Return what keeps this process from doing its part, in words; empty when all is well. From any thread."""
        return [f"pool {pool.pool}: {problem}" for pool in self._pools for problem in pool.problems()]

    def _intake(self, topics: tuple[Topic[Any], ...], sink: Callable[[Batch[Any]], Any]) -> Intake:
        consumer = self._settings.dispatcher_id
        return Intake(self._broker, self._redis, topics, group=DISPATCHERS_GROUP, consumer=consumer, sink=sink)

    def _settled(self, pool: str) -> None:
        self._waiting.discard(pool)
        if not self._waiting and self._ready is not None:
            self._ready.set()
