"""A dispatcher of the next version, which understands messages of version 2: the program of `test_rolling_upgrade`."""

import asyncio
import signal

from dispatcher import decoding
from dispatcher.observer import SILENT
from dispatcher.service import Dispatcher
from dispatcher.settings import DispatcherSettings

NEXT = 2


def run(url: str, pool: str) -> None:
    """Serve a pool until SIGTERM; the main function of its process."""
    decoding.VERSION = NEXT  # type: ignore[attr-defined]
    settings = DispatcherSettings(redis_url=url, pools=(pool,), dispatcher_id="next")
    asyncio.run(_serve(Dispatcher(settings, lambda _: SILENT)))


async def _serve(dispatcher: Dispatcher) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await dispatcher.run(stop)
