"""The leader at work: input → scheduler → ledger, for one pool, for as long as the lead lasts.

Two coroutines form the way of all work: `_decide` takes what has arrived and lets the scheduler decide; `_commit`
stores decisions in their order. They overlap by one pass, so that the server stores one while the next is decided.
Nothing waits for a timer: a single task is decided and stored at once, and under load passes grow by themselves.

The scheduler's memory runs ahead of the ledger by at most two passes. Whatever leaves it in doubt (a fence, a
conflict, a lost lease) ends the engine with `LeadLostError`; its memory is thrown away and the next leader, perhaps
the same process, loads the ledger.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bus.clock import monotonic_ms
from bus.connection import CONNECTION_ERRORS, Redis
from bus.names import PoolNames
from dispatcher.core.decisions import Decisions
from dispatcher.core.events import Blind, Duplicate, Event, Horizon
from dispatcher.core.scheduler import Scheduler
from dispatcher.inbox import Arrival, Inbox
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import ConflictError, FencedError, Inputs, Ledger
from dispatcher.observer import DispatcherObserver
from dispatcher.reporting import report_pass
from dispatcher.translate import entry_ms

LOG = logging.getLogger("callboard.dispatcher")

RENEW_EVERY_S: Final = 1.0
HORIZON_EVERY_S: Final = 0.25
BLIND_AFTER_MS: Final = 1_000
COMMIT_RETRY_S: Final = 0.05


class LeadLostError(Exception):
    """This dispatcher leads the pool no longer, or must load the ledger anew; the text says why."""


@dataclass(slots=True)
class _Pass:
    decisions: Decisions
    inputs: Inputs
    arrivals: list[Arrival]
    now: int


class Engine:
    """One term of leadership in one pool."""

    def __init__(  # noqa: PLR0913 - the parts of the leader, put together in one place
        self,
        *,
        redis: Redis,
        names: PoolNames,
        leadership: Leadership,
        lead: Lead,
        ledger: Ledger,
        scheduler: Scheduler,
        inbox: Inbox,
        consumed: Callable[[Arrival], None],
        observer: DispatcherObserver,
    ) -> None:
        self._redis = redis
        self._names = names
        self._leadership = leadership
        self._lead = lead
        self._ledger = ledger
        self._scheduler = scheduler
        self._inbox = inbox
        self._consumed = consumed
        self._observer = observer
        self._decided: asyncio.Queue[_Pass] = asyncio.Queue(maxsize=1)
        self._extra: list[Event] = []
        self._last_contact = leadership.clock.now_ms()
        self.parked: set[str] = set()
        """Entries of an unknown version: left where they are, and no reason to wait for the horizon."""

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler at work; read-only for everybody else."""
        return self._scheduler

    async def run(self) -> None:
        """Lead until cancelled; raises `LeadLostError` when the lead is lost."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._decide(), name="decide")
                group.create_task(self._commit(), name="commit")
                group.create_task(self._renew(), name="renew")
                group.create_task(self._watch_horizon(), name="horizon")
        except* LeadLostError as lost:
            raise lost.exceptions[0] from None

    # --- deciding

    async def _decide(self) -> None:
        clock = self._leadership.clock
        while True:
            await self._inbox.wait(self._idle_for())
            arrivals = self._inbox.take()
            events, self._extra = self._extra, []
            inputs = Inputs()
            for arrival in arrivals:
                events += arrival.events
                inputs.rejected += arrival.rejected
                inputs.acks.setdefault(arrival.stream, []).extend(arrival.ids)
            now = clock.now_ms()
            began = time.perf_counter()
            decisions = self._scheduler.step(events, now)
            if len(decisions) or arrivals:
                self._observer.decided(len(decisions), time.perf_counter() - began)
                await self._decided.put(_Pass(decisions, inputs, arrivals, now))

    def _idle_for(self) -> float | None:
        due = self._scheduler.next_due
        if self._extra:
            return 0.0
        return None if due is None else max(0.0, (due - self._leadership.clock.now_ms()) / 1000)

    # --- storing

    async def _commit(self) -> None:
        while True:
            work = await self._decided.get()
            began = time.perf_counter()
            known = await self._store(work)
            self._observer.committed(len(work.decisions), time.perf_counter() - began)
            report_pass(self._observer, work.decisions.without(known) if known else work.decisions)
            for arrival in work.arrivals:
                self._consumed(arrival)
            if known:
                self._extra += [Duplicate(task_id) for task_id in known]
                self._inbox.wake()

    async def _store(self, work: _Pass) -> list[str]:
        """Commit one pass, repeating it while its outcome is unknown and the lease is ours."""
        while True:
            try:
                return await self._ledger.commit(self._lead, work.decisions, work.inputs, work.now)
            except FencedError as error:
                msg = f"another leader or none has the lease now ({error})"
                raise LeadLostError(msg) from error
            except ConflictError as error:
                LOG.warning("the ledger differs from memory, loading it anew: %s", error)
                raise LeadLostError(str(error)) from error
            except CONNECTION_ERRORS as error:
                if not self._leadership.trusted:
                    msg = f"the server does not answer ({error})"
                    raise LeadLostError(msg) from error
                await asyncio.sleep(COMMIT_RETRY_S)

    # --- keeping the lead

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_EVERY_S)
            try:
                if not await self._leadership.renew():
                    msg = "the lease is no longer ours"
                    raise LeadLostError(msg)
            except CONNECTION_ERRORS as error:
                if not self._leadership.trusted:
                    msg = f"the server does not answer ({error})"
                    raise LeadLostError(msg) from error

    # --- the horizon

    async def _watch_horizon(self) -> None:
        """Tell the scheduler up to when all that agents wrote has been consumed, and how long nobody could see them."""
        while True:
            await asyncio.sleep(HORIZON_EVERY_S)
            asked = monotonic_ms()
            try:
                horizon, now = await self.read_horizon()
            except CONNECTION_ERRORS:
                continue
            gap = now - self._last_contact
            if gap > BLIND_AFTER_MS or monotonic_ms() - asked > BLIND_AFTER_MS:
                self._extra.append(Blind(gap))
            self._last_contact = now
            self._extra.append(Horizon(horizon))
            self._inbox.wake()

    async def read_horizon(self) -> tuple[int, int]:
        """Return (the instant up to which agents' streams are consumed, now), in ms by the server's clock.

        The oldest entry that is still in a stream is the first that is not consumed, since the commit that stores an
        entry's effect deletes it. Without entries the instant is now.
        """
        names = self._names
        async with self._redis.pipeline(transaction=True) as pipe:
            for stream in (names.results, names.heartbeats, names.registrations):
                pipe.xrange(stream, count=1 + len(self.parked))
            pipe.time()
            *oldest, (seconds, micros) = await pipe.execute()
        now = int(seconds) * 1000 + int(micros) // 1000
        horizon = now
        for entries in oldest:
            ids = [raw.decode() for raw, _ in entries]
            waiting = [entry_id for entry_id in ids if entry_id not in self.parked]
            if waiting:
                horizon = min(horizon, entry_ms(waiting[0]) - 1)
        return horizon, now
