"""Server-sent events: how they are written, and a response that ends when the process stops, or its reader is too slow.

An open stream would keep the server from stopping, so each looks at the stop event as often as for news. What is sent
waits for the reader; one that takes nothing for a while is cut off, and nothing is kept for it meanwhile.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from dispatcher.api.boundary import DEADLINE
from dispatcher.api.site import Site

SEND_S: Final = 20.0
"""How long one piece may wait for its reader."""
HEARTBEAT: Final = b": alive\n\n"


def message(event: str, data: object, event_id: str | None = None) -> bytes:
    """Return one event; `data` is JSON already if it is bytes."""
    body = data if isinstance(data, bytes) else to_json(data, inf_nan_mode="null")
    head = f"event: {event}\n" if event_id is None else f"event: {event}\nid: {event_id}\n"
    return head.encode() + b"data: " + body + b"\n\n"


class EventStream(Response):
    """A stream of pieces, each of one or more whole events."""

    media_type = "text/event-stream"

    def __init__(self, site: Site, pieces: AsyncGenerator[bytes, None], status_code: int = 200) -> None:
        super().__init__(status_code=status_code, headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._site = site
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the stream ends, its reader leaves or takes too long, or the process stops."""
        deadline = scope.get(DEADLINE)
        if deadline is not None:
            deadline.reschedule(None)
        async with self._site.kept_open():
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            sending = asyncio.create_task(self._send(send))
            leaving = asyncio.create_task(_left(receive))
            try:
                await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, leaving):
                    task.cancel()
                await asyncio.gather(sending, leaving, return_exceptions=True)
            if not sending.cancelled() and (error := sending.exception()) is not None:
                raise error

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                try:
                    async with asyncio.timeout(SEND_S):
                        await send({"type": "http.response.body", "body": piece, "more_body": True})
                except TimeoutError:
                    self._site.observer.dropped()
                    return
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
