"""A TCP proxy in front of a server: the network as one party sees it, and all that may go wrong with it.

What is asked of the server goes *up*, what it answers comes *down*. A fault is a `Trouble`, and may begin and end at
any time; it holds for every connection, those to come as well. Several may be at work at once, of several parties: each
ends its own and leaves the others alone. The proxy knows nothing of what passes through it, but that an answer follows
a question.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final, Literal, Self
from urllib.parse import urlsplit

_CHUNK: Final = 65_536


@dataclass(eq=False)
class Trouble:
    """What is wrong with the network for a while."""

    cut: bool = False
    """Connections are closed, and new ones refused."""
    up: bool = False
    """What goes up is lost; connections stay open, new ones are made."""
    down: bool = False
    """What comes down is lost; connections stay open, new ones are made."""
    delay: float = 0.0
    """Seconds that everything takes longer, in each direction."""
    cuts_at_reply: int = 0
    """So many answers more are not delivered: their connection is cut in their place, after the deed."""
    drops_replies: int = 0
    """So many answers more are not delivered, and their connections stay open."""


class Link:
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
        self._links: set[Link] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()
        self.url = ""
        self._troubles: list[Trouble] = []
        self.replies_lost = 0
        """How many answers were cut or dropped."""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.close_all()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextmanager
    def trouble(self, trouble: Trouble) -> Iterator[Trouble]:
        """Have a trouble while the block runs, whatever else is wrong meanwhile."""
        self._begin(trouble)
        try:
            yield trouble
        finally:
            self._end(trouble)

    def cut(self) -> None:
        """Close all connections and refuse new ones until `mend`."""
        self._begin(Trouble(cut=True))

    def black_hole(self, *, up: bool = True, down: bool = True) -> None:
        """Lose everything, or what goes one way, without closing anything, until `mend`."""
        self._begin(Trouble(up=up, down=down))

    def mend(self) -> None:
        """End every trouble, whoever began it."""
        for trouble in list(self._troubles):
            self._end(trouble)

    def close_all(self) -> None:
        """Close all connections; new ones are welcome."""
        for link in list(self._links):
            link.close()

    def _begin(self, trouble: Trouble) -> None:
        self._troubles.append(trouble)
        if trouble.cut:
            self.close_all()

    def _end(self, trouble: Trouble) -> None:
        """End one; connections through which something was lost are closed, as a network's would be in time."""
        if trouble in self._troubles:
            self._troubles.remove(trouble)
            if trouble.up or trouble.down:
                self.close_all()

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
        link = Link(writer)
        self._links.add(link)
        try:
            if any(trouble.cut for trouble in self._troubles):
                return
            there, link.up = await asyncio.open_connection(self._host, self._port)
            async with asyncio.TaskGroup() as group:
                group.create_task(self.go_up(link, reader, link.up))
                group.create_task(self._come_down(link, there, writer))
        except* OSError:
            pass  # one side is gone: so is the other
        finally:
            link.close()
            self._links.discard(link)
            self._tasks.discard(task)

    async def go_up(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what is asked; raise OSError at its end."""
        while data := await reader.read(_CHUNK):
            await self._delayed()
            if not any(trouble.up for trouble in self._troubles):
                link.asked = True
                writer.write(data)
                await writer.drain()
        raise ConnectionResetError

    async def _come_down(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(_CHUNK):
            await self._delayed()
            if link.deaf or any(trouble.down for trouble in self._troubles):
                continue
            if link.asked and (fault := self._of_this_reply()) is not None:
                self.replies_lost += 1
                if fault == "cut":
                    raise ConnectionResetError
                link.deaf = True
                continue
            link.asked = False
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError

    async def _delayed(self) -> None:
        if delay := sum(trouble.delay for trouble in self._troubles):
            await asyncio.sleep(delay)

    def _of_this_reply(self) -> Literal["cut", "dropped"] | None:
        """Return what happens to the answer that comes now, which is done thereby."""
        for trouble in self._troubles:
            if trouble.cuts_at_reply:
                trouble.cuts_at_reply -= 1
                return "cut"
            if trouble.drops_replies:
                trouble.drops_replies -= 1
                return "dropped"
        return None
