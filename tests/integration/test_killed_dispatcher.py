"""SIGKILL of a dispatcher process: nothing that was submitted is lost, whatever it was doing."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis

from bus import Client, TaskCreate, TaskStatus
from bus.ids import check_pool
from bus.names import PoolNames
from tests.support.bus import wire_agent
from tests.support.waiting import eventually

SUBMISSIONS = 100_000


@asynccontextmanager
async def dispatcher_process(url: str, pool: str, name: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = ("-P", "-m", "callboard", "dispatcher", "--pool", pool, "--id", name, "--metrics-port", "0")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *command, env=os.environ | {"CALLBOARD_REDIS_URL": url}
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            await process.wait()


@pytest.mark.timeout(600)
async def test_of_a_hundred_thousand_submissions_none_is_lost_when_the_dispatcher_is_killed_among_them(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    async with Client(redis_url, pool=pool) as bus:
        handles = await bus.submit_many(TaskCreate(capability="t.none", payload=n) for n in range(SUBMISSIONS))
        async with dispatcher_process(redis_url, pool, "one") as first:
            await eventually(lambda: _more_than(redis, names.pending, SUBMISSIONS // 10), timeout=40)
            first.kill()
            await first.wait()
        accepted = await redis.zcard(names.pending)
        assert 0 < accepted < SUBMISSIONS, "it was killed in the middle"
        async with dispatcher_process(redis_url, pool, "two"):
            await eventually(lambda: _more_than(redis, names.pending, SUBMISSIONS - 1), timeout=200)
            status = await bus.queue_status()
        assert (status.waiting, status.unread, status.delayed, status.active) == (SUBMISSIONS, 0, 0, 0)
        waiting = {raw.decode() for raw in await redis.zrange(names.pending, 0, -1)}  # type: ignore[union-attr]
        assert waiting == {handle.id for handle in handles}
        assert (await handles[-1].get()).status is TaskStatus.PENDING
    async for key in redis.scan_iter(f"{names.root}*", count=5000):
        await redis.unlink(key)


async def test_the_work_in_agents_hands_goes_on_under_the_next_dispatcher(
    redis: Redis, redis_url: str, pool: str
) -> None:
    async with (
        Client(redis_url, pool=pool) as bus,
        dispatcher_process(redis_url, pool, "one") as first,
        wire_agent(redis, pool, "t.x") as agent,
    ):
        handle = await bus.submit("t.x")
        given = await agent.next()
        first.kill()
        await first.wait()
        await agent.complete(given, "reported to nobody")
        async with dispatcher_process(redis_url, pool, "two"):
            assert await handle.result(timeout=30) == "reported to nobody"
            assert (await handle.get()).attempt == 1


async def _more_than(redis: Redis, index: str, number: int) -> bool:
    return int(await redis.zcard(index)) > number
