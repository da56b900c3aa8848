"""Celery: no coroutines, so plain functions in threads; priorities by a list for each."""

import time
from collections.abc import Sequence
from typing import Any

from celery import Celery
from celery.result import AsyncResult

from benchmarks.compare.peer import HELD_S, SLOTS, URL, mark, payload, program

URGENT, NORMAL = 0, 9

app = Celery("benchmark", broker=URL, backend=URL, set_as_current=True)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    task_default_priority=NORMAL,
    broker_transport_options={"priority_steps": [URGENT, NORMAL], "queue_order_strategy": "priority"},
    worker_hijack_root_logger=False,
)


@app.task(name="noop")  # type: ignore[untyped-decorator,unused-ignore]
def noop(task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing."""
    mark(task["n"])
    return {"n": task["n"]}


@app.task(name="held")  # type: ignore[untyped-decorator,unused-ignore]
def held(task: dict[str, Any]) -> None:
    """Do nothing for long."""
    mark(task["n"])
    time.sleep(HELD_S)


class CeleryPeer:
    """See `Peer`."""

    settings = (
        f"hiredis, --pool threads --concurrency {SLOTS}, plain functions, task_acks_late, "
        "worker_prefetch_multiplier=1, without gossip, mingle and heartbeat, two priorities"
    )
    bulk = False
    priorities = True
    blocking = True
    lease = "visibility_timeout, an hour by default"

    def services(self) -> list[list[str]]:
        """Return nothing."""
        return []

    def worker(self) -> list[str]:
        """Return its own command."""
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
        return [program("celery"), "-A", __name__, "worker", "--pool", "threads", "--concurrency", str(SLOTS), *quiet]

    async def open(self) -> None:
        """Connect when first used."""

    async def close(self) -> None:
        """Disconnect."""
        app.close()

    async def submit(self, number: int) -> AsyncResult:
        """Submit one."""
        return noop.apply_async((payload(number),))

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit many, one after the other on one connection."""
        with app.producer_pool.acquire(block=True) as producer:
            return [noop.apply_async((payload(n),), producer=producer) for n in numbers]

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Submit urgent ones."""
        with app.producer_pool.acquire(block=True) as producer:
            for n in numbers:
                noop.apply_async((payload(n),), priority=URGENT, producer=producer)

    async def submit_held(self, number: int) -> None:
        """Submit a long one."""
        held.apply_async((payload(number),))

    async def result(self, handle: AsyncResult) -> None:
        """Wait for a result."""
        handle.get(timeout=60)


peer = CeleryPeer()
