"""The events of one pool for all readers of one API process: one blocked read, however many read along.

Every transition is encoded once, into a ring of bounded size. A reader only has a position: nothing is buffered for it.
Who wants to go on from an earlier event than the ring has reads the stream itself until it has caught up; who
falls behind the ring while following is too slow, and is told so.
"""

import asyncio
import logging
from collections import deque
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import to_json

from bus.backoff import Backoff
from bus.connection import BLOCK_MS, SERVER_ERRORS, Redis
from bus.messages import AgentTransition, EventBatch, Transition
from bus.names import DATA_FIELD, PoolNames

LOG = logging.getLogger("callboard.api")

RING_EVENTS: Final = 20_000
RING_BYTES: Final = 8 * 1024 * 1024
READ_COUNT: Final = 100
BEGIN_S: Final = 3.0
"""How long the server may take to say where its events are."""

_DIGITS: Final = 19
_DATA: Final = DATA_FIELD.encode()


class EventId(NamedTuple):
    """Where an event is: its entry in the stream, and its place in that entry. Ordered as events are."""

    ms: int
    seq: int
    place: int

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Read what `str` wrote. Raises `ValueError` for anything else."""
        entry, _, place = text.partition("/")
        ms, _, seq = entry.partition("-")
        if not all(part.isascii() and part.isdecimal() and len(part) <= _DIGITS for part in (ms, seq, place)):
            raise ValueError("an event's id is such as 1795560710652-0/0")
        return cls(int(ms), int(seq), int(place))

    @property
    def entry(self) -> str:
        """The id of the entry."""
        return f"{self.ms}-{self.seq}"

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}/{self.place}"


@dataclass(frozen=True, slots=True)
class Event:
    """One transition, ready to be sent."""

    id: EventId
    kind: str
    """`task` or `agent`."""
    task_id: str | None
    agent_id: str | None
    status: str
    capability: str | None
    """What a task asks for; None of an agent's event."""
    data: bytes


class Behind(Exception):  # noqa: N818 - not an error: it is what a reader is told
    """Events behind a position are not in the ring any more."""


def events_of(entry_id: bytes, fields: dict[bytes, bytes]) -> list[Event]:
    """Return the events of one entry; none of an entry that cannot be understood."""
    try:
        batch = EventBatch.model_validate_json(fields[_DATA])
    except (ValidationError, KeyError):
        LOG.warning("event entry %s cannot be understood", entry_id.decode())
        return []
    ms, _, seq = entry_id.decode().partition("-")
    told: list[Transition | AgentTransition] = [*batch.tasks, *batch.agents]
    return [_event(EventId(int(ms), int(seq), place), one, batch) for place, one in enumerate(told)]


def _event(event_id: EventId, one: Transition | AgentTransition, batch: EventBatch) -> Event:
    fields = {"at": batch.at, "epoch": batch.epoch, **one.model_dump(mode="json", exclude_none=True)}
    data = to_json(fields, inf_nan_mode="null")
    if isinstance(one, Transition):
        return Event(event_id, "task", one.task_id, one.agent_id, str(one.status), one.capability, data)
    return Event(event_id, "agent", None, one.agent_id, one.status, None, data)


