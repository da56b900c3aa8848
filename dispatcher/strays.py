"""Looks for tasks that count for a bound and wait no more: what healing there is, for nothing should ever need it.

The sets of waiting tasks are exact by the scripts that keep them. What can still go wrong comes from outside: a stream
that an operator deletes takes its unread submissions along, and a dispatcher of an older version knows of no sets.
Their members would take up room for ever. So once in a while every member is looked for in the leader's memory; one
that is not there twice in a row, with no submission left unread that is as old as the first look, is reported to the
scheduler, which takes it out if it is still so when it decides.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from bus.connection import Redis
from bus.names import PoolNames
from bus.states import TaskPriority
from dispatcher.core.events import Strays
from dispatcher.core.scheduler import Scheduler

PAGE: Final = 1_000


class StraySearch:
    """One term's look-out for strays."""

    def __init__(self, redis: Redis, names: PoolNames) -> None:
        self._redis = redis
        self._names = names
        self._seen: dict[str, set[str]] = {}
        """By scope, what was missed at the last look."""
        self._looked_at = 0

    async def look(self, scheduler: Scheduler) -> AsyncIterator[Strays]:
        """Look at every bound that is in force, and yield what is astray, in parts that one pass may take."""
        seen, looked_at = self._seen, self._looked_at
        self._seen, self._looked_at = {}, await self._now()
        unread_since = await self._oldest_unread()
        for scope in list(scheduler.board.bounds.in_force):
            missing = self._seen[scope] = {one async for one in self._members(scope) if not scheduler.waits(one)}
            astray = sorted(missing & seen.get(scope, set()))
            if unread_since is not None and unread_since <= looked_at:
                continue  # they may be among the unread
            for start in range(0, len(astray), PAGE):
                yield Strays(scope, tuple(astray[start : start + PAGE]))

    async def _members(self, scope: str) -> AsyncIterator[str]:
        cursor: Any = 0
        while True:
            cursor, page = await self._redis.sscan(self._names.queue(scope), cursor, count=PAGE)
            for raw in page:
                yield raw.decode() if isinstance(raw, bytes) else raw
            if not int(cursor):
                return
            await asyncio.sleep(0)

    async def _now(self) -> int:
        seconds, micros = await self._redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def _oldest_unread(self) -> int | None:
        async with self._redis.pipeline(transaction=True) as pipe:
            for level in TaskPriority:
                pipe.xrange(self._names.submissions(level), count=1)
            streams = await pipe.execute()
        return min((int(entries[0][0].partition(b"-")[0]) for entries in streams if entries), default=None)
