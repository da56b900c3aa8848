"""When tasks began, told by the processes that run them through a file that all of them have mapped.

The clock is the machine's monotonic one, which its processes share; a mark costs less than a microsecond and no word
to anybody. The programs that this is compared with use it too, so it needs nothing but the standard library.
"""

import mmap
import os
from pathlib import Path
from time import monotonic
from typing import Final, Self

VARIABLE: Final = "CALLBOARD_BENCHMARK_STARTS"
SIZE: Final = 400_000
"""Numbers that tasks may have."""


class Stopwatch:
    """For each number of a task, when it began last, and how often it has begun."""

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 0)
        self._times = memoryview(self._map).cast("d")

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the file, and let processes that are started from now on find it."""
        path.write_bytes(bytes(2 * SIZE * 8))
        os.environ[VARIABLE] = str(path)
        return cls(path)

    def mark(self, number: int) -> None:
        """Note that a task begins."""
        self._times[number] = monotonic()
        self._times[SIZE + number] += 1

    def began(self, number: int) -> float:
        """Return when it began last; 0 if it has not."""
        return float(self._times[number])

    def starts(self, number: int) -> int:
        """Return how often it has begun."""
        return int(self._times[SIZE + number])

    def clear(self) -> None:
        """Forget everything."""
        self._map[:] = bytes(2 * SIZE * 8)


def stopwatch() -> Stopwatch | None:
    """Return the one that this process was started with."""
    path = os.environ.get(VARIABLE)
    return Stopwatch(Path(path)) if path else None