class EventFeed:
    """The shared reader. Its loop runs from the first `start` to `close`."""

    def __init__(self, redis: Redis, names: PoolNames) -> None:
        self._redis = redis
        self._names = names
        self._ring: deque[Event] = deque()
        self._bytes = 0
        self._floor: EventId | None = None
        """The last event that is not in the ring; all later ones are. None: the loop has not begun to read."""
        self._news = asyncio.Event()
        self.version = 0
        """Grows with all that comes, and when everybody is woken."""
        self._began = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    async def start(self) -> EventId:
        """Begin to read if nobody has yet; return the position behind the latest event.

        Raises `ConnectionError` when the server does not answer soon.
        """
        if self._loop is None:
            self._loop = asyncio.create_task(self._keep(), name=f"events of {self._names.pool}")
        try:
            async with asyncio.timeout(BEGIN_S):
                await self._began.wait()
        except TimeoutError:
            raise ConnectionError("the server does not say where its events are") from None
        return self.tip

    async def close(self) -> None:
        """Stop reading."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    @property
    def floor(self) -> EventId:
        """The position from which on all is in the ring."""
        assert self._floor is not None, "started"  # noqa: S101 - `start` waits for it
        return self._floor

    @property
    def tip(self) -> EventId:
        """The position behind the latest event."""
        return self._ring[-1].id if self._ring else self.floor

    def after(self, position: EventId) -> list[Event]:
        """Return what follows `position`, at most `READ_COUNT` events. Raises `Behind` if that is not all here."""
        if self._floor is None or position < self._floor:
            raise Behind
        ring = self._ring
        if not ring or ring[-1].id <= position:
            return []
        low, high = 0, len(ring)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if ring[middle].id <= position else (low, middle)
        return [ring[n] for n in range(low, min(low + READ_COUNT, len(ring)))]

    async def news(self, seen: int, timeout: float) -> bool:
        """Return True when `version` is no longer `seen`, False after `timeout` seconds."""
        if self.version != seen:
            return True
        try:
            async with asyncio.timeout(timeout):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def wake(self) -> None:
        """Have everybody who waits for news look around."""
        self.version += 1
        self._news.set()
        self._news = asyncio.Event()

    async def stored(self, position: EventId) -> list[Event]:
        """Read from the stream itself what follows `position`: whole entries, at most a hundred, [] at its end."""
        first = f"{position.ms}-{position.seq}"
        while True:
            rows: Any = await self._redis.xrange(self._names.events, min=first, count=READ_COUNT)
            found = [event for entry_id, fields in rows for event in events_of(entry_id, fields)]
            later = [event for event in found if event.id > position]
            if later or len(rows) < READ_COUNT:
                return later
            first = f"({rows[-1][0].decode()}"

    async def gap(self, position: EventId) -> EventId | None:
        """Return where the stream begins if events behind `position` may be lost, None if none can be."""
        rows: Any = await self._redis.xrange(self._names.events, count=1)
        last: Any = await self._redis.xrevrange(self._names.events, count=1)
        if not rows:
            return EventId(0, 0, 0)
        first, latest = _position(rows[0][0], 0), _position(last[0][0], 0)
        known = (first.ms, first.seq) <= (position.ms, position.seq) <= (latest.ms, latest.seq)
        return None if known else first

    # --- reading

    async def _keep(self) -> None:
        backoff = Backoff(base=0.05, cap=1.0)
        said = 0.0
        while True:
            try:
                if self._floor is None:
                    await self._begin()
                await self._read()
            except SERVER_ERRORS as error:
                if monotonic() - said > 60:  # noqa: PLR2004 - once a minute is enough
                    said = monotonic()
                    LOG.warning("events of pool %s cannot be read, trying on: %s", self._names.pool, error)
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()

    async def _begin(self) -> None:
        last: Any = await self._redis.xrevrange(self._names.events, count=1)
        self._floor = _position(last[0][0], 1 << 30) if last else EventId(0, 0, 0)
        self._began.set()

    async def _read(self) -> None:
        reply: Any = await self._redis.xread({self._names.events: self.tip.entry}, count=READ_COUNT, block=BLOCK_MS)
        for _, entries in reply or ():
            for entry_id, fields in entries:
                self._take(entry_id, events_of(entry_id, fields))
        if reply:
            self.wake()

    def _take(self, entry_id: bytes, events: list[Event]) -> None:
        ring = self._ring
        ring.extend(events)
        self._bytes += sum(len(event.data) for event in events)
        while ring and (len(ring) > RING_EVENTS or self._bytes > RING_BYTES):
            gone = ring.popleft()
            self._bytes -= len(gone.data)
            self._floor = gone.id
        if not ring:
            self._floor = _position(entry_id, 1 << 30)


def _position(entry_id: bytes, place: int) -> EventId:
    ms, _, seq = entry_id.decode().partition("-")
    return EventId(int(ms), int(seq), place)
