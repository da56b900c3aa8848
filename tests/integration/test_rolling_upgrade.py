"""Two versions side by side: what the next one adds is ignored, what it changes waits for a leader that knows it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from typing import Any

import pytest
from pydantic import BaseModel
from pydantic_core import to_json
from redis.asyncio import Redis

from bus import Client
from bus.ids import check_pool
from bus.messages import TaskUpdate
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskPriority, TaskStatus
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.findings import Kind
from dispatcher.audit.streams import Patience
from dispatcher.leadership import leads
from dispatcher.observer import Silent
from tests.integration import next_dispatcher
from tests.integration.next_dispatcher import NEXT
from tests.support.bus import WireAgent, running_dispatcher
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)


class NextAgent(WireAgent):
    """An agent of the next version: each message has a field that this version does not know."""

    version = 1

    async def publish(self, stream: str, message: BaseModel) -> None:
        await write(self.redis, stream, {**message.model_dump(mode="json"), "v": self.version})


class MajorAgent(NextAgent):
    """One whose messages are of the next major version."""

    version = NEXT


class Counting(Silent):
    """Notes how much is parked."""

    def __init__(self) -> None:
        self.waits: dict[str, int] = {}

    def parked(self, topic: str, entries: int) -> None:
        self.waits[topic] = entries


async def write(redis: Redis, stream: str, message: dict[str, Any]) -> None:
    """Write a message as the next version does."""
    await redis.xadd(stream, {DATA_FIELD: to_json({**message, "of_the_future": {"any": ["thing"]}})})


async def submit(redis: Redis, names: PoolNames, local: str, version: int = NEXT, **fields: Any) -> str:
    """Submit as a client of the next version does."""
    message = {"v": version, "id": f"{names.pool}.{local}", "capability": "t.x", "payload": local, **fields}
    await write(redis, names.submissions(TaskPriority.MEDIUM), message)
    return f"{names.pool}.{local}"


@asynccontextmanager
async def at_work(agent: WireAgent) -> AsyncIterator[WireAgent]:
    """Let an agent complete all that it is given, once it is signed in."""

    async def work() -> None:
        while True:
            given = await agent.assignments.get()
            update = TaskUpdate(task_id=given.task_id, attempt=given.attempt, progress=0.5)
            await agent.report(updates=(update,))
            await agent.complete(given, given.task.payload)

    working = asyncio.create_task(work())
    try:
        yield agent
    finally:
        working.cancel()
        await agent.fall_silent()


@asynccontextmanager
async def next_one(url: str, pool: str) -> AsyncIterator[ForkServerProcess]:
    """Run a dispatcher of the next version; it stands by, or leads."""
    process = get_context("forkserver").Process(target=next_dispatcher.run, args=(url, pool), daemon=True)
    await asyncio.to_thread(process.start)
    try:
        yield process
    finally:
        process.terminate()
        await asyncio.to_thread(process.join, 10)
        process.kill()
        process.join()


async def leader(redis: Redis, names: PoolNames) -> str | None:
    token: Any = await redis.get(names.leader)
    return leads(token)


async def unread(redis: Redis, names: PoolNames) -> int:
    streams = [names.results, names.commands, names.registrations, *map(names.submissions, TaskPriority)]
    return sum([await redis.xlen(stream) for stream in streams])


async def test_what_a_newer_minor_version_adds_is_ignored(redis: Redis, redis_url: str, pool: str) -> None:
    names = PoolNames(check_pool(pool))
    async with (
        running_dispatcher(redis_url, pool),
        Client(redis_url, pool=pool) as bus,
        at_work(NextAgent(redis, pool)) as agent,
    ):
        await agent.register("t.x")
        mine = await bus.submit("t.x", "mine")
        theirs = await submit(redis, names, "theirs", 1)
        assert await mine.result(timeout=30) == "mine"
        assert await bus.handle(theirs).result(timeout=30) == "theirs"
        assert await redis.xlen(names.rejected) == 0


async def test_what_a_newer_major_version_writes_is_parked_and_read_by_the_first_leader_that_knows_it(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names, counting = PoolNames(check_pool(pool)), Counting()
    old = running_dispatcher(redis_url, pool, observer=counting, dispatcher_id="old")
    await old.__aenter__()
    agent, newer = WireAgent(redis, pool, "old-agent"), MajorAgent(redis, pool, "new-agent")
    async with Client(redis_url, pool=pool) as bus, at_work(agent), at_work(newer):
        await agent.register("t.x", "t.y")
        waits = await bus.submit("t.none")
        theirs = [await submit(redis, names, f"theirs{n}") for n in range(5)]
        await write(redis, names.commands, {"v": NEXT, "type": "cancel", "task_ids": [waits.id]})
        signs_in = asyncio.create_task(newer.register("t.new"))
        for_new = await bus.submit("t.new", "new")

        # The old leader works on meanwhile, takes an agent that falls silent for lost, and rejects nothing.
        assert await (await bus.submit("t.x", "mine")).result(timeout=30) == "mine"
        silent = WireAgent(redis, pool, "silent")
        await silent.register("t.silent", "t.y", lease=1.0)
        await silent.fall_silent()
        await eventually(lambda: _lost(bus, "silent"), timeout=15)
        await eventually(lambda: counting.waits.get("tasks:medium") == 5 and counting.waits["commands"] == 1)
        assert await redis.xlen(names.rejected) == 0
        assert {(await waits.get()).status, (await for_new.get()).status} == {TaskStatus.PENDING}
        patience = Patience(consumed_ms=0, idle_ms=0)
        found = await Auditor(redis, names, pause_s=0.1, patience=patience).run()
        assert Kind.NEWER_MESSAGE in {one.kind for one in found}

        async with next_one(redis_url, pool):
            await old.__aexit__(None, None, None)
            await eventually(lambda: _leads(redis, names, "next"), timeout=30)
            await signs_in
            for task_id in theirs:
                assert await bus.handle(task_id).result(timeout=30) == task_id.partition(".")[2]
            assert await for_new.result(timeout=30) == "new"
            await eventually(lambda: _is(waits, TaskStatus.CANCELLED))
            await eventually(lambda: _nothing_unread(redis, names))
            assert await Auditor(redis, names, pause_s=0.3).run() == []


async def test_after_a_step_back_to_the_older_version_nothing_is_lost_either(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    agent = WireAgent(redis, pool)
    async with Client(redis_url, pool=pool) as bus, at_work(agent):
        async with next_one(redis_url, pool) as process:
            await eventually(lambda: _leads(redis, names, "next"), timeout=30)
            await agent.register("t.x")
            first = await submit(redis, names, "first")
            assert await bus.handle(first).result(timeout=30) == "first", "an old agent works for a new leader"
            waits = await submit(redis, names, "waits", capability="t.late")
            await eventually(lambda: _nothing_unread(redis, names))
            process.kill()
        await redis.delete(names.leader)
        async with running_dispatcher(redis_url, pool, dispatcher_id="old"):
            second = await submit(redis, names, "second")
            assert await (await bus.submit("t.x", "mine")).result(timeout=30) == "mine"
            late = WireAgent(redis, pool, "late")
            async with at_work(late):
                await late.register("t.late")
                assert await bus.handle(waits).result(timeout=30) == "waits", "its record is read, whoever accepted it"
            assert await redis.hget(names.task(second), "state") is None
        async with next_one(redis_url, pool):
            assert await bus.handle(second).result(timeout=30) == "second"


async def _lost(bus: Client, agent_id: str) -> bool:
    return any(one.agent_id == agent_id and one.health == "lost" for one in await bus.agents())


async def _leads(redis: Redis, names: PoolNames, who: str) -> bool:
    return await leader(redis, names) == who


async def _is(handle: Any, status: TaskStatus) -> bool:
    return (await handle.get()).status is status


async def _nothing_unread(redis: Redis, names: PoolNames) -> bool:
    return await unread(redis, names) == 0
