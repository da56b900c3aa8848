"""taskiq with taskiq-redis: a stream with acknowledgements; no priorities; no way to submit many in one step."""

import asyncio
from collections.abc import Sequence
from typing import Any

from taskiq import AsyncTaskiqTask
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.compare.peer import HELD_S, SLOTS, URL, at_once, mark, payload, program

POLL_S = 0.005

broker = RedisStreamBroker(URL, xread_count=SLOTS).with_result_backend(RedisAsyncResultBackend(URL, result_ex_time=600))


@broker.task
async def noop(task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    mark(task["n"])
    return {"n": task["n"]}


@broker.task
async def held(task: dict[str, Any]) -> None:
    """Do nothing for long."""
    mark(task["n"])
    await asyncio.sleep(HELD_S)


class Taskiq:
    """See `Peer`."""

    settings = (
        f"uvloop, hiredis, RedisStreamBroker with xread_count={SLOTS}, --workers 1 --max-async-tasks {SLOTS} "
        f"--max-prefetch {SLOTS}, check_interval={POLL_S}"
    )
    bulk = False
    priorities = False
    blocking = False
    lease = "idle_timeout, 600 s by default"

    def services(self) -> list[list[str]]:
        """Return nothing."""
        return []

    def worker(self) -> list[str]:
        """Return its own command."""
        options = ["--workers", "1", "--max-async-tasks", str(SLOTS), "--max-prefetch", str(SLOTS)]
        return [program("taskiq"), "worker", f"{__name__}:broker", *options, "--log-level", "ERROR"]

    async def open(self) -> None:
        """Connect."""
        await broker.startup()

    async def close(self) -> None:
        """Disconnect."""
        await broker.shutdown()

    async def submit(self, number: int) -> AsyncTaskiqTask[Any]:
        """Submit one."""
        return await noop.kiq(payload(number))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many."""
        return await at_once(self.submit, numbers)

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Be never called."""
        raise NotImplementedError

    async def submit_held(self, number: int) -> None:
        """Submit a long one."""
        await held.kiq(payload(number))

    async def result(self, handle: AsyncTaskiqTask[Any]) -> None:
        """Wait for a result."""
        await handle.wait_result(check_interval=POLL_S)


peer = Taskiq()
