"""What is left in the server when much has been done: what retention keeps, and then nothing."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from agent_runtime import Agent, TaskContext, capability
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus import Client, TaskCreate
from bus.ids import check_pool
from bus.names import Expiry, PoolNames
from dispatcher.audit.auditor import Auditor
from tests.support.bus import running_dispatcher
from tests.support.waiting import eventually

TASKS = 3_000
RETENTION = timedelta(seconds=3)
SLACK_BYTES = 64 * 1024
"""What streams and hashes keep of memory that they had; a thousand tasks take ten times as much."""


class Crew(Agent):
    slots = 200

    @capability("well")
    async def well(self, task: int) -> int:
        return task

    @capability("badly")
    async def badly(self, task: int) -> None:
        raise ValueError(task)

    @capability("parent")
    async def parent(self, task: int, ctx: TaskContext) -> int:
        result: int = await ctx.call("well", task)
        return result


async def _keys(redis: Redis, names: PoolNames) -> dict[str, tuple[int, int]]:
    """Return each key of the pool with its time to live and its bytes."""
    found: dict[str, tuple[int, int]] = {}
    async for raw in redis.scan_iter(names.everything, count=1000):
        key = raw.decode()
        size: Any = await redis.memory_usage(key)
        found[key] = await redis.pttl(key), size or 0
    return found


async def _work(bus: Client, number: int) -> None:
    tasks = [TaskCreate(capability="well", payload=n, key=f"k{n}") for n in range(number)]
    tasks += [TaskCreate(capability="badly", payload=n, max_attempts=1) for n in range(number // 10)]
    tasks += [TaskCreate(capability="parent", payload=n) for n in range(number // 30)]
    tasks += [TaskCreate(capability="well", payload=n, delay=0.1) for n in range(number // 30)]
    handles = await bus.submit_many(tasks)
    cancelled = await bus.submit_many(TaskCreate(capability="nobody") for _ in range(number // 30))
    await bus.cancel([one.id for one in cancelled])
    async for _ in bus.as_completed([*handles, *cancelled]):
        pass


async def test_when_retention_is_over_the_server_has_what_it_had_before(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.pool.PRUNE_EVERY_S", 1.0)
    names = PoolNames(check_pool(pool))
    worker = Worker(Crew(), AgentSettings(redis_url=redis_url, pool=pool, agent_id="crew"))
    stop = asyncio.Event()
    settings: dict[str, Any] = {"retention": RETENTION, "events_retention": RETENTION, "max_pending": ("1000000",)}
    async with running_dispatcher(redis_url, pool, dispatcher_id="one", breaker_failures=0, **settings):
        running = asyncio.create_task(worker.run(stop))
        await asyncio.wait_for(worker.ready.wait(), 10)
        sizes: list[int] = []
        for number in (100, TASKS):
            async with Client(redis_url, pool=pool) as bus:
                await _work(bus, number)
            assert await Auditor(redis, names, pause_s=0.3).run() == []

            async def all_expired() -> bool:
                kinds = Counter(one.family.name for key in await _keys(redis, names) if (one := names.known(key)))
                return not (kinds["task"] or kinds["children"]) and not await redis.zcard(names.finished)

            await eventually(all_expired, timeout=30)
            await eventually(lambda: _is_short(redis, names.events), timeout=20)
            sizes.append(sum(size for ttl, size in (await _keys(redis, names)).values() if ttl < 0))
        assert sizes[1] - sizes[0] < SLACK_BYTES, sizes
        assert await redis.scard(names.queue("*")) == 0
        for stream in (names.results, names.heartbeats, names.registrations, names.commands):
            consumers = {one["name"] for one in await redis.xinfo_consumers(stream, "dispatchers")}
            assert consumers <= {b"one"}
        stop.set()
        await running
    for key, (ttl, _) in (await _keys(redis, names)).items():
        known = names.known(key)
        assert known is not None, key
        assert ttl >= 0 or known.family.expires is Expiry.NEVER, key
    await redis.delete(*await _keys(redis, names))


async def _is_short(redis: Redis, stream: str) -> bool:
    """Tell whether a stream is down to the blocks that XTRIM cannot divide."""
    return bool(await redis.xlen(stream) <= 100)
