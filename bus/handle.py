"""A handle on one task: wait for its result, look at it, cancel it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_json

from bus.errors import TaskCancelledError, TaskFailedError, TaskOutcomeError, TaskTimeoutError
from bus.ids import Pool, TaskId, task_pool
from bus.messages import Outcome
from bus.records import TaskInDB
from bus.states import FailureReason, TaskStatus
from bus.waiter import Waiter

T = TypeVar("T")

ACCEPTED_WITHIN_S: Final = 5.0

_TIMEOUTS: Final = (FailureReason.TIMEOUT.value, FailureReason.EXPIRED.value)


class Owner(Protocol):
    """What a handle needs of its client."""

    async def get(self, task_id: str, *, patience: float = 0.0) -> TaskInDB:
        """Return the stored record, waiting so many seconds for it to appear."""

    async def cancel(
        self, task_ids: list[str], reason: str = "", *, by: str | None = None, grace: float | None = None
    ) -> None:
        """Ask the leader to cancel tasks."""


class TaskHandle(Generic[T]):
    """One submitted task. Cheap to keep by the thousand; usable while its client is open."""

    __slots__ = ("_output", "_owner", "_wait_for", "_waiter", "id")

    def __init__(
        self,
        owner: Owner,
        waiter: Waiter,
        wait_for: Callable[[Waiter], None],
        output: TypeAdapter[T] | None = None,
    ) -> None:
        self._owner = owner
        self._waiter = waiter
        self._wait_for = wait_for
        self._output = output
        self.id: TaskId = waiter.task_id

    @property
    def pool(self) -> Pool:
        """The pool the task belongs to."""
        return task_pool(self.id)

    @property
    def waiter(self) -> Waiter:
        """Where the outcome arrives; for `Client.as_completed`."""
        return self._waiter

    def listen(self) -> None:
        """Begin to look out for the outcome."""
        self._wait_for(self._waiter)

    async def result(self, timeout: float | None = None) -> T:
        """Wait until the task has ended, and return its output.

        `timeout` is in seconds; None waits for as long as it takes, through any outage of the server. A caller that
        is cancelled, or whose `timeout` runs out, gives up only its own waiting: the task goes on, and `result` may
        be called again.

        Raises `TaskFailedError`, `TaskCancelledError`, `TaskTimeoutError` (the task failed by a timeout of its own,
        `reason` says which; or yours ran out, then `reason` is None), `UnknownTaskError` (no such task, or its
        retention is over), `UnreadableTaskError`, `ClientClosedError` (its client is closed).
        """
        outcome = await self._outcome(timeout)
        if outcome.status is not TaskStatus.COMPLETED:
            raise error_of(outcome)
        if self._output is None:
            return outcome.output  # type: ignore[return-value] # untyped handles are TaskHandle[Any]
        try:
            return self._output.validate_python(outcome.output)
        except ValidationError:
            # Strict models and some types take less from Python objects than from JSON, and JSON is what it was.
            return self._output.validate_json(to_json(outcome.output, inf_nan_mode="constants"))

    async def _outcome(self, timeout: float | None) -> Outcome:
        waiter = self._waiter
        if not waiter.done:
            self._wait_for(waiter)
        if timeout is None or waiter.done:
            return await waiter.ended()
        try:
            async with asyncio.timeout(timeout):
                return await waiter.ended()
        except TimeoutError:
            raise TaskTimeoutError(self.id, f"has not ended within {timeout:g} s; it goes on") from None

    async def get(self) -> TaskInDB:
        """Return the task as the ledger has it now.

        Waits for at most `ACCEPTED_WITHIN_S` seconds until the leader has accepted it, then raises `UnknownTaskError`.
        """
        return await self._owner.get(self.id, patience=ACCEPTED_WITHIN_S)

    async def status(self) -> TaskStatus:
        """Return the task's present status. Raises as `get` does."""
        return (await self.get()).status

    async def cancel(self, reason: str = "", *, by: str | None = None, grace: float | None = None) -> None:
        """Ask that the task be cancelled, whatever its status; returns when the request is stored, not when it is done.

        A task that ends before the request is read keeps its outcome. `result` tells which it was: it raises when the
        task has ended, which its agent may delay by `grace` (see `Client.cancel`).
        """
        await self._owner.cancel([self.id], reason, by=by, grace=grace)

    def __repr__(self) -> str:
        return f"<TaskHandle {self.id}>"


async def as_completed(handles: Iterable[TaskHandle[T]]) -> AsyncGenerator[TaskHandle[T], None]:
    """Yield handles in the order in which their tasks end; leaving early is harmless."""
    ended: asyncio.Queue[TaskHandle[T]] = asyncio.Queue()
    waiting = list(handles)
    hooks: list[tuple[TaskHandle[T], partial[None]]] = []
    try:
        for handle in waiting:
            hook = partial(_note, ended, handle)
            hooks.append((handle, hook))
            handle.waiter.outcome.add_done_callback(hook)
            handle.listen()
        for _ in waiting:
            yield await ended.get()
    finally:
        for handle, hook in hooks:
            handle.waiter.outcome.remove_done_callback(hook)


def _note(ended: asyncio.Queue[TaskHandle[T]], handle: TaskHandle[T], _: object) -> None:
    ended.put_nowait(handle)


def error_of(outcome: Outcome) -> TaskOutcomeError:
    """Return the error that tells of a task that ended without a result."""
    reason, error = outcome.reason, outcome.error
    words = f": {error.type}: {error.message}" if error is not None else ""
    if outcome.status is TaskStatus.CANCELLED:
        return TaskCancelledError.of(outcome.task_id, reason, by=outcome.by, given_up=outcome.given_up, error=error)
    kind = TaskTimeoutError if reason in _TIMEOUTS else TaskFailedError
    return kind(outcome.task_id, f"failed ({reason}){words}", reason=reason, error=error)
