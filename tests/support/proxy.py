"""A TCP proxy in front of a server: the network as one party sees it, and all that may go wrong with it.

What is asked of the server goes *up*, what it answers comes *down*. Each fault is a field that may be set at any time
and holds for every connection, those to come as well; `cut` and `cut_at_reply` are over with their deed. The proxy
knows nothing of what passes through it, but that an answer follows a question.
"""

import asyncio
from contextlib import suppress
from typing import Final, Self
from urllib.parse import urlsplit

_CHUNK: Final = 65_536


class _Link:
    """One connection through the proxy: a task for each direction."""

    def __init__(self, down: asyncio.StreamWriter) -> None:
        self.down = down
        self.up: asyncio.StreamWriter | None = None
        self.asked = False
        """Something went up since the last answer came down."""
        self.deaf = False
        """An answer was lost: TCP brings nothing that comes behind it."""

    def close(self) -> None:
        for writer in (self.down, self.up):
            if writer is not None:
                # Not `close`: a side that does not read any more would keep what is not sent yet, and us, for ever.
                writer.transport.abort()


class Proxy:
    """Listens on a port of its own, at `url`, while the block runs."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._links: set[_Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.url = ""
        self.delay = 0.0
        """Seconds that everything takes longer, in each direction."""
        self.is_cut = False
        """New connections are refused."""
        self.swallow_up = False
        """What goes up is lost; connections stay open."""
        self.swallow_down = False
        """What comes down is lost; connections stay open."""
        self.cuts_at_reply = 0
        """So many answers more are not delivered: their connection is cut in their place, after the deed."""
        self.drops_replies = 0
        """So many answers more are not delivered, and their connections stay open."""
        self.replies_lost = 0
        """How many answers were lost by either."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Close all connections and refuse new ones until `mend`."""
        self.is_cut = True
        self.close_all()

    def close_all(self) -> None:
        """Close all connections; new ones are welcome."""
        for link in list(self._links):
            link.close()

    def black_hole(self, *, up: bool = True, down: bool = True) -> None:
        """Lose everything, or what goes one way, without closing anything. New ones are made and hear nothing."""
        self.swallow_up, self.swallow_down = up, down

    def mend(self) -> None:
        """End every fault. Connections through which something was lost are closed, as a network's would be in time."""
        if self.swallow_up or self.swallow_down:
            self.close_all()
        self.is_cut = self.swallow_up = self.swallow_down = False
        self.delay = 0.0
        self.cuts_at_reply = self.drops_replies = 0

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._links)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.CancelledError):  # the proxy closes: asyncio would log it as an error
            await self._join(reader, writer)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        link = _Link(writer)
        self._links.add(link)
        try:
            if self.is_cut:
                return
            there, link.up = await asyncio.open_connection(self._host, self._port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._go_up(link, reader, link.up))
                group.create_task(self._come_down(link, there, writer))
        except* OSError:
            pass  # one side is gone: so is the other
        finally:
            link.close()
            self._links.discard(link)
            self._tasks.discard(task)

    async def _go_up(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            if not self.swallow_up:
                link.asked = True
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError

    async def _come_down(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            if self.delay:
                await asyncio.sleep(self.delay)
            if self.swallow_down or link.deaf:
                continue
            if link.asked and self.cuts_at_reply:
                self.cuts_at_reply -= 1
                self.replies_lost += 1
                raise ConnectionResetError
            if link.asked and self.drops_replies:
                self.drops_replies -= 1
                self.replies_lost += 1
                link.deaf = True
                continue
            link.asked = False
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
