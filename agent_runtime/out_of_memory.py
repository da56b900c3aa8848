"""Ends the process when its event loop had no memory: what it should have woken then would sleep for ever.

A task that takes all memory fails with `MemoryError`, and mostly that is all. But when the loop itself finds none, in
the middle of a callback or a read, the coroutine that waited for that is never gone on with, and nobody is told: tasks
that do not end, an agent that reads nothing and beats on, since its heartbeats have a thread of their own. Such a
process cannot be trusted any more. Its supervisor starts another, and its tasks are tried again.
"""

import asyncio
import os
import sys
from typing import Any, Final

EXIT_CODE: Final = 71
"""A crash to the supervisor."""
_LAST_WORDS: Final = b"the event loop had no memory: ending, since what it should have woken would sleep for ever\n"


def end_on(loop: asyncio.AbstractEventLoop) -> None:
    """Watch over a loop, and over whatever Python cannot raise, for the rest of the process."""
    loop.set_exception_handler(_handle)
    sys.unraisablehook = _not_raised


def _handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # A task that nobody has awaited has failed by its own code, and in order.
    if isinstance(context.get("exception"), MemoryError) and "task" not in context and "future" not in context:
        _end()
    loop.default_exception_handler(context)


def _not_raised(about: Any) -> None:  # noqa: ANN401 - sys.UnraisableHookArgs is not there at run time
    if about.exc_type is MemoryError:
        _end()
    sys.__unraisablehook__(about)


def _end() -> None:
    """End at once; nothing here takes memory, for there is none."""
    os.write(2, _LAST_WORDS)
    os._exit(EXIT_CODE)
