"""The leader's own audits: of its own pool, slowly, again and again; and the tidying that keeps them quiet.

An audit takes a few milliseconds of each fifty, however large the pool is. What it finds is counted, logged, and
published for `callboard doctor`; it repairs nothing by itself, for whatever it finds is a defect that somebody should
hear of.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Final

from pydantic_core import to_json
from redis.exceptions import RedisError, ResponseError

from bus.connection import CONNECTION_ERRORS, Redis
from bus.names import DISPATCHERS_GROUP, PoolNames
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.findings import Finding, by_kind
from dispatcher.audit.memory import LeaderMemory
from dispatcher.audit.repairs import TIDY
from dispatcher.core.scheduler import Scheduler
from dispatcher.ledger import Ledger
from dispatcher.observer import DispatcherObserver

LOG: Final = logging.getLogger("callboard.dispatcher")

PAGE: Final = 25
REST_S: Final = 0.05
PAUSE_S: Final = 2.0
SHOWN: Final = 100
"""Of each kind, so many findings are published."""
PUBLISHED_MS: Final = 3_600_000
GONE_MS: Final = 600_000
"""A consumer that has not read for so long, and has nothing pending, is deleted."""


class AuditWatch:
    """The audits of one pool. `run` is for one term of leadership."""

    def __init__(
        self, redis: Redis, names: PoolNames, ledger: Ledger, observer: DispatcherObserver, *, every_s: float
    ) -> None:
        self._redis = redis
        self._names = names
        self._ledger = ledger
        self._observer = observer
        self._every_s = every_s

    async def run(self, scheduler: Scheduler) -> None:
        """Audit the pool again and again until cancelled; at once if it is never to."""
        while self._every_s:
            await asyncio.sleep(self._every_s)
            try:
                await self._once(scheduler)
            except (*CONNECTION_ERRORS, RedisError):
                continue  # whether the server serves is for the engine to say
            except Exception:
                self._observer.defect()
                LOG.exception("pool %s: the audit has failed", self._names.pool)

    async def _once(self, scheduler: Scheduler) -> None:
        memory = LeaderMemory(scheduler)
        auditor = Auditor(
            self._redis, self._names, memory=memory, pause_s=min(PAUSE_S, self._every_s), rest_s=REST_S, page=PAGE
        )
        found = by_kind(await auditor.run())
        for kind, findings in found.items():
            self._observer.audited(kind.value, len(findings))
            first = findings[0]
            LOG.warning(
                "pool %s: audit: %d x %s (%s %s): `callboard doctor` explains it",
                *(self._names.pool, len(findings), kind.value, first.subject, first.detail),
            )
        said = {kind.value: to_json([_said(one) for one in findings[:SHOWN]]) for kind, findings in found.items()}
        await self._ledger.publish(self._names.audit, said, PUBLISHED_MS)


def _said(finding: Finding) -> dict[str, str]:
    return {"subject": finding.subject, "detail": finding.detail}


async def tidy(redis: Redis, streams: Iterable[str], me: str, gone_ms: int = GONE_MS) -> None:
    """Delete the consumers of other dispatchers than `me` that are gone: unless told, each process has its own name."""
    for stream in streams:
        try:
            await TIDY.run(redis, [stream], [DISPATCHERS_GROUP, gone_ms, "", "0", me])
        except ResponseError as error:
            if "no such key" not in str(error) and "NOGROUP" not in str(error):
                raise
