"""One dispatcher's part in one pool: stand by, lead, and stand by again.

A term of leadership is: win the lease, load the ledger, start reading, run the engine. Reading starts only after the
lead is won; whatever an earlier leader had fetched and not consumed is drained first. When a term ends for any reason
but a stop, everything it had in memory is thrown away.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from redis.exceptions import RedisError

from bus.connection import CONNECTION_ERRORS, Redis
from bus.ids import Pool
from bus.messages import Command, Heartbeat, Registration, Report, SubmitTask, TaskHeader
from bus.names import PoolNames
from bus.states import TaskPriority
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.scheduler import Scheduler
from dispatcher.decoding import Batch, Topic
from dispatcher.engine import Engine, LeadLostError
from dispatcher.inbox import Arrival, Inbox
from dispatcher.intake import Intake
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import Ledger, LedgerLimits
from dispatcher.loading import load_agents, load_tasks
from dispatcher.observer import DispatcherObserver
from dispatcher.reporting import reasons, report_standing, workloads
from dispatcher.translate import events_of, refusal, rejection, submissions

LOG = logging.getLogger("callboard.dispatcher")

STAND_BY_S: Final = 0.5
STANDING_EVERY_S: Final = 1.0
PRUNE_EVERY: Final = 60
RENEW_WHILE_LOADING_MS: Final = 500


def topics(names: PoolNames) -> tuple[Topic[Any], ...]:
    """Return the inbound topics of a pool with their message models, most urgent first."""
    levels = (TaskPriority.URGENT, TaskPriority.HIGH, TaskPriority.MEDIUM, TaskPriority.LOW)
    return (
        Topic("results", names.results, Report, max_records=64),
        Topic("heartbeats", names.heartbeats, Heartbeat),
        Topic("registrations", names.registrations, Registration),
        Topic("commands", names.commands, Command),
        *(
            Topic(f"tasks:{level.level}", names.submissions(level), TaskHeader, documented=SubmitTask)
            for level in levels
        ),
    )


class PoolDispatcher:
    """Candidate for, and sometimes leader of, one pool. `run` returns when `stop` is set."""

    def __init__(
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
    ) -> None:
        self._redis = redis
        self._intake_of = intake
        self._names = PoolNames(pool)
        self._topics = topics(self._names)
        self._topic_of = {topic.stream: topic for topic in self._topics}
        self._config = config
        self._ledger = Ledger(redis, self._names, limits)
        self._leadership = Leadership(redis, self._names, dispatcher_id, lease_ms=lease_ms)
        self._observer = observer
        self._engine: Engine | None = None
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
        return self._intake.problems() if self._engine is not None else []

    async def run(self, stop: asyncio.Event, settled: Callable[[], None]) -> None:
        """Stand by and lead in turn until `stop`; then give the lead back. Survives the server's absence.

        `settled` is called whenever it is known that another leads, and when this one leads and reads.
        """
        while not stop.is_set():
            try:
                lead = await self._leadership.acquire()
                self._outage = None
                if lead is None:
                    settled()
                    await _wait(stop, STAND_BY_S * (0.75 + random.random() / 2))
                    continue
                await self._term(lead, stop, settled)
            except LeadLostError as lost:
                LOG.warning("pool %s: lost the lead: %s", self.pool, lost)
                self._leadership.drop()
            except (*CONNECTION_ERRORS, RedisError) as error:
                self._leadership.drop()
                if self._outage is None:
                    LOG.warning("pool %s: the server does not serve, trying on: %s", self.pool, error)
                self._outage = str(error)
                await _wait(stop, STAND_BY_S)

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
        with suppress(*CONNECTION_ERRORS):
            await self._leadership.release()

    async def _take_over(self, lead: Lead) -> Engine:
        """Load the ledger, renewing the lease meanwhile, and make the engine of this term."""
        clock = self._leadership.clock
        scheduler = Scheduler(self._config, seed=lead.epoch)
        agents = await load_agents(self._redis, self._names, clock.now_ms())
        scheduler.load(agents, (), clock.now_ms())
        renewed = clock.now_ms()
        loaded = 0
        async for page in load_tasks(self._redis, self._names):
            scheduler.load((), page, clock.now_ms())
            loaded += len(page)
            if clock.now_ms() - renewed > RENEW_WHILE_LOADING_MS:
                if not await self._leadership.renew():
                    msg = "the lease ran out while the ledger was loaded"
                    raise LeadLostError(msg)
                renewed = clock.now_ms()
        LOG.info("pool %s: %d agents and %d live tasks in the ledger", self.pool, len(agents), loaded)
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
        )

    async def _work(self, engine: Engine, stop: asyncio.Event, settled: Callable[[], None]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                loops = [
                    group.create_task(engine.run(), name="engine"),
                    group.create_task(self._read(settled), name="intake"),
                    group.create_task(self._stand(engine), name="standing"),
                ]
                await stop.wait()
                for loop in loops:
                    loop.cancel()
        except* LeadLostError as lost:
            raise lost.exceptions[0] from None
        except* (*CONNECTION_ERRORS, RedisError) as away:
            raise LeadLostError(f"the server does not serve ({away.exceptions[0]})") from None

    async def _read(self, settled: Callable[[], None]) -> None:
        await self._intake.start()
        settled()
        await self._intake.run()

    # --- from the subscribers to the inbox

    async def _arrived(self, batch: Batch[Any]) -> None:
        """Take what one read brought; returns when the inbox has room for it."""
        topic = batch.topic
        if topic.model is TaskHeader:
            level = topic.name.removeprefix("tasks:")
            events = submissions(self.pool, level, batch.ids, batch.messages, batch.bodies)
        else:
            events = events_of(batch.ids, batch.messages)
        ids = list(batch.ids)
        rejected: list[bytes] = []
        for bad in batch.unreadable:
            ids.append(bad.entry_id)
            rejected.append(rejection(topic.name, bad.entry_id, bad.raw, bad.reason))
            refused = refusal(self.pool, bad.entry_id, bad.raw, bad.reason) if topic.model is TaskHeader else None
            if refused is not None:
                events.append(refused)
        if rejected:
            self._observer.unreadable(topic.name, len(rejected))
        if batch.parked and self._engine is not None:
            self._engine.parked.update(batch.parked)
        await self._inbox.put(Arrival(topic.stream, ids, events, rejected))

    def _consumed(self, arrival: Arrival) -> None:
        self._intake.done(arrival.stream, arrival.ids)

    # --- once a second

    async def _stand(self, engine: Engine) -> None:
        """Publish, for people and for Prometheus, how things stand."""
        turn = 0
        while True:
            await asyncio.sleep(STANDING_EVERY_S)
            turn += 1
            report_standing(self._observer, engine.scheduler)
            with suppress(*CONNECTION_ERRORS):
                await self._ledger.publish(self._names.load, workloads(engine.scheduler))
                await self._ledger.publish(self._names.waiting, reasons(engine.scheduler))
                for topic in self._topics:
                    self._observer.backlog(topic.name, await self._redis.xlen(topic.stream))
                if turn % PRUNE_EVERY == 0:
                    await self._ledger.prune(self._leadership.clock.now_ms())


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
