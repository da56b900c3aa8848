"""`TaskContext`: what a capability knows of the task it works on, and how it speaks of its progress."""

import logging
import math
from collections.abc import Awaitable, Callable, Generator, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

from pydantic import JsonValue

from agent_runtime.outcome import plain

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
        "_deadline_ms",
        "_extend",
        "_log",
        "_progress",
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
        self._cancelled = False
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def deadline(self) -> datetime | None:
        """When this attempt will have run too long, by this machine's clock; None if the task sets no `run_timeout`."""
        return None if self._deadline_ms is None else datetime.fromtimestamp(self._deadline_ms / 1000, UTC)

    @property
    def cancelled(self) -> bool:
        """True once the result no longer counts: cancelled, timed out, or the agent stops. Ask often in threads."""
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
