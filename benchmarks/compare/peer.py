"""What each program that is compared must be able to do, and what all of its tasks do.

Adapters are imported in the environment of the program that they adapt: neither this module nor `producer` may import
anything that is not in the standard library. A module in `adapters` has an object `peer` that fits `Peer`, and the
tasks themselves, which its worker imports from there.
"""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks.stopwatch import stopwatch

SLOTS: Final = 100
"""Tasks that a worker may run at once."""

HELD_S: Final = 3600.0
AT_ONCE: Final = 100
"""Submissions under way at once where there is no way to submit many in one step."""

URL_VARIABLE: Final = "CALLBOARD_BENCHMARK_URL"
URL: Final = os.environ.get(URL_VARIABLE, "redis://127.0.0.1:6379/0")

_WATCH: Final = stopwatch()
_PAD: Final = "x" * 180


class Peer(Protocol):
    """One program. All that submits and waits is called in one event loop, `open` and `close` in one task of it."""

    settings: str
    """What is set otherwise than by default, for the table's notes."""
    bulk: bool
    """It has a way to submit many in one step; else `submit_many` has a hundred under way at once."""
    priorities: bool
    """It has priorities, and `submit_urgent` uses them."""
    blocking: bool
    """It knows nothing of event loops: its calls block."""
    lease: str
    """What decides how long a killed worker's tasks wait for another."""

    def services(self) -> list[list[str]]:
        """Return the commands of what must run beside server and worker."""

    def worker(self) -> list[str]:
        """Return the command of one worker."""

    async def open(self) -> None:
        """Connect the producer."""

    async def close(self) -> None:
        """Disconnect it."""

    async def submit(self, number: int) -> Any:  # noqa: ANN401 - whatever the program hands out
        """Submit a no-op; return when it is stored."""

    async def submit_many(self, numbers: Sequence[int]) -> list[Any]:
        """Submit no-ops as fast as one producer can."""

    async def submit_urgent(self, numbers: Sequence[int]) -> None:
        """Submit no-ops that go before all others."""

    async def submit_held(self, number: int) -> None:
        """Submit a task that goes on for an hour, and is run again when its worker dies."""

    async def result(self, handle: Any) -> None:  # noqa: ANN401 - likewise
        """Wait for the result of what `submit` has returned."""


def payload(number: int) -> dict[str, Any]:
    """Return 200 bytes of JSON."""
    return {"n": number, "pad": _PAD}


def mark(number: int) -> None:
    """Note that a task begins."""
    if _WATCH is not None:
        _WATCH.mark(number)


def program(name: str) -> str:
    """Return the path of a command of this environment's."""
    return str(Path(sys.executable).parent / name)


async def at_once(submit: Callable[[int], Awaitable[Any]], numbers: Sequence[int]) -> list[Any]:
    """Submit one by one, a hundred of them under way at once."""
    handles: list[Any] = []
    for first in range(0, len(numbers), AT_ONCE):
        handles += await asyncio.gather(*map(submit, numbers[first : first + AT_ONCE]))
    return handles
