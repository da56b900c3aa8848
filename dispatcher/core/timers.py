"""Timers as data: a heap of (when, what, whom), advanced by whoever knows the time.

A timer is checked when it rings, and not removed before; when the heap has doubled, those that mean nothing any more
are dropped together. `Timers` is used twice: once on the clock (delays, expiry), once on the horizon (leases, run
timeouts), see `events.Horizon`.
"""

from collections.abc import Callable
from enum import StrEnum
from heapq import heapify, heappop, heappush


class TimerKind(StrEnum):
    """What a timer is for."""

    READY = "ready"  # a delayed task may start
    EXPIRE = "expire"  # a task waited too long
    RUN_TIMEOUT = "run_timeout"  # an attempt ran too long
    CANCEL = "cancel"  # an agent did not stop in time what is cancelled
    PROGRESS = "progress"  # an attempt has not said anything for too long
    LEASE = "lease"  # an agent was not heard of
    SESSION = "session"  # a session was replaced: its tasks are free
    PROBATION = "probation"  # a deaf agent may be tried again
    LIMIT = "limit"  # a rate allows the next start
    BREAKER = "breaker"  # a capability may be tried again at an agent
    RESUME = "resume"  # a pause was to last so long
    THROTTLE = "throttle"  # an agent's own rate allows the next start
    RECALL = "recall"  # work waits ahead of an agent's slots, or behind a blocked loop
    FAIL_FAST = "fail_fast"  # tasks that are to fail fast are looked at again
    FORGET = "forget"  # a stopped agent is no longer listed
    TOMBSTONE = "tombstone"  # a cancel found no task
    SWEEP = "sweep"  # what was submitted before a command on all tasks of a kind is read by now
    SCHEDULE = "schedule"  # the task of a schedule is due


COMPACT_AT = 4_096
"""Timers below which nothing is ever dropped early."""


class Timers:
    """A heap of timers. Equal instants ring in the order in which they were set.

    `alive` tells whether a timer, by its kind, subject and mark, still means something.
    """

    __slots__ = ("_alive", "_compact_at", "_heap", "_seq")

    def __init__(self, alive: Callable[[TimerKind, str, int], bool]) -> None:
        self._alive = alive
        self._heap: list[tuple[int, int, TimerKind, str, int]] = []
        self._seq = 0
        self._compact_at = COMPACT_AT

    def set(self, when: int, kind: TimerKind, subject: str, mark: int = 0) -> None:
        """Ring at `when`; `mark` tells the listener whether the timer still means what it was set for."""
        self._seq += 1
        heappush(self._heap, (when, self._seq, kind, subject, mark))
        if len(self._heap) >= self._compact_at:
            self._heap = [timer for timer in self._heap if self._alive(*timer[2:])]
            heapify(self._heap)
            self._compact_at = max(COMPACT_AT, 2 * len(self._heap))

    def pop_due(
        self, now: int, budget: int, cost: Callable[[TimerKind, str], int] = lambda _kind, _subject: 1
    ) -> list[tuple[TimerKind, str, int]]:
        """Remove and return timers with `when <= now`, earliest first, until they have cost the `budget`."""
        due: list[tuple[TimerKind, str, int]] = []
        heap = self._heap
        while heap and heap[0][0] <= now and budget > 0:
            _, _, kind, subject, mark = heappop(heap)
            budget -= cost(kind, subject)
            due.append((kind, subject, mark))
        return due

    @property
    def next_due(self) -> int | None:
        """When the earliest timer rings; None without timers."""
        return self._heap[0][0] if self._heap else None

    def __len__(self) -> int:
        return len(self._heap)
