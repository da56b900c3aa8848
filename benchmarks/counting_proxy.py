"""Stands between one party and the server, and counts what that party asks: requests by name, and bytes."""

import asyncio
from collections import Counter
from typing import Final, Self
from urllib.parse import urlsplit

_CHUNK: Final = 65_536


class CountingProxy:
    """Listens on a port of its own, at `url`, while the block runs."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 6379
        self._serving: set[asyncio.Task[None]] = set()
        self.requests: Counter[str] = Counter()
        """How often each command was asked for, by its name."""
        self.sent: Counter[str] = Counter()
        """How many bytes those requests had."""
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"redis://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/0"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        me = asyncio.current_task()
        assert me is not None  # noqa: S101 - the server has made one
        self._serving.add(me)
        up_reader, up = await asyncio.open_connection(self._host, self._port)
        down = asyncio.create_task(_copy(up_reader, writer))
        try:
            await self._pass_on(reader, up)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # it has gone
        finally:
            down.cancel()
            up.transport.abort()
            writer.transport.abort()
            self._serving.discard(me)

    async def _pass_on(self, reader: asyncio.StreamReader, up: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n")  # *<number of parts>
            parts, name = [head], ""
            for which in range(int(head[1:])):
                size = await reader.readuntil(b"\r\n")
                word = await reader.readexactly(int(size[1:]) + 2)
                name = word[:-2].decode().lower() if which == 0 else name
                parts += [size, word]
            request = b"".join(parts)
            self.requests[name] += 1
            self.sent[name] += len(request)
            up.write(request)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_CHUNK):
        writer.write(data)
