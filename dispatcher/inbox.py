"""What the subscribers have read and the scheduler has not yet seen: one queue per topic, taken in bounded portions.

Reading goes on while a pass is committed, but not without bound: a topic whose queue is full keeps its subscriber
waiting. Since each topic has a queue of its own, an URGENT submission never stands behind LOW ones read earlier.

A pass takes at most about `pass_size` items, however they were put into messages, so that it is over long before the
leader's lease is, and what is urgent never waits for a long one. Half of it is shared out equally among the topics that
have something, so that none waits for the end of another's backlog; the other half goes to the first of them.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from dispatcher.core.events import Event

PASS_SIZE: Final = 200


class Piece(NamedTuple):
    """A part of an entry that one pass takes whole; most entries are one piece."""

    entry_id: str
    event: Event | None
    """None: there is nothing to decide."""
    weight: int
    """How many items of work it is, about; at least 1."""
    last: bool = True
    """With it the entry is consumed: not before, for the effect of all its pieces must be stored then."""
    rejected: Sequence[bytes] = ()
    """Bodies for the `rejected` stream."""


@dataclass(slots=True)
class Arrival:
    """What one read of a topic brought, ready for the scheduler."""

    stream: str
    pieces: list[Piece] = field(default_factory=list)

    def add(self, entry_id: str, parts: Iterable[tuple[Event | None, int]], rejected: Sequence[bytes] = ()) -> None:
        """Add an entry that is these events with these weights."""
        waiting = None
        for part in parts:
            if waiting is not None:
                self.pieces.append(Piece(entry_id, *waiting, last=False))
            waiting = part
        event, weight = (None, 1) if waiting is None else waiting
        self.pieces.append(Piece(entry_id, event, weight, rejected=rejected))

    def reject(self, entry_id: str, event: Event | None, rejected: Sequence[bytes]) -> None:
        """Add an entry that is set aside; `event` is what is decided of it all the same."""
        self.pieces.append(Piece(entry_id, event, 1 + sum(map(len, rejected)) // 8192, rejected=rejected))


@dataclass(slots=True)
class Portion:
    """What one pass takes of one topic."""

    stream: str
    pieces: list[Piece] = field(default_factory=list)

    @property
    def consumed(self) -> list[str]:
        """Ids of the entries that end in this portion."""
        return [piece.entry_id for piece in self.pieces if piece.last]


class _Queue:
    __slots__ = ("pieces", "room", "weight")

    def __init__(self) -> None:
        self.pieces: deque[Piece] = deque()
        self.weight = 0
        self.room = asyncio.Event()


class Inbox:
    """Bounded queues of arrivals, in the order of `streams`: the first is taken first."""

    def __init__(self, streams: tuple[str, ...], *, pass_size: int = PASS_SIZE) -> None:
        self._queues = {stream: _Queue() for stream in streams}
        self._pass_size = pass_size
        self._arrived = asyncio.Event()

    async def put(self, arrival: Arrival) -> None:
        """Add an arrival; waits while its topic's queue holds a whole pass."""
        queue = self._queues[arrival.stream]
        while queue.weight >= self._pass_size:
            queue.room.clear()
            await queue.room.wait()
        queue.pieces.extend(arrival.pieces)
        queue.weight += sum(piece.weight for piece in arrival.pieces)
        self._arrived.set()

    def take(self) -> list[Portion]:
        """Take what one pass shall work on, in the order of the topics; empty if nothing has arrived."""
        portions = {stream: Portion(stream) for stream, queue in self._queues.items() if queue.pieces}
        left = self._pass_size
        share = max(1, left // (2 * max(1, len(portions))))
        for stream, portion in portions.items():
            left -= _move(self._queues[stream], portion, share)
        for stream, portion in portions.items():
            if left <= 0:
                break
            left -= _move(self._queues[stream], portion, left)
        if not any(queue.pieces for queue in self._queues.values()):
            self._arrived.clear()
        return list(portions.values())

    def wake(self) -> None:
        """Let `wait` return though nothing arrived."""
        self._arrived.set()

    async def wait(self, timeout_s: float | None) -> bool:
        """Wait until something has arrived or `timeout_s` seconds have passed; return False if that was at once."""
        if self._arrived.is_set() or (timeout_s is not None and timeout_s <= 0):
            return False
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._arrived.wait()
        return True


def _move(queue: _Queue, portion: Portion, budget: int) -> int:
    """Move pieces until `budget` is spent, one at least if there is any; return their weight."""
    spent = 0
    while queue.pieces and spent < budget:
        piece = queue.pieces.popleft()
        spent += piece.weight
        portion.pieces.append(piece)
    queue.weight -= spent
    queue.room.set()
    return spent
