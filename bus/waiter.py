"""One task that somebody may wait for, and the account of those of one client.

A submitter of many tasks has a waiter for each, and may await none of them one by one. So a waiter is one small object:
futures are made for those who wait, and a caller that is cancelled takes only its own with it.
"""

import asyncio
from time import monotonic
from typing import Final
from weakref import ref

from bus.errors import CallboardError
from bus.ids import TaskId
from bus.messages import Outcome
from bus.states import TaskStatus


class Waiter:
    """What is known of how a task has ended. Used in one event loop."""

    __slots__ = ("__weakref__", "_futures", "_shared", "_told", "added", "look_at", "task_id", "waited_for")

    def __init__(self, task_id: TaskId) -> None:
        self.task_id = task_id
        self.added = monotonic()
        self.look_at = 0.0
        self.waited_for = False
        self._told: Outcome | CallboardError | None = None
        self._futures: list[asyncio.Future[Outcome]] | None = None
        self._shared: asyncio.Future[Outcome] | None = None

    @property
    def done(self) -> bool:
        """True once it is known how the task ended, or that this will never be known."""
        return self._told is not None

    @property
    def has_failed(self) -> bool:
        """True if the outcome is known, and is one that an operator may undo."""
        told = self._told
        return isinstance(told, Outcome) and told.status is TaskStatus.FAILED

    @property
    def outcome(self) -> "asyncio.Future[Outcome]":
        """A future that is done when the waiter is: one and the same for all who ask; never to be cancelled by them."""
        if self._shared is None:
            self._shared = self._future()
        return self._shared

    async def ended(self) -> Outcome:
        """Return the outcome once it is known, or raise what was told instead. Cancelling stops this caller only."""
        told = self._told
        if isinstance(told, Outcome):
            return told
        future = self._future()
        try:
            return await future
        finally:
            if future.cancelled() and self._futures is not None:
                self._futures.remove(future)

    def tell(self, told: Outcome | CallboardError) -> None:
        """Tell all who wait, now and later, how the task ended, or why that is not known; what comes first counts."""
        if self._told is not None:
            return
        self._told = told
        futures, self._futures = self._futures, None
        for future in futures or ():
            _settle(future, told)

    def _future(self) -> "asyncio.Future[Outcome]":
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        if self._told is not None:
            _settle(future, self._told)
        elif self._futures is None:
            self._futures = [future]
        else:
            self._futures.append(future)
        return future


def _settle(future: "asyncio.Future[Outcome]", told: Outcome | CallboardError) -> None:
    if future.done():  # its caller was cancelled in this same moment
        return
    if isinstance(told, Outcome):
        future.set_result(told)
    else:
        future.set_exception(told)
        future.exception()  # seen: nobody need be waiting


class _Known(ref[Waiter]):
    """A reference to a waiter that knows which it was when that is gone."""

    __slots__ = ("task_id",)
    task_id: TaskId


class Waiters:
    """The waiters of one client's tasks, by their ids, as long as anybody else holds them.

    What `weakref.WeakValueDictionary` does, for a quarter of the time: there is one for each task of a batch.
    """

    def __init__(self) -> None:
        known: dict[TaskId, _Known] = {}

        def gone(reference: ref[Waiter]) -> None:
            # A reference that another has taken the place of is gone itself, and never calls.
            known.pop(reference.task_id, None)  # type: ignore[attr-defined] # it is a `_Known`

        self._known: Final = known
        self._gone: Final = gone

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._known)

    def get(self, task_id: str) -> Waiter | None:
        """Return the waiter of a task; None if nobody has one."""
        found = self._known.get(task_id)  # type: ignore[call-overload] # an id is a text
        return None if found is None else found()

    def new(self, task_id: TaskId) -> Waiter:
        """Return the waiter of a task that was just stored.

        It may have had one before: the server has lost everything, and whoever submits with the same key again stores
        the same task anew. Who waits for it waits for this one then. Of an end that is known there is no way back: a
        new waiter takes the place of that.
        """
        known = self._known.get(task_id)
        if known is not None and (earlier := known()) is not None and not earlier.done:
            earlier.added = monotonic()
            return earlier
        waiter = Waiter(task_id)
        reference = _Known(waiter, self._gone)
        reference.task_id = task_id
        self._known[task_id] = reference
        return waiter

    def of(self, task_id: TaskId) -> Waiter:
        """Return the waiter of a task, a new one if there is none.

        One that was told of a failure is not handed out again: the task may have been requeued since.
        """
        waiter = self.get(task_id)
        return self.new(task_id) if waiter is None or waiter.has_failed else waiter

    def forget(self, task_id: TaskId) -> None:
        """Have the next who asks for a task's waiter get a new one."""
        self._known.pop(task_id, None)

    def all(self) -> list[Waiter]:
        """Return all that there are."""
        return [waiter for reference in list(self._known.values()) if (waiter := reference()) is not None]

    def open(self) -> list[Waiter]:
        """Return those that are waited for, and know of no end yet."""
        return [waiter for waiter in self.all() if waiter.waited_for and waiter._told is None]  # noqa: SLF001 - its own
