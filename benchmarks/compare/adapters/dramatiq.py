"""Dramatiq: threads; coroutines by its middleware AsyncIO; urgent tasks have a queue and a priority of their own."""

import asyncio
from collections.abc import Sequence
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.compare.peer import HELD_S, SLOTS, URL, mark, payload, program

broker = RedisBroker(url=URL)
broker.add_middleware(Results(backend=RedisBackend(url=URL)))
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True, priority=10)
async def noop(task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    mark(task["n"])
    return {"n": task["n"]}


@dramatiq.actor(store_results=True, priority=0, queue_name="urgent")
async def urgent(task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing, before others."""
    mark(task["n"])
    return {"n": task["n"]}


@dramatiq.actor(time_limit=int(HELD_S * 1000))
async def held(task: dict[str, Any]) -> None:
    """Do nothing for long."""
    mark(task["n"])
    await asyncio.sleep(HELD_S)


class Dramatiq:
    """See `Peer`."""

    settings = f"hiredis, --processes 1 --threads {SLOTS}, results in Redis, a queue and a priority for urgent tasks"
    bulk = False
    priorities = True
    blocking = True
    lease = "heartbeat_timeout, 60 s by default, and maintenance by chance"

    def services(self) -> list[list[str]]:
        """Return nothing."""
        return []

    def worker(self) -> list[str]:
        """Return its own command."""
        return [program("dramatiq"), __name__, "--processes", "1", "--threads", str(SLOTS), "--skip-logging"]

    async def open(self) -> None:
        """Connect when first used."""

    async def close(self) -> None:
        """Disconnect."""
        broker.client.close()

    async def submit(self, number: int) -> Any:  # noqa: ANN401 - its generic message
        """Submit one."""
        return noop.send(payload(number))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many, one after the other."""
        return [noop.send(payload(n)) for n in numbers]

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Submit urgent ones."""
        for n in numbers:
            urgent.send(payload(n))

    async def submit_held(self, number: int) -> None:
        """Submit a long one."""
        held.send(payload(number))

    async def result(self, handle: Any) -> None:  # noqa: ANN401 - likewise
        """Wait for a result."""
        handle.get_result(block=True, timeout=60_000)


peer = Dramatiq()
