"""The event loop and the garbage collector of a process that works for long: one way for agents and dispatchers."""

import asyncio
import gc
from typing import Final

_THRESHOLDS: Final = (20_000, 20, 50)


def new_loop() -> asyncio.AbstractEventLoop:
    """Make the process' event loop: uvloop's where there is one."""
    try:
        import uvloop  # noqa: PLC0415 - not to be had everywhere
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


def settle() -> None:
    """Leave what start-up has made out of garbage collection, and collect rarely. Called once at work.

    A task is a handful of objects that nothing refers to in a circle: collecting often would walk a whole backlog to
    find nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
