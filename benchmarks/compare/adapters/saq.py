"""SAQ: lists and JSON; priorities only on Postgres; no way to submit many in one step."""

import asyncio
from collections.abc import Sequence
from typing import Any

import uvloop
from saq import Job, Queue

from benchmarks.compare.peer import SLOTS, URL, at_once, mark, payload, program

HEARTBEAT_S = 5
POLL_S = 0.005

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())  # the worker makes its loop by the policy

queue = Queue.from_url(URL, max_concurrent_ops=SLOTS)


async def noop(_: dict[str, Any], *, n: int, pad: str) -> dict[str, Any]:  # noqa: ARG001 - the payload has it
    """Do nothing."""
    mark(n)
    return {"n": n}


async def held(context: dict[str, Any], *, n: int, pad: str) -> None:  # noqa: ARG001 - likewise
    """Do nothing for long, and say so."""
    mark(n)
    while True:
        await asyncio.sleep(1)
        await context["job"].update()


settings = {"queue": queue, "functions": [noop, held], "concurrency": SLOTS}


class Saq:
    """See `Peer`."""

    settings = f"uvloop, hiredis, concurrency={SLOTS}, max_concurrent_ops={SLOTS}, results asked for every {POLL_S} s"
    bulk = False
    priorities = False
    blocking = False
    lease = f"the job's heartbeat (off by default, here {HEARTBEAT_S} s) and the sweep, every 60 s by default"

    def services(self) -> list[list[str]]:
        """Return nothing."""
        return []

    def worker(self) -> list[str]:
        """Return its own command."""
        return [program("saq"), f"{__name__}.settings", "--quiet"]

    async def open(self) -> None:
        """Connect."""
        await queue.connect()

    async def close(self) -> None:
        """Disconnect."""
        await queue.disconnect()

    async def submit(self, number: int) -> Job | None:
        """Submit one."""
        return await queue.enqueue("noop", **payload(number))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many."""
        return await at_once(self.submit, numbers)

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Be never called."""
        raise NotImplementedError

    async def submit_held(self, number: int) -> None:
        """Submit a long one that is tried again."""
        await queue.enqueue(Job("held", kwargs=payload(number), timeout=0, heartbeat=HEARTBEAT_S, retries=3))

    async def result(self, handle: Job) -> None:
        """Wait for a result."""
        # `refresh(until_complete=...)` waits for ever when the end comes before it has subscribed.
        await handle.refresh()
        while not handle.completed:
            await asyncio.sleep(POLL_S)
            await handle.refresh()


peer = Saq()
