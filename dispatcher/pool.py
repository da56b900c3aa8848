"""One dispatcher's part in one pool: stand by, lead, and stand by again.

A term of leadership is: win the lease, load agents and what they hold, run the engine and read what agents say, load
what waits, the first first, placing it meanwhile; then read what clients say. Reading starts only after the lead is
won; whatever an earlier leader had fetched and not consumed is drained first. When a term ends for any reason
but a stop, everything it had in memory is thrown away, and the next try waits a little longer each time.

A defect ends the term, not the process, which may serve other pools. An entry on which two terms have failed, the
second time with nothing else in the pass, goes to `rejected`: no single message can stop a pool.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from bus.clock import monotonic_ms
from bus.connection import CONNECTION_ERRORS, Redis
from bus.ids import Pool
from bus.messages import Command, Heartbeat, Registration, Report, SubmitTask, TaskHeader
from bus.names import PoolNames
from bus.states import TaskPriority
from dispatcher.audit.watch import AuditWatch, tidy
from dispatcher.commit_call import LedgerLimits
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.scheduler import Scheduler
from dispatcher.decoding import Batch, Topic
from dispatcher.engine import DefectError, Engine, EntryRef, LeadLostError, MemoryInDoubtError, gravest
from dispatcher.inbox import Inbox, Portion
from dispatcher.intake import Intake
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import Ledger
from dispatcher.loading import load_agents, load_held, load_notes, load_unheld
from dispatcher.observer import DispatcherObserver
from dispatcher.reporting import reasons, report_standing
from dispatcher.salvage import salvage_report
from dispatcher.strays import StraySearch
from dispatcher.translate import arrival_of
from dispatcher.workloads import Workloads

LOG = logging.getLogger("callboard.dispatcher")

STAND_BY_S: Final = 0.5
PAUSE_S: Final = 0.1
PAUSE_MAX_S: Final = 10.0
LASTING_MS: Final = 60_000
"""A term that ends badly after so long is no sign that the next will."""
GIVE_BACK_S: Final = 1.0
STANDING_EVERY_S: Final = 1.0
TOLD_PER_S: Final = 1_000
"""How things stand is told of so many agents per second: telling it of five thousand costs a tenth of a second."""
STANDING_AT_LEAST_EVERY_S: Final = 3.0
"""After five seconds without a word a loop counts as stuck."""
PRUNE_EVERY_S: Final = 60.0
RENEW_WHILE_LOADING_MS: Final = 500
BEATS_S: Final = 0.1
"""Heartbeats that come within it are read together: one by one a hundred agents would cost a hundred passes a second.
What waits for the horizon, leases and timeouts, may be later by this."""


def topics(names: PoolNames) -> tuple[Topic[Any], ...]:
    """Return the inbound topics of a pool with their message models, most urgent first."""
    levels = (TaskPriority.URGENT, TaskPriority.HIGH, TaskPriority.MEDIUM, TaskPriority.LOW)
    return (
        Topic("results", names.results, Report, max_records=64, salvage=salvage_report),
        Topic("heartbeats", names.heartbeats, Heartbeat, rest_s=BEATS_S, fleeting=True),
        Topic("registrations", names.registrations, Registration),
        Topic("commands", names.commands, Command, max_records=64),
        *(
            Topic(f"tasks:{level.level}", names.submissions(level), TaskHeader, documented=SubmitTask)
            for level in levels
        ),
    )


class PoolDispatcher:
    """Candidate for, and sometimes leader of, one pool. `run` returns when `stop` is set."""

    def __init__(  # noqa: PLR0913 - what one process has for all its pools, and what is of this one
        self,
        *,
        redis: Redis,
        intake: Callable[[tuple[Topic[Any], ...], Callable[[Batch[Any]], Any]], Intake],
        pool: Pool,
        dispatcher_id: str,
        lease_ms: int,
        config: SchedulerConfig,
        limits: LedgerLimits,
        observer: DispatcherObserver,
        audit_every_s: float = 0.0,
    ) -> None:
        self._redis = redis
        self._intake_of = intake
        self._names = PoolNames(pool)
        self._topics = topics(self._names)
        self._topic_of = {topic.stream: topic for topic in self._topics}
        self._config = config
        self._ledger = Ledger(redis, self._names, limits)
        self._leadership = Leadership(redis, self._names, dispatcher_id, lease_ms=lease_ms)
        self._id = dispatcher_id
        self._observer = observer
        self._audits = AuditWatch(redis, self._names, self._ledger, observer, every_s=audit_every_s)
        self._engine: Engine | None = None
        self._failures = 0
        self._ailment: str | None = None
        self._suspects: set[EntryRef] = set()
        self._culprits: dict[EntryRef, str] = {}
        """Entries on which the scheduler is known to fail, with the reason."""
        self._outage: str | None = "not asked yet"
        self._inbox = Inbox(())
        self._intake = intake(self._topics, self._arrived)

    @property
    def pool(self) -> Pool:
        """The pool's name."""
        return self._names.pool

    @property
    def leading(self) -> bool:
        """True while this dispatcher leads the pool and has loaded its ledger."""
        return self._engine is not None and self._leadership.trusted

    def problems(self) -> list[str]:
        """Return what keeps this candidate from its part, leading or standing by; empty when it is well."""
        if self._outage is not None:
            return [f"the server does not serve: {self._outage}"]
        if self._ailment is not None:
            return [self._ailment]
        return self._intake.problems() if self._engine is not None else []

    async def run(self, stop: asyncio.Event, settled: Callable[[], None]) -> None:
        """Stand by and lead in turn until `stop`; then give the lead back. Survives the server's absence.

        `settled` is called whenever it is known that another leads, and when this one leads and reads.
        """
        while not stop.is_set():
            began = monotonic_ms()
            try:
                lead = await self._leadership.acquire()
                self._outage = None
                if lead is None:
                    settled()
                    self._ailment = None
                    await _wait(stop, min(STAND_BY_S * (0.75 + random.random() / 2), self._leadership.free_in_s))
                    continue
                await self._term(lead, stop, settled)
            except LeadLostError as lost:
                LOG.warning("pool %s: lost the lead: %s", self.pool, lost)
                if not isinstance(lost, MemoryInDoubtError):
                    # No sign that the next term ends badly, however often it happens: somebody must lead, and soon.
                    await self._give_back()
                    await _wait(stop, PAUSE_S * (0.75 + random.random() / 2))
                    continue
            except (*CONNECTION_ERRORS, RedisError) as error:
                if self._outage is None:
                    LOG.warning("pool %s: the server does not serve, trying on: %s", self.pool, error)
                self._outage = str(error)
                await self._give_back()
                await _wait(stop, STAND_BY_S)
                continue
            except Exception as error:  # noqa: BLE001 - of this pool, and the process has others
                self._defect(error)
            else:
                continue
            await self._give_back()
            await _wait(stop, self._pause_s(monotonic_ms() - began))

    def _defect(self, error: Exception) -> None:
        """Report a defect, and remember which entries may have brought it about."""
        cause = error.__cause__ if isinstance(error, DefectError) and error.__cause__ is not None else error
        self._ailment = f"a defect has ended its last term: {cause!r}"
        self._observer.defect()
        LOG.error("pool %s: a defect ends this term of leadership (%s)", self.pool, error, exc_info=cause)
        if isinstance(error, DefectError):
            if error.certain:
                self._culprits |= dict.fromkeys(error.suspects, f"the leader fails on it: {cause!r}")
                for ref in error.suspects:
                    LOG.error("%s: entry %s goes to rejected, the leader has failed on it twice", *ref)
                self._failures = 0
            else:
                self._suspects |= error.suspects

    async def _give_back(self) -> None:
        """Give the lease back if it is still ours, so that nobody need wait for its end."""
        try:
            async with asyncio.timeout(GIVE_BACK_S):
                await self._leadership.release()
        except (*CONNECTION_ERRORS, RedisError):
            pass  # then it ends by itself

    def _pause_s(self, lasted_ms: float) -> float:
        """Return how long to wait before the next try: longer each time, until a term has lasted."""
        if lasted_ms > LASTING_MS:
            self._failures = 0
        self._failures = min(self._failures + 1, 10)
        return min(PAUSE_MAX_S, PAUSE_S * (1 << self._failures)) * (0.75 + random.random() / 2)

    async def _term(self, lead: Lead, stop: asyncio.Event, settled: Callable[[], None]) -> None:
        """Lead once, until the lead is lost or `stop` is set."""
        LOG.info("pool %s: leading with epoch %d", self.pool, lead.epoch)
        self._inbox = Inbox(tuple(self._topic_of))
        engine: Engine | None = None
        try:
            engine = await self._take_over(lead)
            self._engine = engine
            self._observer.leading(lead.epoch)
            await self._work(engine, stop, settled)
        finally:
            self._engine = None
            self._observer.leading(0)
            with suppress(*CONNECTION_ERRORS):
                await self._intake.stop()
        await self._give_back()

    async def _take_over(self, lead: Lead) -> Engine:
        """Load agents and what they hold, renewing the lease meanwhile, and make the engine of this term."""
        clock = self._leadership.clock
        scheduler = Scheduler(self._config, seed=lead.epoch, pool=self.pool)
        notes = await load_notes(self._redis, self._names)
        agents = await load_agents(self._redis, self._names, clock.now_ms())
        scheduler.begin_loading()
        scheduler.load(agents, (), clock.now_ms(), notes)
        renewed = clock.now_ms()
        held = 0
        async for page in load_held(self._redis, self._names):
            scheduler.load((), page, clock.now_ms())
            held += len(page)
            if clock.now_ms() - renewed > RENEW_WHILE_LOADING_MS:
                if not await self._leadership.renew():
                    msg = "the lease ran out while the ledger was loaded"
                    raise LeadLostError(msg)
                renewed = clock.now_ms()
        LOG.info("pool %s: %d agents, who hold %d tasks, in the ledger", self.pool, len(agents), held)
        return Engine(
            redis=self._redis,
            names=self._names,
            leadership=self._leadership,
            lead=lead,
            ledger=self._ledger,
            scheduler=scheduler,
            inbox=self._inbox,
            consumed=self._consumed,
            observer=self._observer,
            suspects=self._suspects,
        )

    async def _work(self, engine: Engine, stop: asyncio.Event, settled: Callable[[], None]) -> None:
        loaded = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(engine.run(), name="engine"),
                    group.create_task(self._read(engine, loaded, settled), name="intake"),
                    group.create_task(self._stand(engine, loaded), name="standing"),
                    group.create_task(self._audit(engine, loaded), name="audit"),
                ]
                await stop.wait()
                for loop in loops:
                    loop.cancel()
        except ExceptionGroup as ends:
            end = gravest(ends)
            raise end from end.__cause__

    async def _read(self, engine: Engine, loaded: asyncio.Event, settled: Callable[[], None]) -> None:
        names = self._names
        await self._intake.start([names.results, names.heartbeats, names.registrations])
        async with asyncio.TaskGroup() as group:
            group.create_task(self._intake.run(), name="healing")
            await self._load_rest(engine)
            loaded.set()
            await self._intake.start()
            settled()

    async def _load_rest(self, engine: Engine) -> None:
        """Load what is in nobody's hands, placing it meanwhile. A pass has its turn after each page."""
        scheduler, clock = engine.scheduler, self._leadership.clock
        began, loaded = monotonic_ms(), 0
        async for page in load_unheld(self._redis, self._names):
            scheduler.load((), page, clock.now_ms())
            loaded += len(page)
            self._inbox.wake()
            await asyncio.sleep(0)
        scheduler.loaded()
        self._inbox.wake()
        LOG.info(
            "pool %s: %d tasks that wait are loaded, in %.1f s", self.pool, loaded, (monotonic_ms() - began) / 1000
        )

    async def _audit(self, engine: Engine, loaded: asyncio.Event) -> None:
        await loaded.wait()
        await self._audits.run(engine.scheduler)

    # --- from the subscribers to the inbox

    async def _arrived(self, batch: Batch[Any]) -> None:
        """Take what one read brought; returns when the inbox has room for it."""
        topic = batch.topic
        culprits = {ref.entry_id: why for ref, why in self._culprits.items() if ref.stream == topic.stream}
        arrival = arrival_of(self.pool, batch, culprits)
        bad = len(batch.unreadable) + len(batch.set_aside)
        if bad:
            self._observer.unreadable(topic.name, bad)
        if batch.parked and self._engine is not None:
            self._engine.parked.add(topic.stream, batch.parked)
        await self._inbox.put(arrival)

    def _consumed(self, portion: Portion) -> None:
        ids = portion.consumed
        self._intake.done(portion.stream, ids)
        self._ailment = None
        if self._suspects or self._culprits:
            for entry_id in ids:
                ref = EntryRef(portion.stream, entry_id)
                self._suspects.discard(ref)
                self._culprits.pop(ref, None)

    # --- once a second

    async def _stand(self, engine: Engine, loaded: asyncio.Event) -> None:
        """Publish, for people and for Prometheus, how things stand."""
        passed = 0.0
        strays, loads = StraySearch(self._redis, self._names), Workloads()
        while True:
            pause = len(engine.scheduler.board.fleet.agents) / TOLD_PER_S
            pause = min(max(pause, STANDING_EVERY_S), STANDING_AT_LEAST_EVERY_S)
            await asyncio.sleep(pause)
            passed += pause
            prune = passed >= PRUNE_EVERY_S
            passed = 0.0 if prune else passed
            engine.pulse.beat("standing")
            self._ailment = None
            try:
                await self._stand_once(engine, loads, prune=prune)
                if prune and loaded.is_set():
                    async for found in strays.look(engine.scheduler):
                        engine.add(found)
            except (*CONNECTION_ERRORS, RedisError):
                continue  # whether the server serves is for the engine to say
            except Exception:
                self._observer.defect()
                LOG.exception("pool %s: how things stand cannot be told", self.pool)

    async def _stand_once(self, engine: Engine, loads: Workloads, *, prune: bool) -> None:
        scheduler = engine.scheduler
        report_standing(self._observer, scheduler)
        if not self._intake.problems():
            engine.pulse.beat("intake")
        await self._ledger.publish(self._names.loops, engine.pulse.told(self._leadership.clock.now_ms()))
        await self._ledger.publish(self._names.load, await loads.look(scheduler))
        await self._ledger.publish(self._names.waiting, await reasons(scheduler))
        for topic in self._topics:
            self._observer.backlog(topic.name, await self._redis.xlen(topic.stream))
            self._observer.parked(topic.name, engine.parked.count(topic.stream))
        self._observer.dead_letters(await self._redis.zcard(self._names.dead))
        if prune:
            await self._ledger.prune(self._leadership.clock.now_ms())
            await tidy(self._redis, [topic.stream for topic in self._topics], self._id)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
