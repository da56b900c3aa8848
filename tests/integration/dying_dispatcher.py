"""A dispatcher that kills or stops its own process at a given step: the program of `test_killed_at_every_step`.

No setting and no variable of the environment leads here: the functions of the dispatcher are wrapped, in this process
only, before it runs.
"""

import asyncio
import inspect
import os
import signal
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from bus.in_flight import Flight
from dispatcher.core.scheduler import Scheduler
from dispatcher.intake import Intake
from dispatcher.leadership import Leadership
from dispatcher.ledger import Ledger
from dispatcher.observer import SILENT
from dispatcher.pool import PoolDispatcher
from dispatcher.service import Dispatcher
from dispatcher.settings import DispatcherSettings

OWNERS: dict[str, Any] = {
    owner.__name__: owner for owner in (Flight, Scheduler, Intake, Leadership, Ledger, PoolDispatcher)
}


class Step(NamedTuple):
    """The `n`th call of a function of the dispatcher: it stops before it is made, or when it has returned."""

    when: str
    what: str
    """``Ledger.commit``, say, or ``dispatcher.pool.load_notes``."""
    n: int = 1
    calls: int = 1
    """Count only while a pass of at least so many calls of the commit script is stored."""
    stopping: bool = False
    """It is told to end when it works: the step is on the way out."""
    sleeps: bool = False
    """It is not killed but stopped (SIGSTOP), and goes on from there when it is woken."""

    def __str__(self) -> str:
        number = f" {self.n}" if self.n > 1 else ""
        large = " of a large pass" if self.calls > 1 else ""
        return f"{self.when} {self.what}{number}{large}"


def run(step: Step, url: str, pool: str) -> None:
    """Run the dispatcher, which comes to its step once; the main function of its process."""
    _arm(step)
    settings = DispatcherSettings(
        redis_url=url, pools=(pool,), dispatcher_id="dying", retry_base=timedelta(milliseconds=20)
    )
    asyncio.run(_serve(Dispatcher(settings, lambda _: SILENT), stops=step.stopping))


async def _serve(dispatcher: Dispatcher, *, stops: bool) -> None:
    stop, ready = asyncio.Event(), asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(dispatcher.run(stop, ready))
        if stops:
            await ready.wait()
            stop.set()


def _arm(step: Step) -> None:
    *path, name = step.what.rsplit(".", 1)
    owner = OWNERS[path[0]] if path[0] in OWNERS else __import__(path[0], fromlist=[name])
    parts = _follow_passes()
    left = step.n

    def comes(when: str) -> None:
        nonlocal left
        if when == step.when and parts() >= step.calls:
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGSTOP if step.sleeps else signal.SIGKILL)

    setattr(owner, name, _wrapped(getattr(owner, name), comes))


def _wrapped(inner: Callable[..., Any], comes: Callable[[str], None]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(inner):

        async def pages(*args: Any, **named: Any) -> Any:
            comes("before")
            async for page in inner(*args, **named):
                yield page
                comes("after")

        return pages
    if inspect.iscoroutinefunction(inner):

        async def awaited(*args: Any, **named: Any) -> Any:
            comes("before")
            found = await inner(*args, **named)
            comes("after")
            return found

        return awaited

    def called(*args: Any, **named: Any) -> Any:
        comes("before")
        found = inner(*args, **named)
        comes("after")
        return found

    return called


def _follow_passes() -> Callable[[], int]:
    """Return a function that tells of how many calls the pass is that is being stored; 1 while none is."""
    inner, parts = Ledger._send, 1

    async def send(self: Ledger, work: Any, *args: Any) -> Any:
        nonlocal parts
        parts = len(work.parts)
        try:
            return await inner(self, work, *args)
        finally:
            parts = 1

    Ledger._send = send  # type: ignore[method-assign, assignment]
    return lambda: parts
