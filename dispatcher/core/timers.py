"""Timers as data: a heap of (when, what, whom), advanced by whoever knows the time.

A timer is never removed from the heap; it is checked when it rings. `Timers` is used twice: once on the clock
(delays, expiry), once on the horizon (leases, run timeouts), see `events.Horizon`.
"""

from enum import StrEnum
from heapq import heappop, heappush


class TimerKind(StrEnum):
    """What a timer is for."""

    READY = "ready"  # a delayed task may start
    EXPIRE = "expire"  # a task waited too long
    RUN_TIMEOUT = "run_timeout"  # an attempt ran too long
    LEASE = "lease"  # an agent was not heard of
    SESSION = "session"  # a session was replaced: its tasks are free
    PROBATION = "probation"  # a deaf agent may be tried again
    FORGET = "forget"  # a stopped agent is no longer listed
    TOMBSTONE = "tombstone"  # a cancel found no task


class Timers:
    """A heap of timers. Equal instants ring in the order in which they were set."""

    __slots__ = ("_heap", "_seq")

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, TimerKind, str, int]] = []
        self._seq = 0

    def set(self, when: int, kind: TimerKind, subject: str, mark: int = 0) -> None:
        """Ring at `when`; `mark` tells the listener whether the timer still means what it was set for."""
        self._seq += 1
        heappush(self._heap, (when, self._seq, kind, subject, mark))

    def pop_due(self, now: int) -> list[tuple[TimerKind, str, int]]:
        """Remove and return every timer with `when <= now`, earliest first."""
        due: list[tuple[TimerKind, str, int]] = []
        heap = self._heap
        while heap and heap[0][0] <= now:
            _, _, kind, subject, mark = heappop(heap)
            due.append((kind, subject, mark))
        return due

    @property
    def next_due(self) -> int | None:
        """When the earliest timer rings; None without timers."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
