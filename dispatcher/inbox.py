"""What the subscribers have read and the scheduler has not yet seen: one queue per topic, taken most urgent first.

Reading goes on while a pass is committed, but not without bound: a topic whose queue is full keeps its subscriber
waiting. Since each topic has a queue of its own, an URGENT submission never stands behind LOW ones read earlier.
"""

import asyncio
from collections import deque
from dataclasses import dataclass, field

from dispatcher.core.events import Event


@dataclass(slots=True)
class Arrival:
    """What one read of a topic brought, ready for the scheduler."""

    stream: str
    ids: list[str]
    """All entries that may be consumed once the events' effects are stored."""
    events: list[Event]
    rejected: list[bytes] = field(default_factory=list)


class Inbox:
    """Bounded queues of arrivals, in the order of `streams`: the first is taken first."""

    def __init__(self, streams: tuple[str, ...], *, arrivals_per_topic: int = 2, pass_size: int = 500) -> None:
        self._queues: dict[str, deque[Arrival]] = {stream: deque() for stream in streams}
        self._bound = arrivals_per_topic
        self._pass_size = pass_size
        self._arrived = asyncio.Event()
        self._room = {stream: asyncio.Event() for stream in streams}

    async def put(self, arrival: Arrival) -> None:
        """Add an arrival; waits while its topic's queue is full."""
        queue = self._queues[arrival.stream]
        room = self._room[arrival.stream]
        while len(queue) >= self._bound:
            room.clear()
            await room.wait()
        queue.append(arrival)
        self._arrived.set()

    def take(self) -> list[Arrival]:
        """Take what one pass shall work on; empty if nothing has arrived."""
        taken: list[Arrival] = []
        size = 0
        for stream, queue in self._queues.items():
            while queue and size < self._pass_size:
                arrival = queue.popleft()
                size += len(arrival.events)
                taken.append(arrival)
            self._room[stream].set()
            if size >= self._pass_size:
                break
        if not any(self._queues.values()):
            self._arrived.clear()
        return taken

    def wake(self) -> None:
        """Let `wait` return though nothing arrived."""
        self._arrived.set()

    async def wait(self, timeout_s: float | None) -> None:
        """Wait until something has arrived or `timeout_s` seconds have passed."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        except TimeoutError:
            return
