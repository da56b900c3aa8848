"""Many submissions at once: sent in as few calls as they fit in, and again where there was no room."""

import asyncio
import random
from collections.abc import Iterable, Iterator
from time import monotonic
from typing import Final

from bus.errors import QueueFullError, SubmissionError
from bus.link import Link
from bus.names import PoolNames
from bus.records import TaskCreate
from bus.submission import Submission, in_calls, send, submission_of

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
        self._all: list[tuple[PoolNames, Submission]] = []
        for task in tasks:
            if not isinstance(task, TaskCreate):
                raise SubmissionError(
                    f"{task!r:.100} is not a TaskCreate: write TaskCreate(capability=..., payload=...)"
                )
            self._all.append(submission_of(task, link.pool, link.client_id))
        self.known: set[str] = set()
        """Those that were submitted before."""
        self._left: dict[int, None] = dict.fromkeys(range(len(self._all)))
        """Places of those that are not stored."""

    def told(self) -> Iterator[tuple[PoolNames, Submission, bool]]:
        """Yield each submission with its pool's names, and whether it is stored."""
        for n, (names, submission) in enumerate(self._all):
            yield names, submission, n not in self._left

    async def send(self) -> QueueFullError | None:
        """Send all that is not stored; return why there was no room for the first that is refused, if any is."""
        full: QueueFullError | None = None
        by_pool: dict[str, list[int]] = {}
        for n in self._left:
            by_pool.setdefault(self._all[n][0].pool, []).append(n)
        for places in by_pool.values():
            names = self._all[places[0]][0]
            rest = iter(places)
            for part in in_calls([self._all[n][1] for n in places]):
                known, refused = await send(self._link.redis, self._link.url, names, part)
                self.known |= {part[at].task_id for at in known}
                for at, (submission, n) in enumerate(zip(part, rest, strict=False)):
                    if at not in refused:
                        del self._left[n]
                    elif full is None:
                        full = refused[at].error(names, submission)
        return full
