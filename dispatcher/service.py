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
from dispatcher.core.config import SchedulerConfig
from dispatcher.decoding import Batch, Topic
from dispatcher.intake import Intake
from dispatcher.ledger import LedgerLimits
from dispatcher.observer import DispatcherObserver
from dispatcher.pool import PoolDispatcher
from dispatcher.settings import DispatcherSettings


def _ms(duration: timedelta) -> int:
    return int(duration.total_seconds() * 1000)


async def serve(
    settings: DispatcherSettings,
    *,
    observer_for: Callable[[str], DispatcherObserver],
    stop: asyncio.Event,
    ready: asyncio.Event | None = None,
) -> None:
    """Run until `stop` is set; then give every lead back and return.

    `ready` is set when each pool has a leader, this process or another. The server may be away at any time, also at
    the start: candidates try on.
    """
    redis = connect(settings.redis_url, name=f"callboard-dispatcher-{settings.dispatcher_id}", max_connections=32)
    broker = make_broker(settings.redis_url)
    waiting = set(settings.pools)
    config = SchedulerConfig(
        prefetch_ms=_ms(settings.prefetch),
        retry_base_ms=_ms(settings.retry_base),
        retry_cap_ms=_ms(settings.retry_cap),
    )

    def intake(topics: tuple[Topic[Any], ...], sink: Callable[[Batch[Any]], Any]) -> Intake:
        return Intake(broker, redis, topics, group=DISPATCHERS_GROUP, consumer=settings.dispatcher_id, sink=sink)

    def settled(pool: str) -> None:
        waiting.discard(pool)
        if not waiting and ready is not None:
            ready.set()

    try:
        async with asyncio.TaskGroup() as group:
            for pool in settings.pools:
                candidate = PoolDispatcher(
                    redis=redis,
                    intake=intake,
                    pool=check_pool(pool),
                    dispatcher_id=settings.dispatcher_id,
                    lease_ms=_ms(settings.leader_lease),
                    config=config,
                    limits=LedgerLimits(retention_ms=_ms(settings.retention)),
                    observer=observer_for(pool),
                )
                group.create_task(candidate.run(stop, partial(settled, pool)), name=f"pool {pool}")
    finally:
        await broker.stop()
        await redis.aclose()
