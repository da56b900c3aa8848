"""What an agent has been given: a heap of what is not yet begun, and the account of all that it holds.

An attempt is *held* from the moment it is read until the server has acknowledged the report of its end: heartbeats list
it for so long, and the leader takes what they do not list for undelivered. What was held is remembered for a while,
because a reader that starts over brings entries again whose report the leader has not yet consumed.
"""

import heapq
from collections.abc import Iterable
from itertools import count, islice
from typing import Any, Final

AttemptKey = tuple[str, int]
"""A task's id and the number of the attempt."""

REMEMBERED: Final = 2_000
"""How many past attempts are known again, beside those of twice the slots: more than a leader ever has assigned at once
to one agent, and therefore more than a reader that starts over can find."""


class Attempt:
    """One assignment, as it was read: `task` is the submission's JSON, `version` that of the capability to run."""

    __slots__ = ("assigned_at", "begun", "key", "score", "slots", "task", "version")

    def __init__(self, task_id: str, number: int, score: int, task: dict[str, Any], version: str | None = None) -> None:
        self.key: AttemptKey = (task_id, number)
        self.score = score
        self.task = task
        self.slots = int(task.get("slots", 1))
        self.version = version
        self.assigned_at = 0
        self.begun = False
        """Taken out of the inbox: to be run, handed back, or because it was cancelled."""


class Inbox:
    """Used from the event loop only, `holding` apart."""

    def __init__(self, slots: int = 1) -> None:
        self._remember = 2 * slots + REMEMBERED
        self._held: dict[AttemptKey, Attempt] = {}
        self._past: dict[tuple[AttemptKey, int], None] = {}
        """With the instant of their assignment: when a record is gone, its id and attempts may come again."""
        self._heap: list[tuple[int, int, Attempt]] = []
        self._order = count()
        self._waiting = 0

    def __len__(self) -> int:
        """Return how many attempts are not yet begun."""
        return self._waiting

    def add(self, attempt: Attempt) -> bool:
        """Take an attempt; False if it is known already, and then nothing changes."""
        key = attempt.key
        if key in self._held or (key, attempt.assigned_at) in self._past:
            return False
        self._held[key] = attempt
        heapq.heappush(self._heap, (attempt.score, next(self._order), attempt))
        self._waiting += 1
        return True

    def head(self) -> Attempt | None:
        """Return what `take` would, without taking it."""
        while self._heap:
            attempt = self._heap[0][2]
            if not attempt.begun:
                return attempt
            heapq.heappop(self._heap)
        return None

    def take(self) -> Attempt | None:
        """Return the attempt of the lowest score that is not yet begun, the earlier of equals; it counts as begun."""
        while self._heap:
            attempt = heapq.heappop(self._heap)[2]
            if not attempt.begun:
                attempt.begun = True
                self._waiting -= 1
                return attempt
        return None

    def take_back(self, key: AttemptKey) -> bool:
        """Take an attempt that is not yet begun, to hand it back; False if there is none.

        It counts as begun from here on, so that nobody else takes it; it is held until the report of it is stored.
        """
        attempt = self._held.get(key)
        if attempt is None or attempt.begun:
            return False
        attempt.begun = True  # it stays in the heap until its turn, and is passed over then
        self._waiting -= 1
        return True

    def withdraw(self, key: AttemptKey) -> bool:
        """Drop an attempt that is not yet begun, and stop holding it; False if there is none."""
        if not self.take_back(key):
            return False
        self.release((key,))
        return True

    def take_all(self) -> list[AttemptKey]:
        """Take everything that is not yet begun, to hand it back; it is held until the report of that is stored."""
        keys = []
        while (attempt := self.take()) is not None:
            keys.append(attempt.key)
        return keys

    def unbegun(self) -> list[Attempt]:
        """Return what is not yet begun; it stays where it is."""
        return [attempt for attempt in self._held.values() if not attempt.begun]

    def resize(self, slots: int) -> None:
        """Remember as much as an agent of so many slots may be asked about."""
        self._remember = 2 * slots + REMEMBERED

    def release(self, keys: Iterable[AttemptKey]) -> None:
        """Stop holding attempts whose end the server has acknowledged."""
        for key in keys:
            if (attempt := self._held.pop(key, None)) is not None:
                self._past[key, attempt.assigned_at] = None
        if (excess := len(self._past) - self._remember) > self._remember // 4:
            for past in list(islice(self._past, excess)):
                del self._past[past]

    def holding(self) -> list[AttemptKey]:
        """Return what is held. Safe from any thread: copying a dict's keys is one step of the interpreter."""
        return list(self._held)
