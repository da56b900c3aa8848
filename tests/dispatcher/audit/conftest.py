"""A pool with a leader, an agent, and a task of every kind; and ways to audit it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

import pytest
from redis.asyncio import Redis

from bus import Client
from bus.ids import check_pool
from bus.messages import TaskError, TaskResult, TaskUpdate
from bus.names import PoolNames
from bus.states import TaskStatus
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.findings import Finding
from dispatcher.audit.streams import Patience
from tests.support.bus import WireAgent, running_dispatcher, wire_agent
from tests.support.waiting import eventually

PATIENCE = Patience(consumed_ms=2_000, idle_ms=2_000)

Audit = Callable[[], Awaitable[list[Finding]]]


@dataclass
class Place:
    """A pool, who works in it, and a task of every kind by its id."""

    redis: Redis
    bus: Client
    names: PoolNames
    agent: WireAgent
    waiting: str = ""
    delayed: str = ""
    assigned: str = ""
    running: str = ""
    completed: str = ""
    failed: str = ""


@pytest.fixture
async def place(redis: Redis, redis_url: str, pool: str) -> AsyncIterator[Place]:
    async with (
        running_dispatcher(redis_url, pool, max_pending=("100",)),
        Client(redis_url, pool=pool) as bus,
        wire_agent(redis, pool, "t.x", slots=4) as agent,
    ):
        place = Place(redis, bus, PoolNames(check_pool(pool)), agent)
        done = await bus.submit("t.x")
        await agent.complete(await agent.next(), "well")
        await done.result(timeout=30)
        bad = await bus.submit("t.x", max_attempts=1)
        given = await agent.next()
        agent.held.pop(given.task_id)
        error = TaskError(type="ValueError", message="no")
        failure = TaskResult(task_id=bad.id, attempt=1, status=TaskStatus.FAILED, error=error)
        await agent.report(results=(failure,))
        place.running = (await bus.submit("t.x")).id
        await agent.next()
        await agent.report(updates=(TaskUpdate(task_id=place.running, attempt=1),))
        place.assigned = (await bus.submit("t.x")).id
        await agent.next()
        place.waiting = (await bus.submit("t.nobody")).id
        place.delayed = (await bus.submit("t.x", delay=3600)).id
        place.completed, place.failed = done.id, bad.id

        async def as_it_should_be() -> bool:
            asked = (place.running, place.waiting, place.delayed, place.failed)
            found = [str(await redis.hget(place.names.task(task_id), "state")) for task_id in asked]
            return [one[2:].partition("/")[0] for one in found] == ["RUNNING", "PENDING", "PENDING", "FAILED"]

        await eventually(as_it_should_be)
        yield place


@pytest.fixture
def audit(redis: Redis, place: Place) -> Audit:
    async def run() -> list[Finding]:
        return await Auditor(redis, place.names, pause_s=0.1, patience=PATIENCE).run()

    return run
