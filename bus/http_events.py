"""Following what happens over HTTP: server-sent events, across any number of connections."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final

import httpx
from pydantic_core import from_json

from bus.backoff import Backoff
from bus.http_link import About, HttpLink, Refusal

SILENCE_S: Final = 60.0
"""A stream that is silent for so long is begun anew: the API says each 15 s that it lives."""
_OVER: Final = frozenset({"bye", "dropped"})


@dataclass(frozen=True, slots=True)
class HttpEvent:
    """One event: `kind` is `task`, `agent`, or `gap` (events in between are not kept); `data` its fields."""

    kind: str
    data: Mapping[str, Any]
    id: str | None
    """Where it is: `after` of a later call goes on behind it."""


async def events_of(link: HttpLink, query: Mapping[str, Any], after: str | None) -> AsyncGenerator[HttpEvent, None]:
    """Yield events as they come, for ever; goes on behind the last one when the connection ends."""
    backoff = Backoff(base=0.05, cap=2.0)
    while True:
        try:
            async with aclosing(_connection(link, query, after)) as events:
                async for event in events:
                    backoff.reset()
                    if event.kind in _OVER:
                        break
                    after = event.id or after
                    yield event
        except httpx.TransportError:
            pass  # it is begun anew, as when the stream just ends
        await asyncio.sleep(backoff.next())


async def _connection(link: HttpLink, query: Mapping[str, Any], after: str | None) -> AsyncGenerator[HttpEvent, None]:
    headers = {} if after is None else {"Last-Event-ID": after}
    timeout = httpx.Timeout(10.0, read=SILENCE_S)
    async with link.http.stream("GET", "/events", params=dict(query), headers=headers, timeout=timeout) as answer:
        if not answer.is_success:
            await answer.aread()
            refusal = Refusal.of(answer)
            if refusal.passing:
                await asyncio.sleep(refusal.retry_after or 0.0)
                return
            raise link.error_of(refusal, About(pool=link.pool))
        async for event in _parsed(answer.aiter_lines()):
            yield event


async def _parsed(lines: AsyncIterator[str]) -> AsyncGenerator[HttpEvent, None]:
    """Yield events of a stream of lines, as the WHATWG's "Server-sent events" has them."""
    fields: dict[str, str] = {}
    async for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            continue
        if "data" in fields:
            yield HttpEvent(fields.get("event", "message"), from_json(fields["data"]), fields.get("id"))
        fields = {}


def query_of(**given: str | Iterable[str] | None) -> dict[str, Any]:
    """Return what is asked for as a query has it."""
    return {
        name: [str(value)] if isinstance(value, str) else [str(one) for one in value]
        for name, value in given.items()
        if value
    }
