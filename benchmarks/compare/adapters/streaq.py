"""streaQ: streams, pickle, priorities, and pipelines of submissions."""

import asyncio
from collections.abc import Sequence
from typing import Any

from streaq import Worker

from benchmarks.compare.peer import HELD_S, SLOTS, URL, mark, payload, program

CHUNK = 1000

worker: Worker[None] = Worker(
    redis_url=URL,
    redis_kwargs={"max_connections": 10 * SLOTS},  # each result that is waited for takes one
    concurrency=SLOTS,
    priorities=["normal", "urgent"],
    anyio_kwargs={"use_uvloop": True},
)


@worker.task(silent=True)
async def noop(task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    mark(task["n"])
    return {"n": task["n"]}


@worker.task(silent=True)
async def held(task: dict[str, Any]) -> None:
    """Do nothing for long."""
    mark(task["n"])
    await asyncio.sleep(HELD_S)


class Streaq:
    """See `Peer`."""

    settings = f"uvloop, concurrency={SLOTS}, max_connections={10 * SLOTS}, tasks are silent, two priorities"
    bulk = True
    priorities = True
    blocking = False
    lease = "idle_timeout, 60 s by default"

    def services(self) -> list[list[str]]:
        """Return nothing."""
        return []

    def worker(self) -> list[str]:
        """Return its own command."""
        return [program("streaq"), "run", f"{__name__}:worker"]

    async def open(self) -> None:
        """Connect."""
        await worker.__aenter__()

    async def close(self) -> None:
        """Disconnect."""
        await worker.__aexit__(None, None, None)

    async def submit(self, number: int) -> Any:  # noqa: ANN401 - its generic task
        """Submit one."""
        return await noop.enqueue(payload(number))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many."""
        made = [noop.enqueue(payload(n)) for n in numbers]
        for first in range(0, len(made), CHUNK):
            await worker.enqueue_many(made[first : first + CHUNK])
        return made

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Submit urgent ones."""
        await worker.enqueue_many([noop.enqueue(payload(n)).start(priority="urgent") for n in numbers])

    async def submit_held(self, number: int) -> None:
        """Submit a long one."""
        await held.enqueue(payload(number))

    async def result(self, handle: Any) -> None:  # noqa: ANN401 - likewise
        """Wait for a result."""
        await handle.result(timeout=60)


peer = Streaq()
