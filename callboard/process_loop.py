"""The event loop of a process that works for long: uvloop where there is one."""

import asyncio


def new_loop() -> asyncio.AbstractEventLoop:
    """Make the loop."""
    try:
        import uvloop  # noqa: PLC0415 - not to be had everywhere
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
