"""The HTTP/1.1 connections of the API: uvicorn's over httptools, with bounds on what comes before a request is one.

httptools hands out a head when it is complete, however long it is and however long it takes. Nobody has shown a token
by then, so a few connections could have all of the memory.
"""

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD: Final = 64 * 1024
"""Bytes that the head of a request may have."""
HEAD_S: Final = 15.0
"""How long a connection may take until the head of its first request is complete."""


class BoundedHttp(HttpToolsProtocol):
    """Closes a connection whose head is too long, or that says nothing."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._head = 0
        """Bytes of the head that is not complete."""
        self._waiting: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect a first request."""
        super().connection_made(transport)
        self._waiting = self.loop.call_later(HEAD_S, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        """Expect nothing more."""
        self._begun()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take some bytes; what is beyond a complete head is a body, which has bounds of its own."""
        self._head += len(data)
        super().data_received(data)
        if self._head > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._begun()
        self._head = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request: what follows is the head of another."""
        self._head = 0
        super().on_message_complete()

    def _begun(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None
