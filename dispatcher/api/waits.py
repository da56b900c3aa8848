"""Requests that wait: they may take longer than others, are counted, and end when the process stops."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request

from dispatcher.api.boundary import DEADLINE
from dispatcher.api.problems import STOPPING, ProblemError
from dispatcher.api.site import Site

T = TypeVar("T")


def allow(request: Request, seconds: float) -> None:
    """Let a request take so many seconds longer than others may."""
    deadline: asyncio.Timeout | None = request.scope.get(DEADLINE)
    if deadline is not None and (when := deadline.when()) is not None:
        deadline.reschedule(when + seconds)


@asynccontextmanager
async def waiting(site: Site, request: Request, wait: float) -> AsyncIterator[float]:
    """Provide how long a request may wait, as this process allows; raises the problem `busy` if too many do."""
    seconds = min(wait, site.settings.max_wait.total_seconds())
    allow(request, seconds)
    if not seconds:
        yield 0.0
        return
    async with site.kept_open():
        yield seconds


async def unless_stopping(site: Site, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; give it up, by the problem `stopping`, when the process is told to stop."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(site.stopping.wait())
    try:
        await asyncio.wait((working, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ProblemError(STOPPING, "what was asked for is stored: ask another process what came of it")
        return working.result()
    finally:
        for task in (working, stopping):
            task.cancel()
        await asyncio.gather(working, stopping, return_exceptions=True)
