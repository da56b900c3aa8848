"""The other parties on the bus, for tests of one: a dispatcher in this loop, an agent that only knows the wire."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Any

from pydantic import BaseModel
from redis.asyncio import Redis

from bus.ids import check_pool
from bus.messages import Assignment, CapabilitySpec, Control, Heartbeat, Register, Report, TaskResult
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskStatus
from dispatcher.observer import SILENT, DispatcherObserver
from dispatcher.service import Dispatcher
from dispatcher.settings import DispatcherSettings

DATA = DATA_FIELD.encode()


@asynccontextmanager
async def running_dispatcher(
    url: str, pool: str, *, observer: DispatcherObserver = SILENT, **settings: Any
) -> AsyncIterator[None]:
    """Run a dispatcher of `pool` in this loop while the block runs; it leads, or stands by, when the block begins."""
    stop, ready = asyncio.Event(), asyncio.Event()
    settings.setdefault("retry_base", timedelta(milliseconds=20))
    dispatcher = Dispatcher(DispatcherSettings(redis_url=url, pools=(pool,), **settings), lambda _: observer)
    serving = asyncio.create_task(dispatcher.run(stop, ready))
    try:
        async with asyncio.timeout(30):
            await ready.wait()
        yield
    finally:
        stop.set()
        await serving


class WireAgent:
    """An agent that speaks the wire and nothing else, as one in another language would; a test tells it what to do."""

    def __init__(self, redis: Redis, pool: str, agent_id: str = "wire", session: str = "s1") -> None:
        self.redis = redis
        self.names = PoolNames(check_pool(pool))
        self.id = agent_id
        self.session = session
        self.assignments: asyncio.Queue[Assignment] = asyncio.Queue()
        self.control: asyncio.Queue[Control] = asyncio.Queue()
        self.held: dict[str, int] = {}
        self._loops: list[asyncio.Task[None]] = []

    async def register(self, *capabilities: str | CapabilitySpec, slots: int = 8, lease: float = 5.0) -> None:
        """Sign in, begin to beat and to read, and return when the leader has acknowledged it."""
        specs = tuple(c if isinstance(c, CapabilitySpec) else CapabilitySpec(name=c) for c in capabilities)
        message = Register(
            agent_id=self.id, session=self.session, capabilities=specs, slots=slots, lease=lease, heartbeat_interval=0.5
        )
        await self.publish(self.names.registrations, message)
        self._loops += [asyncio.create_task(self._read()), asyncio.create_task(self._beat())]
        async with asyncio.timeout(30):
            while (await self.control.get()).root.type != "registered":
                pass

    async def publish(self, stream: str, message: BaseModel) -> None:
        """Write one message."""
        await self.redis.xadd(stream, {DATA_FIELD: message.model_dump_json()})

    async def next(self, timeout: float = 30.0) -> Assignment:
        """Return the next assignment."""
        async with asyncio.timeout(timeout):
            return await self.assignments.get()

    async def report(self, **parts: Any) -> None:
        """Report on tasks: `updates`, `results`, `returned`."""
        await self.publish(self.names.results, Report(agent_id=self.id, session=self.session, **parts))

    async def complete(self, assignment: Assignment, output: Any = None) -> None:
        """Report that the task of `assignment` is COMPLETED."""
        self.held.pop(assignment.task_id, None)
        done = TaskResult(
            task_id=assignment.task_id, attempt=assignment.attempt, status=TaskStatus.COMPLETED, output=output
        )
        await self.report(results=(done,))

    async def fall_silent(self) -> None:
        """Stop beating and reading without a word, as a killed process does."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        self._loops = []

    async def _read(self) -> None:
        tasks, control = self.names.assignments(self.id), self.names.control(self.id)
        cursors: dict[Any, Any] = {tasks: "0-0", control: "0-0"}
        while True:
            reply: Any = await self.redis.xread(dict(cursors), block=500)
            for raw, entries in reply or ():
                stream = raw.decode()
                cursors[stream] = entries[-1][0]
                for _, fields in entries:
                    self._take(stream == tasks, fields[DATA])

    def _take(self, is_assignment: bool, body: bytes) -> None:
        if is_assignment:
            assignment = Assignment.model_validate_json(body)
            self.held[assignment.task_id] = assignment.attempt
            self.assignments.put_nowait(assignment)
        else:
            self.control.put_nowait(Control.model_validate_json(body))

    async def _beat(self) -> None:
        while True:
            beat = Heartbeat(agent_id=self.id, session=self.session, holding=tuple(self.held.items()))
            await self.publish(self.names.heartbeats, beat)
            await asyncio.sleep(0.5)


@asynccontextmanager
async def wire_agent(
    redis: Redis, pool: str, *capabilities: str | CapabilitySpec, agent_id: str = "wire", **options: Any
) -> AsyncIterator[WireAgent]:
    """Run a registered `WireAgent` while the block runs."""
    agent = WireAgent(redis, pool, agent_id)
    try:
        await agent.register(*capabilities, **options)
        yield agent
    finally:
        with suppress(asyncio.CancelledError):
            await agent.fall_silent()
