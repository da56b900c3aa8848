"""`TaskContext`: what a capability knows of its task, how it speaks of its progress, and how it starts children."""

from __future__ import annotations

import logging
import math
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast, overload

from agent_runtime.outcome import plain

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Generator,
        Iterable,
        Mapping,
        MutableMapping,
    )
    from contextlib import AbstractAsyncContextManager
    from typing import Unpack

    from pydantic import JsonValue

    from agent_runtime.children import Children
    from bus.client import TaskOptions
    from bus.handle import TaskHandle
    from bus.records import TaskCreate

T = TypeVar("T")

LOG: Final = logging.getLogger("callboard.task")
NOTE_LIMIT: Final = 1000


class _Checkpoint:
    """Lets everything else that is ready run once; a cancel arrives here."""

    def __await__(self) -> Generator[None, None, None]:
        yield


_CHECKPOINT: Final = _Checkpoint()


class TaskContext:
    """One attempt of one task. All of it may be used from threads."""

    __slots__ = (
        "_cancelled",
        "_children",
        "_deadline_ms",
        "_extend",
        "_log",
        "_progress",
        "_seen",
        "attempt",
        "due",
        "metadata",
        "schedule",
        "task_id",
    )

    def __init__(
        self,
        task_id: str,
        attempt: int,
        metadata: Mapping[str, JsonValue],
        deadline_ms: float | None,
        progress: Callable[[float, str | None], None],
        extend: Callable[[float], None],
        children: Callable[[], Children],
        run: Mapping[str, Any] | None = None,
    ) -> None:
        self.task_id = task_id
        self.attempt = attempt
        """1 for the first attempt."""
        self.metadata = metadata
        """What the submitter attached."""
        self.schedule: str | None = None if run is None else run["id"]
        """The schedule that has submitted the task, if one has."""
        self.due = None if run is None else datetime.fromtimestamp(run["due"] / 1000, UTC)
        """When a schedule's task was due: the same for all of its attempts, however late they are."""
        self._deadline_ms = deadline_ms
        self._progress = progress
        self._extend = extend
        self._children = children
        self._cancelled = False
        self._seen: Callable[[], None] | None = None
        """Called once the code has asked and was told that it is cancelled."""
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def deadline(self) -> datetime | None:
        """When this attempt will have run too long, by this machine's clock; None if the task sets no `run_timeout`."""
        return None if self._deadline_ms is None else datetime.fromtimestamp(self._deadline_ms / 1000, UTC)

    @property
    def cancelled(self) -> bool:
        """True once the result no longer counts: cancelled, timed out, or the agent stops. Ask often in threads."""
        if self._cancelled and self._seen is not None:
            seen, self._seen = self._seen, None
            seen()
        return self._cancelled

    def progress(self, fraction: float, note: str | None = None) -> Awaitable[None]:
        """Say how much of the work is done, from 0 to 1, and optionally what comes next.

        The latest word is sent with the next flush of the agent; earlier ones may never be seen. In an `async def`
        await it: other tasks get their turn, and a cancel arrives there. In a thread call it without `await`. Raises
        `ValueError` for a fraction outside of 0 to 1; notes are cut at 1,000 characters.
        """
        if not 0 <= fraction <= 1 or math.isnan(fraction):
            raise ValueError(f"progress is a fraction from 0 to 1, not {fraction!r}")
        if not self._cancelled:
            self._progress(float(fraction), None if note is None else plain(str(note), NOTE_LIMIT))
        return _CHECKPOINT

    def extend(self, seconds: float) -> Awaitable[None]:
        """Let this attempt run `seconds` longer than its `run_timeout`; several calls add up.

        For work that turns out to be long and is known to be alive. Without a `run_timeout` nothing changes. Await it
        in an `async def`, as `progress`. Raises `ValueError` for a negative or endless time.
        """
        if not 0 <= seconds < math.inf:
            raise ValueError(f"an extension is a number of seconds, 0 at least, not {seconds!r}")
        if not self._cancelled and self._deadline_ms is not None:
            self._deadline_ms += seconds * 1000
            self._extend(float(seconds))
        return _CHECKPOINT

    # --- children

    @property
    def depth(self) -> int:
        """How many ancestors this task has: 0 if it is nobody's child."""
        return self._children().parent.depth

    @property
    def trace(self) -> str:
        """What all tasks of a tree have in common: what its root was given as `trace`, else the root's id."""
        return self._children().parent.trace

    @overload
    async def submit(
        self, capability: Callable[..., Coroutine[Any, Any, T]], payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self, capability: Callable[..., T], payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[T]: ...

    @overload
    async def submit(
        self, capability: str, payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[Any]: ...

    async def submit(
        self, capability: str | Callable[..., Any], payload: object = None, **options: Unpack[TaskOptions]
    ) -> TaskHandle[Any]:
        """Start a child: a task of this task, in the same pool. Returns when the server has stored it.

        Capability, payload and options are those of `bus.Client.submit`; priority, `fairness_key` and `trace` are this
        task's unless they are given. The child is cancelled when this task is cancelled or has failed for good; it goes
        on when this task completes, and when an attempt of it fails and another follows. That one finds the child again
        by asking for the same (capability, payload and options, and the how-manieth of equal ones), unless it has
        failed. With `key=None` each submission is a new child; any other `key` is the pool's idempotency key.

        Raises as `bus.Client.submit` does; `SubmissionError` also for another pool and at a depth of more than 16.
        """
        return await self._children().submit(capability, payload, options)

    async def submit_many(self, tasks: Iterable[TaskCreate]) -> list[TaskHandle[Any]]:
        """Start many children, hundreds in one round trip; returns their handles, in order, when all are stored."""
        return await self._children().submit_many(tasks)

    @overload
    async def call(
        self,
        capability: Callable[..., Coroutine[Any, Any, T]],
        payload: object = None,
        *,
        release_slot: bool = False,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> T: ...

    @overload
    async def call(
        self,
        capability: Callable[..., T],
        payload: object = None,
        *,
        release_slot: bool = False,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> T: ...

    @overload
    async def call(
        self,
        capability: str,
        payload: object = None,
        *,
        release_slot: bool = False,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any: ...  # noqa: ANN401 - JSON

    async def call(
        self,
        capability: str | Callable[..., Any],
        payload: object = None,
        *,
        release_slot: bool = False,
        timeout: float | None = None,
        **options: Unpack[TaskOptions],
    ) -> Any:
        """Start a child as `submit` does, wait for it, and return its output.

        With `release_slot` this task does without its slots meanwhile, see `without_slot`. When `timeout` seconds are
        over, or the caller is cancelled, only the waiting ends, and the child goes on as long as this task may need it.
        Raises as `submit` and `bus.TaskHandle.result` do.
        """
        return await self._children().call(capability, payload, options, release_slot=release_slot, timeout=timeout)

    def without_slot(self) -> AbstractAsyncContextManager[None]:
        """Give up the slots, resources and limits of this task while the block runs: it only waits there.

        Trees of tasks that wait for their children cannot block a fleet then, however few slots it has. When the block
        is left the task waits for its slots in its agent, before anything new is begun there. Of blocks that are open
        at once, as in a `gather` of calls, the last gives the slots back: what runs before does so without them. A
        cancelled block is left at once. `run_timeout` goes on, and `progress_timeout` does not.
        """
        return self._children().without_slot()

    def as_completed(self, handles: Iterable[TaskHandle[T]]) -> AsyncGenerator[TaskHandle[T], None]:
        """Yield handles in the order in which their tasks end, as `bus.Client.as_completed`."""
        from bus.handle import as_completed  # noqa: PLC0415 - most agents never have children

        return as_completed(handles)

    def wait(self, work: Awaitable[T]) -> T:
        """In a plain `def`, which has no `await`: `ctx.wait(ctx.call("text.count", text))`.

        Runs the coroutine in the agent's event loop and returns its result, or raises what it raised;
        `concurrent.futures.CancelledError` once this task is cancelled. `progress` and `extend` have done their work
        when they return, so there is nothing to wait for. Raises `RuntimeError` in the event loop, and `TypeError` for
        what is no coroutine.
        """
        given: object = work
        if given is _CHECKPOINT:
            return cast("T", None)
        if not isinstance(work, Coroutine):
            raise TypeError(f"ctx.wait is given {work!r}: write e.g. ctx.wait(ctx.call('text.count', text))")
        result: T = self._children().from_thread(work)
        return result

    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the task's id and the attempt, as text and as `extra` fields."""
        if self._log is None:
            self._log = _TaskLogger(LOG, {"task_id": self.task_id, "attempt": self.attempt})
        return self._log

    def _cancel(self) -> None:
        self._cancelled = True


class _TaskLogger(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: object, kwargs: MutableMapping[str, Any]) -> tuple[str, MutableMapping[str, Any]]:
        known = self.extra or {}
        kwargs["extra"] = {**known, **(kwargs.get("extra") or {})}
        return f"[{known['task_id']}#{known['attempt']}] {msg}", kwargs
