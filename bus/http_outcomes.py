"""How one HTTP client learns how its tasks ended: few long polls, however many results it waits for.

Tasks that are waited for are asked about together, up to `IDS_AT_ONCE` in one request, which is answered as soon as one
of them has ended. Who begins to wait meanwhile is asked about by another poll; when there are many, all are begun anew
as few. The records are the truth: nothing is lost with a connection, a poll, or the process at the other end.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import Any, Final

from bus.backoff import Backoff
from bus.errors import (
    ApiUnavailableError,
    CallboardError,
    ClientClosedError,
    UnknownTaskError,
    UnreadableTaskError,
)
from bus.http_link import HttpLink
from bus.ids import TaskId
from bus.messages import Outcome
from bus.waiter import Waiter, Waiters

LOG = logging.getLogger("callboard.client")

IDS_AT_ONCE: Final = 500
POLLS: Final = 8
"""Polls beyond those that are needed before all are begun anew."""
POLL_S: Final = 20.0


class HttpOutcomes:
    """The outcomes of one client's tasks. Its loop runs from the first `wait_for` to `close`."""

    def __init__(self, link: HttpLink) -> None:
        self._link = link
        self._waiters = Waiters()
        self._fresh: list[TaskId] = []
        self._news = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None

    def waiter(self, task_id: TaskId) -> Waiter:
        """Return the waiter of a task; one that was told of a failure is not handed out again."""
        return self._waiters.of(task_id)

    def wait_for(self, waiter: Waiter) -> None:
        """Start to look out for the outcome of `waiter`."""
        if waiter.waited_for or waiter.done:
            return
        waiter.waited_for = True
        self._fresh.append(waiter.task_id)
        self._news.set()
        if self._loop is None:
            self._loop = asyncio.create_task(self._keep(), name="results over HTTP")

    async def close(self) -> None:
        """Stop. Whoever still waits is told so, by `ClientClosedError`."""
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        for waiter in self._waiters.open():
            waiter.tell(ClientClosedError(waiter.task_id))

    async def _keep(self) -> None:
        polls: set[asyncio.Task[None]] = set()
        try:
            while True:
                await self._news.wait()
                await asyncio.sleep(0)  # who begins to wait at this moment is asked about together
                self._news.clear()
                ids, self._fresh = self._fresh, []
                if len(polls) >= POLLS + 2 * len(self._waiters) // IDS_AT_ONCE:
                    await _end(polls)
                    ids = [waiter.task_id for waiter in self._waiters.open()]
                for start in range(0, len(ids), IDS_AT_ONCE):
                    poll = asyncio.create_task(self._poll(ids[start : start + IDS_AT_ONCE]))
                    polls.add(poll)
                    poll.add_done_callback(polls.discard)
        finally:
            await _end(polls)

    async def _poll(self, ids: list[TaskId]) -> None:
        """Ask about some tasks until all have ended, or nobody waits for them any more."""
        backoff = Backoff(base=0.05, cap=2.0)
        while left := [task_id for task_id in ids if (waiter := self._open(task_id)) and waiter.waited_for]:
            try:
                told = await self._link.ask("POST", "/tasks/results", body={"task_ids": left}, wait=POLL_S)
                self._take(told)
                backoff.reset()
            except ApiUnavailableError as error:
                LOG.warning("results cannot be asked for, trying on: %s", error)
                await asyncio.sleep(backoff.next())
            except CallboardError as error:
                for task_id in left:
                    self._give_up(task_id, error)
            except Exception as error:  # thousands may wait: whatever an answer is, it is theirs
                LOG.exception("an answer about results cannot be understood")
                for task_id in left:
                    self._give_up(task_id, UnreadableTaskError(task_id, str(error) or repr(error)))

    def _open(self, task_id: TaskId) -> Waiter | None:
        waiter = self._waiters.get(task_id)
        return None if waiter is None or waiter.done else waiter

    def _take(self, told: Any) -> None:  # noqa: ANN401 - JSON
        for one in told["ended"]:
            outcome = Outcome.model_validate(one)
            waiter = self._open(TaskId(outcome.task_id))
            if waiter is not None:
                waiter.tell(outcome)
        for task_id in told["unknown"]:
            self._give_up(task_id, UnknownTaskError(task_id))
        for task_id in told["unreadable"]:
            self._give_up(task_id, UnreadableTaskError(task_id, "the API says so"))

    def _give_up(self, task_id: TaskId, error: CallboardError) -> None:
        waiter = self._open(task_id)
        if waiter is not None:
            self._waiters.forget(TaskId(task_id))  # a new handle may try anew
            waiter.tell(error)


async def _end(polls: Iterable[asyncio.Task[None]]) -> None:
    ending = list(polls)
    for poll in ending:
        poll.cancel()
    await asyncio.gather(*ending, return_exceptions=True)
