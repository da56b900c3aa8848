"""Wakes requests that wait for an entry of an agent's stream: a few blocked reads, however many agents wait.

A read that blocks on one stream per request would take a connection each; one read of all streams would be made anew
for each entry that any of them gets, which costs the server as much as there are streams. So the streams are spread
over a few readers, each with one connection. A reader that is blocked learns of another stream to look at by an entry
in a stream of its own, which it reads along; a stream that is read along already costs nothing more.

Nothing is lost between looking and waiting: a waiter names the last entry that it has looked at, and the read begins
behind that. Waking up is only a hint: the waiter looks for itself, and a lost one delays it by `BLOCK_MS` at most.
"""

import asyncio
import logging
from typing import Any, Final

from bus.backoff import Backoff
from bus.connection import BLOCK_MS, SERVER_ERRORS, Redis
from bus.names import PoolNames

LOG = logging.getLogger("callboard.api")

READERS: Final = 16
_POKE_TTL_MS: Final = 60_000

EntryId = tuple[int, int]
START: Final[EntryId] = (0, 0)


def entry_id(text: str | bytes) -> EntryId:
    """Read the id of an entry. Raises `ValueError`."""
    ms, _, seq = (text.decode() if isinstance(text, bytes) else text).partition("-")
    return int(ms), int(seq)


def entry_text(entry: EntryId) -> str:
    """Write the id of an entry."""
    return f"{entry[0]}-{entry[1]}"


class Arrivals:
    """The readers of one pool; each begins with its first waiter, and `close` ends them."""

    def __init__(self, redis: Redis, names: PoolNames, client_id: str) -> None:
        self._readers = [_Reader(redis, names.replies(f"{client_id}-{number}")) for number in range(READERS)]

    async def wait(self, stream: str, after: EntryId, timeout: float) -> None:
        """Return when `stream` may have an entry behind `after`, or `timeout` seconds later.

        Raises what the server says if it cannot be told of the stream.
        """
        reader = next((one for one in self._readers if one.watches(stream)), None)
        await (reader or min(self._readers, key=len)).wait(stream, after, timeout)

    def wake(self) -> None:
        """Have everybody who waits look around."""
        for reader in self._readers:
            reader.wake_all()

    async def close(self) -> None:
        """End the readers."""
        for reader in self._readers:
            await reader.close()


class _Reader:
    def __init__(self, redis: Redis, poke: str) -> None:
        self._redis = redis
        self._poke = poke
        self._poke_cursor = START
        self._waiters: dict[str, dict[asyncio.Future[None], EntryId]] = {}
        self._wanted = asyncio.Event()
        self._reading: frozenset[str] = frozenset()
        """What the present read looks at; empty while there is none."""
        self._poked = False
        self._loop: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._waiters)

    def watches(self, stream: str) -> bool:
        return stream in self._waiters

    async def wait(self, stream: str, after: EntryId, timeout: float) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(stream, {})[waiter] = after
        try:
            if self._loop is None:
                self._loop = asyncio.create_task(self._keep(), name="arrivals")
            self._wanted.set()
            async with asyncio.timeout(timeout):
                if self._reading and stream not in self._reading and not self._poked:
                    self._poked = True
                    await self._redis.xadd(self._poke, {b"": b""}, maxlen=1, approximate=False)
                await waiter
        except TimeoutError:
            return
        finally:
            others = self._waiters.get(stream, {})
            others.pop(waiter, None)
            if not others:
                self._waiters.pop(stream, None)

    def wake_all(self) -> None:
        for stream in list(self._waiters):
            self._wake(stream)

    async def close(self) -> None:
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)

    def _wake(self, stream: str) -> None:
        for waiter in self._waiters.get(stream, ()):
            if not waiter.done():
                waiter.set_result(None)

    async def _keep(self) -> None:
        backoff = Backoff(base=0.05, cap=1.0)
        while True:
            try:
                await self._wanted.wait()
                await self._read()
            except SERVER_ERRORS as error:
                LOG.info("agents' streams cannot be read, whoever waits is told: %s", error)
                self._poke_cursor = START
                self.wake_all()
                await asyncio.sleep(backoff.next())
            else:
                backoff.reset()

    async def _read(self) -> None:
        self._poked = False
        reading: dict[Any, Any] = {}
        for stream, waiters in self._waiters.items():
            waiting = [after for waiter, after in waiters.items() if not waiter.done()]
            if waiting:
                reading[stream] = entry_text(min(waiting))
        if not reading:
            self._wanted.clear()
            return
        reading[self._poke] = entry_text(self._poke_cursor)
        self._reading = frozenset(reading)
        try:
            reply: Any = await self._redis.xread(reading, count=1, block=BLOCK_MS)
        finally:
            self._reading = frozenset()
        for raw, entries in reply or ():
            stream = raw.decode()
            if stream == self._poke:
                self._poke_cursor = entry_id(entries[-1][0])
                await self._redis.pexpire(self._poke, _POKE_TTL_MS)
            else:
                self._wake(stream)
