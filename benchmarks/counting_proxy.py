"""Stands between one party and the server, and counts what that party asks: requests by name, and bytes."""

import asyncio
from collections import Counter

from tests.support.proxy import Link, Proxy


class CountingProxy(Proxy):
    """Listens on a port of its own, at `url`, while the block runs. Of the troubles of a `Proxy` it has none."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.requests: Counter[str] = Counter()
        """How often each command was asked for, by its name."""
        self.sent: Counter[str] = Counter()
        """How many bytes those requests had."""

    async def go_up(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on request by request."""
        try:
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
                link.asked = True
                writer.write(request)
        except asyncio.IncompleteReadError as gone:
            raise ConnectionResetError from gone
