"""One session of an agent: it signs in, works, and takes its leave. Composes the parts; decides nothing about tasks.

A session ends because it was told to stop (SIGTERM), to drain or to restart (an instruction), or because another
process signed in with its agent id (superseded: all that it could still say and that would count is that exclusive work
is over, or was never begun).
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from pydantic import JsonValue

from agent_runtime.agent import Agent
from agent_runtime.children import BusNursery
from agent_runtime.execution import PATIENCE_S
from agent_runtime.exit_codes import ExitCode
from agent_runtime.heartbeat import Heartbeat, Standing
from agent_runtime.inbox import AttemptKey, Inbox
from agent_runtime.instructions import Instructions
from agent_runtime.link import Link
from agent_runtime.observer import SILENT, RuntimeObserver
from agent_runtime.offer import Offer
from agent_runtime.pipeline import Pipeline
from agent_runtime.reader import Reader
from agent_runtime.registration import Registration, registration_of
from agent_runtime.reporter import Reporter
from agent_runtime.settings import AgentSettings
from agent_runtime.slots import Slots
from bus.connection import connect
from bus.ids import check_pool, new_nonce, new_session
from bus.messages import READS
from bus.names import PoolNames
from bus.overrides import Overrides

LOG: Final = logging.getLogger("callboard.agent")

LEASE_MARGIN_S: Final = 1.5
"""How long before the end of an unconfirmed lease exclusive work is cancelled."""
FAREWELL_S: Final = 3.0
"""How long a stopping agent tries to deliver its last reports; then the dispatcher learns of its end by the lease."""
MOST_THREADS: Final = 100_000
"""As many as there can ever be slots: these are what limits threads, and their number may change."""
TASK_THREADS: Final = "callboard-task"
"""What the names of the threads begin with in which plain `def` methods run."""


class Worker:
    """Runs `agent` for one session. Signals are none of its business: see `agent_runtime.process`.

    `metadata` is shown to whoever looks at the agent, beside its host, process id and version of Python.
    Raises `AgentDefinitionError` if the agent's object says something of itself that cannot be registered.
    """

    def __init__(
        self,
        agent: Agent,
        settings: AgentSettings,
        observer: RuntimeObserver | None = None,
        *,
        metadata: Mapping[str, JsonValue] | None = None,
    ) -> None:
        self.agent = agent
        self.agent_id = settings.agent_id or agent.agent_id or f"{type(agent).__name__.lower()}-{new_nonce()[-12:]}"
        self.session = new_session()
        self.ready = asyncio.Event()
        """Set when the leader has acknowledged the registration."""
        self._settings = settings
        self._observer = observer or SILENT
        self._names = PoolNames(check_pool(settings.pool))
        self._code = ExitCode.STOPPED
        self._told = asyncio.Event()
        self._hurry = asyncio.Event()
        self._lease_s = settings.lease.total_seconds()
        self._offer = Offer(
            agent, lambda: registration_of(agent, self.agent_id, self.session, settings, metadata or {})
        )
        self._composed = False
        self._time_is_over = False
        """Running tasks have had the time that they were given."""
        agent._updater = self._update_capabilities  # noqa: SLF001 - the two are one

    async def run(self, stop: asyncio.Event) -> ExitCode:
        """Work until `stop` is set or the session ends otherwise; return what the supervisor should do.

        Running tasks may finish within `settings.grace`; then they are cancelled and reported as `agent_lost`, which
        gives them to another agent. Cancelling this call stops at once: tasks are cancelled and nothing is reported.
        """
        await self.agent.on_start()
        try:
            self._offer.refresh()
            self._compose()
            try:
                return await self._session(stop)
            finally:
                await self._close()
        finally:
            await self.agent.on_stop()

    def _compose(self) -> None:
        settings, observer = self._settings, self._observer
        size = self._offer.message.slots
        link = self._link = Link(settings.redis_url, observer)
        self._redis = connect(settings.redis_url, name=f"callboard-agent-{self.agent_id}")
        self._nursery = BusNursery(settings.redis_url, self._names.pool)
        self._inbox = Inbox(size)
        self._threads = ThreadPoolExecutor(MOST_THREADS, thread_name_prefix=TASK_THREADS)
        self._reporter = Reporter(
            self._redis,
            self._names.results,
            agent_id=self.agent_id,
            session=self.session,
            stored=self._stored,
            record=self._names.task,
            link=link,
            observer=observer,
        )
        self._registration = Registration(self._redis, self._names.registrations, self._offer.message, link)
        self._heartbeat = Heartbeat(
            settings.redis_url,
            self._names,
            self.agent_id,
            self.session,
            interval=settings.heartbeat_interval.total_seconds(),
            holding=self._inbox.holding,
            occupied=lambda: self._slots.occupied,
            cursors=lambda: (self._reader.cursor, self._reader.control_cursor),
            link=link,
            observer=observer,
        )
        self._slots = Slots(
            size=size,
            inbox=self._inbox,
            reporter=self._reporter,
            observer=observer,
            occupied_changed=self._heartbeat.beat_now,
        )
        self._pipeline = Pipeline(
            self.agent,
            threads=self._threads,
            settled=self._slots.settled,
            ended=self._slots.ended,
            progress=self._reporter.progress,
            extended=self._reporter.extended,
            cancelling=self._reporter.cancelling,
            nursery=self._nursery,
            room=self._slots,
        )
        self._pipeline.withdrawn = self._offer.withdrawn
        self._slots.use(self._pipeline)
        self._instructions = Instructions(
            self._slots,
            grace=settings.grace.total_seconds(),
            end=self._left,
            tell=self._tell,
        )
        self._reader = Reader(
            self._redis,
            self._names,
            self.agent_id,
            self.session,
            assigned=self._slots.receive,
            instructed=self._instructed,
            outdated=self._outdated,
            link=link,
        )
        self._composed = True

    # --- the way of a session

    async def _session(self, stop: asyncio.Event) -> ExitCode:
        async with asyncio.TaskGroup() as group:
            loops = [
                group.create_task(self._reader.run(), name="reader"),
                group.create_task(self._reporter.run(), name="reporter"),
                group.create_task(self._registration.run(), name="registration"),
                group.create_task(self._beat_and_watch_lease(), name="lease"),
                group.create_task(self._heed(stop), name="stop"),
            ]
            await self._told.wait()
            await self._leave()
            for loop in loops:
                loop.cancel()
        return self._code

    async def _heed(self, stop: asyncio.Event) -> None:
        await stop.wait()
        self._end(ExitCode.STOPPED, hurry=True)

    async def _beat_and_watch_lease(self) -> None:
        await self.ready.wait()
        self._heartbeat.start()
        if not any(capability.exclusive for _, capability in self.agent.capabilities.values()):
            return
        limit = max(self._lease_s - LEASE_MARGIN_S, self._lease_s / 2)
        while True:
            left = self._heartbeat.confirmed_at + limit - time.monotonic()
            self._slots.lease_in_doubt = left <= 0
            if left <= 0:
                self._slots.cancel_exclusive()
            await asyncio.sleep(max(left, 0.1))

    async def _leave(self) -> None:
        """Hand back what has not begun, let the rest finish, say everything, sign out."""
        if self._code is not ExitCode.SUPERSEDED:
            self._instructions.leave()
            self._slots.close()
            if not self._time_is_over:
                await _first(self._slots.wait_until_empty(), self._hurry.wait())
                await _within(self._settings.grace.total_seconds(), self._slots.wait_until_empty())
        self._slots.close()
        self._slots.abandon()
        await _within(2 * PATIENCE_S, self._slots.wait_until_empty())
        if self._code is ExitCode.SUPERSEDED:
            # What is exclusive is kept from others until this session says that it is over, or its lease is.
            await _within(FAREWELL_S, self._reporter.wait_until_idle())
            return
        if not await _within(FAREWELL_S, self._say_farewell()):
            LOG.warning("the last reports could not be delivered: the dispatcher will take this agent for lost")

    async def _say_farewell(self) -> None:
        await self._reporter.wait_until_idle()
        await self._heartbeat.stop()
        await self._registration.sign_out(self._code.name.lower())

    async def _close(self) -> None:
        self._composed = False
        self._instructions.close()
        self._registration.close()
        self._slots.close()
        self._slots.abandon()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._heartbeat.stop()
        await self._nursery.close()
        await self._redis.aclose()

    def _stored(self, keys: Sequence[AttemptKey]) -> None:
        self._slots.stored(keys)

    # --- what the leader says

    def _instructed(self, message: dict[str, Any]) -> None:
        match message["type"]:
            case "registered":
                self._registration.acknowledged(message.get("revision", 0))
                if not self.ready.is_set():
                    LOG.info("agent %s is signed in", self.agent_id)
                    self.ready.set()
            case "reregister":
                self._registration.forgotten()
            case "cancel":
                key = message["task_id"], message["attempt"]
                why, confirm, grace = message.get("reason"), message.get("confirm"), message.get("grace")
                self._slots.cancel(key, why or "cancelled", confirm=bool(confirm), grace=grace)
            case "recall":
                self._slots.recall((message["task_id"], message["attempt"]))
            case "pause" | "resume" | "drain" | "restart":
                self._instructions.take(message)
            case "update":
                self._offer.override(message["number"], Overrides.model_validate(message["overrides"]))
                self._heartbeat.standing = self._heartbeat.standing._replace(updated=self._offer.update)
                self._sign_in_anew()
            case "superseded":
                LOG.error("another process has the agent id %s now: stopping", self.agent_id)
                self._end(ExitCode.SUPERSEDED, hurry=True)
            case other:
                LOG.warning("left out an instruction of the unknown type %r", other)

    def _outdated(self, version: int) -> None:
        """Leave: an agent that goes on signing in, and understands nothing, would be given tasks and keep them."""
        if self._code < ExitCode.TOO_OLD:
            text = "the dispatcher writes messages of version %d, and agent %s reads %d: stopping, upgrade this agent"
            LOG.error(text, version, self.agent_id, READS)
        self._end(ExitCode.TOO_OLD, hurry=True)

    def _tell(self, standing: Standing) -> None:
        self._heartbeat.standing = standing._replace(updated=self._offer.update)
        self._heartbeat.beat_now()

    def _left(self, code: ExitCode) -> None:
        self._time_is_over = True
        self._end(code, hurry=True)

    # --- what the agent offers

    async def _update_capabilities(self, changes: Mapping[str, Any]) -> None:
        """Change what the agent offers; returns when the leader has confirmed it, at once before the first sign-in."""
        self._offer.change(**changes)
        if self._composed:
            self._sign_in_anew()
            await self._registration.confirmed(self._offer.message.revision)

    def _sign_in_anew(self) -> None:
        message = self._offer.message
        self._pipeline.withdrawn = self._offer.withdrawn
        self._slots.hand_back_withdrawn()
        if message.slots != self._slots.size:
            self._slots.resize(message.slots)
        self._registration.say(message)

    def _end(self, code: ExitCode, *, hurry: bool) -> None:
        """Begin to leave; superseded wins over a restart, and that over a stop."""
        self._code = max(self._code, code)
        self._told.set()
        if hurry:
            self._hurry.set()


async def _within(seconds: float, what: Awaitable[object]) -> bool:
    """Await `what` for at most so long; tell whether it came."""
    try:
        async with asyncio.timeout(seconds):
            await what
    except TimeoutError:
        return False
    return True


async def _first(*these: Awaitable[object]) -> None:
    """Return when the first of these is done."""
    tasks = [asyncio.ensure_future(this) for this in these]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
