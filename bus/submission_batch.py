"""Many submissions at once: sent in as few calls as they fit in, and again where there was no room."""

import asyncio
import random
from collections.abc import Iterable
from time import monotonic
from typing import Final

from bus.errors import QueueFullError, SubmissionError
from bus.link import Link
from bus.records import TaskCreate
from bus.submission import in_calls, send, submission_of

FIRST_PAUSE_S: Final = 0.02
LONGEST_PAUSE_S: Final = 0.5


class Patience:
    """How long a submitter waits for room: it asks again after pauses that grow."""

    def __init__(self, seconds: float) -> None:
        self._until = monotonic() + seconds
        self._pause = FIRST_PAUSE_S

    async def again(self) -> bool:
        """Wait a little; tell whether there is time for another try, without waiting if there is none."""
        left = self._until - monotonic()
        if left <= 0:
            return False
        await asyncio.sleep(min(left, self._pause * random.uniform(0.75, 1.25)))
        self._pause = min(2 * self._pause, LONGEST_PAUSE_S)
        return True


class Batch:
    """Some tasks on their way, in the order in which they were given. Raises `SubmissionError` for one that is none."""

    def __init__(self, link: Link, tasks: Iterable[TaskCreate]) -> None:
        self._link = link
        # Taken one by one: a task that was made on the way is gone when it is written.
        self.all: Final = [submission_of(_task(task), link.pool, link.client_id) for task in tasks]
        """Each with the names of its pool."""
        self.known: set[str] = set()
        """Those that were submitted before."""
        self.left: list[int] = list(range(len(self.all)))
        """Places of those that are not stored, in their order."""

    async def send(self) -> QueueFullError | None:
        """Send all that is not stored; return why there was no room for the first that is refused, if any is."""
        full: QueueFullError | None = None
        by_pool: dict[str, list[int]] = {}
        for place in self.left:
            by_pool.setdefault(self.all[place][0].pool, []).append(place)
        for places in by_pool.values():
            names, done = self.all[places[0]][0], 0
            for part in in_calls([self.all[place][1] for place in places]):
                sent, done = places[done : done + len(part)], done + len(part)
                known, refused = await send(self._link.redis, self._link.url, names, part)
                self.known.update(part[at].task_id for at in known)
                stored = {place for at, place in enumerate(sent) if at not in refused} if refused else set(sent)
                self.left = [place for place in self.left if place not in stored]
                if refused and full is None:
                    at = min(refused)
                    full = refused[at].error(names, part[at])
        return full


def _task(given: object) -> TaskCreate:
    if isinstance(given, TaskCreate):
        return given
    raise SubmissionError(f"{given!r:.100} is not a TaskCreate: write TaskCreate(capability=..., payload=...)")
