"""SIGINT and SIGTERM as an event that a process' parts wait for."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_on_signal(again: Callable[[], object] | None = None) -> Iterator[asyncio.Event]:
    """Provide an event that the first SIGINT or SIGTERM sets; each further one calls `again`.

    To be entered in the main thread's running loop; handlers are removed at the end of the block.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def signalled() -> None:
        if not stop.is_set():
            stop.set()
        elif again is not None:
            again()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, signalled)
    try:
        yield stop
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)
