"""What all requests of one API process share: connections, who waits for results, the feeds of events, who may come.

Nothing in here must survive the process: another one may serve the next request.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from time import monotonic
from typing import Any, Final

from bus.agent_operations import AgentOperations
from bus.connection import CONNECTION_ERRORS, connect
from bus.dead_letters import DeadLetters
from bus.handle import TaskHandle
from bus.ids import TaskId, check_pool
from bus.link import Link
from bus.names import POOLS_KEY, PoolNames
from bus.schedule_operations import Schedules
from bus.submitter import Submitter
from bus.task_operations import TaskOperations
from bus.waiting import Outcomes, Waiter
from dispatcher.api.arrivals import Arrivals
from dispatcher.api.feed import EventFeed
from dispatcher.api.observer import SILENT, ApiObserver
from dispatcher.api.problems import BUSY, UNKNOWN_POOL, ProblemError
from dispatcher.api.rates import Rates
from dispatcher.api.settings import ApiSettings
from dispatcher.api.tokens import TokenRecord, Tokens, is_token

CONNECTIONS: Final = 64
LIVE_CONNECTIONS: Final = 256
"""Blocked reads: two for each pool that is followed, and up to `arrivals.READERS` for each in which agents poll."""
QUESTIONS: Final = 16
"""Questions to leaders under way at a time: each holds a connection until it is answered."""
POOLS_FOR_S: Final = 1.0
TOKEN_FOR_S: Final = 2.0
"""How long a token's record, or that there is none, is believed: a revoked token lives so much longer."""
_TOKENS_KEPT: Final = 10_000


class Operations(TaskOperations, AgentOperations):
    """What a client does beside submitting and waiting."""

    def __init__(self, link: Link) -> None:
        self._link = link


class Site:
    """The shared parts; `close` ends them."""

    def __init__(self, settings: ApiSettings, observer: ApiObserver = SILENT) -> None:
        self.settings = settings
        self.observer = observer
        self.link = Link(settings.redis_url, settings.pool, max_connections=CONNECTIONS)
        self.redis = self.link.redis
        self.submitter = Submitter(self.redis, self.link.url)
        self.operations = Operations(self.link)
        self.dead = DeadLetters(self.link)
        self.schedules = Schedules(self.link, self.handle)
        self.stopping = asyncio.Event()
        self.rates = Rates(settings.rate, settings.burst)
        self._live = connect(settings.redis_url, name="callboard-api-live", max_connections=LIVE_CONNECTIONS)
        self._questions = asyncio.Semaphore(QUESTIONS)
        self._outcomes: dict[str, Outcomes] = {}
        self._feeds: dict[str, EventFeed] = {}
        self._arrivals: dict[str, Arrivals] = {}
        self._open = 0
        self._pools: frozenset[str] = frozenset()
        self._pools_at = -POOLS_FOR_S
        self._tokens = Tokens(self.redis)
        self._known: dict[str, tuple[float, TokenRecord | None]] = {}

    async def close(self) -> None:
        """End all loops and close all connections."""
        await self.submitter.close()
        for outcomes in self._outcomes.values():
            await outcomes.close()
        for feed in self._feeds.values():
            await feed.close()
        for arrivals in self._arrivals.values():
            await arrivals.close()
        with suppress(*CONNECTION_ERRORS):
            await self._live.aclose()
            await self.redis.aclose()

    # --- pools

    async def names(self, pool: str | None) -> PoolNames:
        """Return the names of a pool, the usual one for None; raises the problem `unknown-pool`.

        A pool is known when a dispatcher has ever led it. Without this anybody could make streams by the thousand.
        """
        if pool is None or pool == self.settings.pool:
            return self.link.names(pool)
        if pool not in self._pools and monotonic() - self._pools_at >= POOLS_FOR_S:
            await self.pools()
        if pool not in self._pools:
            raise ProblemError(UNKNOWN_POOL, "no dispatcher has ever led it: `callboard dispatcher --pool …`")
        return PoolNames(check_pool(pool))

    async def pools(self) -> list[str]:
        """Return the names of all pools that ever had a leader, and the usual one."""
        found: Any = await self.redis.smembers(POOLS_KEY)
        self._pools = frozenset(raw.decode() for raw in found)
        self._pools_at = monotonic()
        return sorted(self._pools | {self.settings.pool})

    # --- waiting

    def outcomes(self, names: PoolNames) -> Outcomes:
        """Return where the outcomes of a pool's tasks arrive, for all who wait."""
        found = self._outcomes.get(names.pool)
        if found is None:
            found = self._outcomes[names.pool] = Outcomes(self._live, names, self.link.client_id)
        return found

    def handle(self, task_id: str) -> TaskHandle[Any]:
        """Return a handle on a task that somebody submitted."""
        waiter = self.outcomes(self.link.names_of(task_id)).waiter(TaskId(task_id))
        return TaskHandle(self.operations, waiter, self._wait_for)

    def _wait_for(self, waiter: Waiter) -> None:
        self.outcomes(self.link.names_of(waiter.task_id)).wait_for(waiter, watch=True)

    def feed(self, names: PoolNames) -> EventFeed:
        """Return the events of a pool, for all who follow them."""
        found = self._feeds.get(names.pool)
        if found is None:
            found = self._feeds[names.pool] = EventFeed(self._live, names)
        return found

    def arrivals(self, names: PoolNames) -> Arrivals:
        """Return what wakes those who wait for entries of a pool's agents."""
        found = self._arrivals.get(names.pool)
        if found is None:
            found = self._arrivals[names.pool] = Arrivals(self._live, names, self.link.client_id)
        return found

    def stop(self) -> None:
        """Have all streams and waiting requests end."""
        self.stopping.set()
        for feed in self._feeds.values():
            feed.wake()
        for arrivals in self._arrivals.values():
            arrivals.wake()

    def check_room(self) -> None:
        """Raise the problem `busy` if as many streams and waiting requests are open as may be."""
        if self._open >= self.settings.max_open:
            raise ProblemError(BUSY, f"{self._open} are open in this process: wait, or start another one")

    @asynccontextmanager
    async def kept_open(self) -> AsyncIterator[None]:
        """Count a stream or a waiting request while the block runs; raises the problem `busy` if there are too many."""
        self.check_room()
        self._open += 1
        self.observer.opened(1)
        try:
            yield
        finally:
            self._open -= 1
            self.observer.opened(-1)

    @asynccontextmanager
    async def question(self) -> AsyncIterator[None]:
        """Have a leader asked in the block; waits for its turn among other questions."""
        async with self._questions:
            yield

    # --- tokens

    async def token(self, token: str) -> TokenRecord | None:
        """Return a token's record, which may be two seconds old; None if it is none of ours."""
        if not is_token(token):
            return None  # and nothing of it is kept
        now = monotonic()
        known = self._known.get(token)
        if known is not None and now - known[0] < TOKEN_FOR_S:
            return known[1]
        record = await self._tokens.find(token)
        if len(self._known) >= _TOKENS_KEPT:
            self._known.clear()
        self._known[token] = (now, record)
        return record
