"""The leader at work: input → scheduler → ledger, for one pool, for as long as the lead lasts.

Two coroutines form the way of all work: `_decide` takes what has arrived and lets the scheduler decide; `_commit`
stores decisions in their order. They overlap by one pass, so that the server stores one while the next is decided.
Nothing waits for a timer: a single task is decided and stored at once, and under load passes grow by themselves.

The scheduler's memory runs ahead of the ledger by at most three passes: one that is stored, one that waits for it, and
one that is decided. (A pass that is about dead letters waits until there are none: `revival` says why.) Whatever leaves
it in doubt (a fence, a conflict, a lost lease) ends the engine with `LeadLostError`; its memory is thrown away and the
next leader, perhaps the same process, loads the ledger.

A pass that raises is a defect, and ends the engine with `DefectError`. The entries that it worked on are its suspects:
when the next term meets one of them it takes the entries one at a time, each after a pass without any, so that the one
that raises again is known for certain and can be set aside.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Final, NamedTuple, TypeVar

from redis.exceptions import RedisError

from bus.clock import monotonic_ms
from bus.connection import CONNECTION_ERRORS, Redis
from bus.names import PoolNames
from dispatcher.commit_call import Inputs
from dispatcher.core.decisions import Decisions
from dispatcher.core.events import Blind, Duplicate, Event, Found, Horizon
from dispatcher.core.scheduler import Scheduler
from dispatcher.inbox import Inbox, Portion
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import ConflictError, FencedError, Ledger
from dispatcher.loading import load_guards
from dispatcher.observer import DispatcherObserver
from dispatcher.parked import PAGE, Parked
from dispatcher.pulse import Pulse
from dispatcher.reporting import report_pass
from dispatcher.revival import speaks_of_the_dead, with_records
from dispatcher.translate import entry_ms

LOG = logging.getLogger("callboard.dispatcher")
T = TypeVar("T")

RENEW_EVERY_S: Final = 1.0
HORIZON_EVERY_S: Final = 0.25
BLIND_AFTER_MS: Final = 1_000
COMMIT_RETRY_S: Final = 0.05
LOADING_REST_S: Final = 0.25
"""Between two passes while the rest of the ledger is loaded: clients are not heard until it is."""


class LeadLostError(Exception):
    """This dispatcher leads the pool no longer, or must load the ledger anew; the text says why."""


class MemoryInDoubtError(LeadLostError):
    """The ledger is not what this dispatcher remembers: it must be loaded anew, which may not help."""


class EntryRef(NamedTuple):
    """An entry of an inbound stream."""

    stream: str
    entry_id: str


class DefectError(Exception):
    """A pass could not be decided or stored, by no fault of the server: see its cause."""

    def __init__(self, suspects: AbstractSet[EntryRef], *, certain: bool) -> None:
        super().__init__(f"a pass over {len(suspects)} entries failed")
        self.suspects = suspects
        """The entries of the pass."""
        self.certain = certain
        """The only suspect is the cause: the pass before it, which had no entry, did not fail."""


def gravest(group: BaseExceptionGroup[Exception]) -> Exception:
    """Return what the end of a term is put down to: a defect, else the lost lead, else the server."""
    flat = list(_leaves(group))
    for expected in ((LeadLostError, RedisError, OSError), (RedisError, OSError)):
        for error in flat:
            if not isinstance(error, expected):
                return error
    return flat[0]


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


@dataclass(slots=True)
class _Pass:
    decisions: Decisions
    inputs: Inputs
    portions: Sequence[Portion]
    now: int
    alone: bool
    withdrawn: AbstractSet[str]
    """Tasks that were to be new and had ended long ago: of this pass on the scheduler's memory has them no more."""


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
        consumed: Callable[[Portion], None],
        observer: DispatcherObserver,
        suspects: AbstractSet[EntryRef] = frozenset(),
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
        self._suspects = suspects
        self._decided: asyncio.Queue[_Pass] = asyncio.Queue(maxsize=1)
        self.pulse = Pulse()
        """Whether the loops go round; those around the engine are noted in it, too."""
        self._extra: list[Event] = []
        self._phantoms: set[str] = set()
        """Such tasks that passes may still speak of which were decided before the scheduler had heard of it."""
        self._last_contact = leadership.clock.now_ms()
        self.parked = Parked()
        """Entries of an unknown version: left where they are, and no reason to wait for the horizon."""

    @property
    def scheduler(self) -> Scheduler:
        """The scheduler at work; read-only for everybody else."""
        return self._scheduler

    def add(self, event: Event) -> None:
        """Let the next pass take an event that is of no stream."""
        self._extra.append(event)
        self._inbox.wake()

    async def run(self) -> None:
        """Lead until cancelled. Raises `LeadLostError`, `DefectError`, or what the server answered; one of them."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._decide(), name="decide")
                group.create_task(self._commit(), name="commit")
                group.create_task(self._renew(), name="renew")
                group.create_task(self._watch_horizon(), name="horizon")
        except ExceptionGroup as ends:
            end = gravest(ends)
            raise end from end.__cause__

    # --- deciding

    async def _decide(self) -> None:
        while True:
            self.pulse.idle("decide")
            waited = await self._inbox.wait(self._idle_for())
            self.pulse.beat("decide")
            if not waited or self._scheduler.loading:
                # However much there is to do: the lease is renewed, and the server read, between two passes.
                await asyncio.sleep(LOADING_REST_S if self._scheduler.loading else 0)
            portions = self._inbox.take()
            if self._suspects and not self._suspects.isdisjoint(_refs(portions)):
                await self._pass([])
                for single in _singly(portions):
                    await self._pass([single], alone=True)
            else:
                await self._pass(portions)

    async def _pass(self, portions: Sequence[Portion], *, alone: bool = False) -> None:
        """Decide one pass and hand it on to be stored; `alone`, its one entry and nothing else."""
        if speaks_of_the_dead(piece.event for portion in portions for piece in portion.pieces if piece.event):
            await self._decided.join()
        events: list[Event] = []
        if not alone:
            events, self._extra = self._extra, events
        inputs = Inputs()
        for portion in portions:
            for piece in portion.pieces:
                if piece.event is not None:
                    events.append(piece.event)
                inputs.rejected += piece.rejected
            inputs.acks[portion.stream] = portion.consumed
        try:
            if speaks_of_the_dead(events):
                events = await self._with_records(events)
            now = self._leadership.clock.now_ms()
            began = time.perf_counter()
            decisions = self._scheduler.step(events, now)
        except (LeadLostError, RedisError):
            raise
        except Exception as error:
            raise DefectError(_refs(portions), certain=alone) from error
        withdrawn = {event.task_id for event in events if isinstance(event, Duplicate)}
        if len(decisions) or portions or withdrawn:
            self._observer.decided(len(decisions), time.perf_counter() - began)
            await self._decided.put(_Pass(decisions, inputs, portions, now, alone, withdrawn))

    async def _with_records(self, events: list[Event]) -> list[Event]:
        """Read what events on dead letters are about; waits for the server as long as the lease is ours."""
        while True:
            try:
                return await with_records(self._redis, self._names, events)
            except CONNECTION_ERRORS as error:
                await self._pause(error)

    def _idle_for(self) -> float | None:
        due = self._scheduler.next_due  # in the past if the last pass has left some for the next
        if self._extra:
            return 0.0
        return None if due is None else max(0.0, (due - self._leadership.clock.now_ms()) / 1000)

    # --- storing

    async def _commit(self) -> None:
        while True:
            self.pulse.idle("commit")
            work = await self._decided.get()
            self.pulse.beat("commit")
            began = time.perf_counter()
            self._phantoms -= work.withdrawn
            if self._phantoms:
                work.decisions = work.decisions.without(self._phantoms)
            known = await self._store(work)
            self._observer.committed(len(work.decisions), time.perf_counter() - began)
            report_pass(self._observer, work.decisions.without(known) if known else work.decisions)
            for portion in work.portions:
                self._consumed(portion)
            if known:
                self._phantoms.update(known)
                self._extra += [Duplicate(task_id) for task_id in known]
                self._inbox.wake()
            if asked := work.decisions.inquiries:
                guards = await self._insist(partial(load_guards, self._redis, self._names, asked))
                self._extra += [Found(task_id, guard) for task_id, guard in zip(asked, guards, strict=True)]
                self._inbox.wake()
            self._decided.task_done()

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the server, again and again while the lease is ours and it does not answer."""
        while True:
            try:
                return await ask()
            except CONNECTION_ERRORS as error:
                await self._pause(error)

    async def _store(self, work: _Pass) -> list[str]:
        """Commit one pass, repeating it while its outcome is unknown and the lease is ours."""
        try:
            return await self._insist(lambda: self._ledger.commit(self._lead, work.decisions, work.inputs, work.now))
        except FencedError as error:
            msg = f"another leader or none has the lease now ({error})"
            raise LeadLostError(msg) from error
        except ConflictError as error:
            LOG.warning("the ledger differs from memory, loading it anew: %s", error)
            raise MemoryInDoubtError(str(error)) from error
        except (RedisError, LeadLostError):
            raise
        except Exception as error:
            raise DefectError(_refs(work.portions), certain=work.alone) from error

    async def _pause(self, error: BaseException) -> None:
        """Wait before the server is asked again; raise `LeadLostError` when the lease may have ended meanwhile."""
        if not self._leadership.trusted:
            msg = f"the server does not answer ({error})"
            raise LeadLostError(msg) from error
        await asyncio.sleep(COMMIT_RETRY_S)

    # --- keeping the lead

    async def _renew(self) -> None:
        while True:
            self.pulse.beat("renew")
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
        refused = False
        while True:
            self.pulse.beat("horizon")
            await asyncio.sleep(HORIZON_EVERY_S)
            asked = monotonic_ms()
            try:
                horizon, now = await self.read_horizon()
            except CONNECTION_ERRORS:
                refused = True
                continue
            gap = now - self._last_contact
            # However short: an agent's lease may hold several such times, and each may swallow a heartbeat.
            if refused or gap > BLIND_AFTER_MS or monotonic_ms() - asked > BLIND_AFTER_MS:
                self._extra.append(Blind(gap))
            refused = False
            self._last_contact = now
            self._extra.append(Horizon(horizon))
            self._inbox.wake()

    async def read_horizon(self) -> tuple[int, int]:
        """Return (the instant up to which agents' streams are consumed, now), in ms by the server's clock.

        The oldest entry that is still in a stream is the first that is not consumed, since the commit that stores an
        entry's effect deletes it. Without entries the instant is just before now: the next entry may still get the
        present millisecond as its id.

        Raises redis-py's connection errors also when the server answers and takes no writes (its disk is full, say):
        then silence is nobody's fault.
        """
        names, parked = self._names, self.parked
        streams = (names.results, names.heartbeats, names.registrations)
        async with self._redis.pipeline(transaction=True) as pipe:
            for stream in streams:
                pipe.xrange(stream, min=parked.start(stream), count=PAGE if parked.count(stream) else 1)
            pipe.setrange(names.leader, 0, "")  # a write that changes nothing, and is refused as any other would be
            pipe.time()
            *oldest, _, (seconds, micros) = await pipe.execute()
        now = int(seconds) * 1000 + int(micros) // 1000
        horizon = now - 1
        for stream, entries in zip(streams, oldest, strict=True):
            waiting = parked.first_other(stream, [raw.decode() for raw, _ in entries])
            if waiting is not None:
                horizon = min(horizon, entry_ms(waiting) - 1)
        return horizon, now


def _refs(portions: Sequence[Portion]) -> set[EntryRef]:
    return {EntryRef(portion.stream, piece.entry_id) for portion in portions for piece in portion.pieces}


def _singly(portions: Sequence[Portion]) -> Iterator[Portion]:
    """Yield what there is of each entry by itself."""
    for portion in portions:
        for _, pieces in groupby(portion.pieces, key=lambda piece: piece.entry_id):
            yield Portion(portion.stream, list(pieces))
