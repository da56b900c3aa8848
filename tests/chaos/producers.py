"""Submitters: each has a client of its own, and writes down what it asked for, was receipted, and got.

Each keeps to a rate of tasks, on the average: what an outage, or a rest that it draws now and then, has kept it from
comes in a burst afterwards.
"""

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Final

from bus import Client, TaskCreate, TaskHandle, TaskPriority
from bus.errors import BusUnavailableError, CallboardError
from bus.retries import RetryPolicy
from tests.chaos.agent import Job
from tests.chaos.journal import Journal

MANY: Final = 20
"""Tasks that are submitted together, so `OFTEN`."""
OFTEN: Final = 0.25
PATIENCE_S: Final = 0.5
RESTS: Final = 0.005
"""How often one rests before it goes on submitting."""
REST_S: Final = 6.0
"""For how long at most."""
ATTEMPTS: Final = 60
"""Of an ordinary task: more than the faults of a run can take away."""


@dataclass(frozen=True)
class Order:
    """One job with what is asked of Callboard for it."""

    job: Job
    key: str | None
    once: bool
    capability: str
    priority: TaskPriority
    cancel_after: float | None

    def task(self) -> TaskCreate:
        """Return it as it is submitted."""
        return TaskCreate(
            capability=self.capability,
            payload=self.job,
            key=self.key,
            priority=self.priority,
            max_attempts=1 if self.once else ATTEMPTS,
            retry=RetryPolicy(base=0.05, cap=0.2),
        )

    def told(self) -> dict[str, Any]:
        """Return what is written down of it."""
        return {
            "n": self.job.n,
            "key": self.key,
            "once": self.once,
            "fails": self.job.fails + self.job.grows,
            "exclusive": self.capability == "chaos.alone",
            "cancel": self.cancel_after is not None,
        }


def draw(random: Random, n: int, name: str) -> Order:
    """Draw the next job of the submitter `name`."""
    kind = random.random()
    ms = random.choice((5, 20, 80, 200)) if random.random() < 0.97 else random.randint(1_500, 5_000)
    job = Job(
        n=n,
        ms=ms,
        fails=random.choice((1, 2)) if kind < 0.05 else 0,
        dies=1 if 0.05 <= kind < 0.0507 else 0,
        killed=1 if 0.051 <= kind < 0.0517 else 0,
        grows=1 if 0.052 <= kind < 0.053 else 0,
        blocks=random.randint(200, 4_500) if 0.06 <= kind < 0.0615 else 0,
    )
    return Order(
        job=job,
        key=f"{name}-{n}" if random.random() < 0.3 else None,
        once=0.1 <= kind < 0.2,
        capability="chaos.alone" if 0.2 <= kind < 0.3 else "chaos.work",
        priority=random.choice(list(TaskPriority)),
        cancel_after=random.random() * 0.4 if 0.3 <= kind < 0.33 else None,
    )


class Producer:
    """Submits until told to stop, `rate` tasks a second, with at most `ahead` of which it awaits the outcome."""

    def __init__(
        self, name: str, url: str, pool: str, folder: Path, random: Random, *, rate: float, ahead: int
    ) -> None:
        self._name = name
        self._url = url
        self._pool = pool
        self._random = random
        self._journal = Journal(folder / f"producer-{name}.jsonl")
        self._rate = rate
        self._room = asyncio.Semaphore(ahead)
        self._waiting: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self.stopping = asyncio.Event()
        """Submit nothing more."""
        self.submitted = 0
        self.ended = 0

    @property
    def awaited(self) -> int:
        """How many outcomes are awaited."""
        return len(self._waiting)

    async def run(self, give_up: asyncio.Event) -> None:
        """Submit until `stopping` and await all outcomes, until `give_up`."""
        client = Client(self._url, pool=self._pool)
        try:
            began = time.monotonic()
            while await self._goes_on(began + self.submitted / self._rate):
                await self._submit(client)
            leaving = asyncio.create_task(give_up.wait())
            while self._waiting and not leaving.done():
                await asyncio.wait({leaving, *self._waiting}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
        finally:
            for task in list(self._waiting):
                task.cancel()
            await asyncio.gather(*self._waiting, return_exceptions=True)
            await client.close()

    async def _goes_on(self, due: float) -> bool:
        """Wait until the next submission is due; tell whether there shall be one."""
        if self._random.random() < RESTS:
            due = max(due, time.monotonic() + REST_S * self._random.random())
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due - time.monotonic())):
                await self.stopping.wait()
        return not self.stopping.is_set()

    async def _submit(self, client: Client) -> None:
        number = MANY if self._random.random() < OFTEN else 1
        orders = [draw(self._random, next(self._numbers), self._name) for _ in range(number)]
        for _ in orders:
            await self._room.acquire()
        for order in orders:
            self._journal.write("asked", **order.told())
        while True:
            try:
                handles = await self._sent(client, orders)
            except BusUnavailableError:
                # Whether it was stored is not known: only what has a key may be submitted again.
                for order in [order for order in orders if order.key is None]:
                    self._journal.write("unknown", n=order.job.n)
                    self._room.release()
                orders = [order for order in orders if order.key is not None]
                if not orders:
                    return
                await asyncio.sleep(PATIENCE_S)
            else:
                break
        for order, handle in zip(orders, handles, strict=True):
            self._journal.write("receipt", n=order.job.n, task=handle.id)
            self.submitted += 1
            waiting = asyncio.create_task(self._follow(order, handle))
            self._waiting.add(waiting)
            waiting.add_done_callback(self._waiting.discard)

    async def _sent(self, client: Client, orders: list[Order]) -> list[TaskHandle[Any]]:
        if len(orders) > 1:
            return await client.submit_many(order.task() for order in orders)
        task = orders[0].task()
        options = {name: getattr(task, name) for name in task.model_fields_set - {"capability", "payload"}}
        handle = await client.submit(task.capability, task.payload, **options)
        if task.key is not None and self._random.random() < 0.5:
            again = await client.submit(task.capability, task.payload, **options)
            self._journal.write("receipt", n=orders[0].job.n, task=again.id)
        return [handle]

    async def _follow(self, order: Order, handle: TaskHandle[Any]) -> None:
        try:
            handle.listen()
            if order.cancel_after is not None:
                await asyncio.sleep(order.cancel_after)
                with suppress(BusUnavailableError):
                    await handle.cancel("changed my mind")
            outcome = await asyncio.shield(handle.waiter.outcome)
            self._journal.write("outcome", n=order.job.n, **outcome.model_dump(mode="json"))
            self.ended += 1
        except CallboardError as error:
            self._journal.write("lost", n=order.job.n, task=handle.id, error=repr(error))
        finally:
            self._room.release()
