"""arq: polls a sorted set, pickles, and has no way to submit many in one step."""

import asyncio
from collections.abc import Sequence
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job

from benchmarks.compare.peer import HELD_S, SLOTS, URL, at_once, mark, payload, program

POLL_S = 0.005

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # the worker makes its loop by the policy


async def noop(_: dict[Any, Any], task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    mark(task["n"])
    return {"n": task["n"]}


async def held(_: dict[Any, Any], task: dict[str, Any]) -> None:
    """Do nothing for long."""
    mark(task["n"])
    await asyncio.sleep(HELD_S)


class WorkerSettings:
    """What `arq` runs."""

    functions = (noop, held)
    redis_settings = RedisSettings.from_dsn(URL)
    max_jobs = SLOTS
    poll_delay = POLL_S
    log_results = False


class Arq:
    """See `Peer`."""

    settings = f"uvloop, hiredis, max_jobs={SLOTS}, poll_delay={POLL_S} for worker and results"
    bulk = False
    priorities = False
    blocking = False
    lease = "job_timeout + 10 s, 310 s by default"
    _redis: ArqRedis

    def services(self) -> list[list[str]]:
        """Return nothing."""
        return []

    def worker(self) -> list[str]:
        """Return its own command."""
        return [program("arq"), f"{__name__}.WorkerSettings"]

    async def open(self) -> None:
        """Connect."""
        self._redis = await create_pool(WorkerSettings.redis_settings)

    async def close(self) -> None:
        """Disconnect."""
        await self._redis.aclose()

    async def submit(self, number: int) -> Job | None:
        """Submit one."""
        return await self._redis.enqueue_job("noop", payload(number))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many."""
        return await at_once(self.submit, numbers)

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Be never called."""
        raise NotImplementedError

    async def submit_held(self, number: int) -> None:
        """Submit a long one."""
        await self._redis.enqueue_job("held", payload(number))

    async def result(self, handle: Job) -> None:
        """Wait for a result."""
        await handle.result(poll_delay=POLL_S)


peer = Arq()
