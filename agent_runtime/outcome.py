"""How an attempt ended, and what is told of it when it did not end well: bounded, JSON, safe to send and to read.

Nothing here raises, whatever the user's objects do when they are asked for their text: an attempt that ended badly must
not end worse.
"""

import traceback
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from agent_runtime.errors import Reject, RetryLater
from agent_runtime.legible import why_illegible_details
from bus.states import FailureReason, TaskStatus

_TYPE_LIMIT: Final = 200
_MESSAGE_LIMIT: Final = 10_000
_TRACEBACK_LIMIT: Final = 50_000
_DETAILS_LIMIT: Final = 50_000
_ERRORS_LIMIT: Final = 20
_FRAMES_LIMIT: Final = 50
_OURS: Final = tuple(
    str(Path(*parts))
    for parts in (
        ("agent_runtime", "execution.py"),
        ("agent_runtime", "pipeline.py"),
        ("concurrent", "futures", "thread.py"),
        ("asyncio", "futures.py"),
    )
)


class Outcome(NamedTuple):
    """What a report says of an attempt; `output` is JSON, `error` has the fields of `bus.messages.TaskError`."""

    status: TaskStatus
    output: bytes = b"null"
    error: dict[str, Any] | None = None
    reason: FailureReason | None = None
    retryable: bool = True
    retry_after: float | None = None
    """Seconds until the next attempt, where the capability has said so."""
    abandoned: bool = False
    """It was told to stop, and its code still runs."""


def failed(
    kind: str,
    message: str,
    *,
    reason: FailureReason = FailureReason.ERROR,
    retryable: bool = True,
    details: Any = None,  # noqa: ANN401 - opaque JSON
) -> Outcome:
    """Return a failure that the runtime itself has found."""
    error = {"type": plain(kind, _TYPE_LIMIT), "message": plain(message, _MESSAGE_LIMIT), "details": _json(details)}
    return Outcome(TaskStatus.FAILED, error=error, reason=reason, retryable=retryable)


def cancelled(why: str) -> Outcome:
    """Return the outcome of an attempt that was told to stop."""
    return Outcome(TaskStatus.CANCELLED, error={"type": "Cancelled", "message": plain(why, _MESSAGE_LIMIT)})


def timed_out(seconds: float) -> Outcome:
    """Return the outcome of an attempt that ran longer than its task allows."""
    return failed("TimeoutError", f"ran longer than its run_timeout of {seconds:g} s", reason=FailureReason.TIMEOUT)


def agent_lost(why: str) -> Outcome:
    """Return the outcome of an attempt that its agent gave up for reasons of its own."""
    return failed("AgentLost", why, reason=FailureReason.AGENT_LOST)


def invalid_input(capability: str, error: ValidationError) -> Outcome:
    """Return the outcome of a payload that does not fit: no agent of this version will ever take it."""
    count = error.error_count()
    return failed(
        "InvalidPayload",
        f"the payload does not fit {capability}: {count} {'error' if count == 1 else 'errors'}; {_first(error)}",
        reason=FailureReason.REJECTED,
        retryable=False,
        details=_errors(error),
    )


def invalid_output(capability: str, error: Exception) -> Outcome:
    """Return the outcome of a method that did not return what it declares."""
    found, shown = (_errors(error), _first(error)) if isinstance(error, ValidationError) else (None, _shown(error))
    message = f"{capability} did not return what its annotation says: {shown}"
    return failed("InvalidOutput", message, retryable=False, details=found)


def illegible_output(capability: str, why: str) -> Outcome:
    """Return the outcome of a method whose output is JSON that nobody can read."""
    message = f"{capability} returned what cannot be read back from JSON ({why}): return less deep data, or a text"
    return failed("InvalidOutput", message, retryable=False)


def endless_output(capability: str) -> Outcome:
    """Return the outcome of a method whose output has a number that JSON has not."""
    message = f"{capability} returned a number that is NaN or infinite, which JSON has not: return None, or a text"
    return failed("InvalidOutput", message, retryable=False)


def raised(error: BaseException) -> Outcome:
    """Return the outcome of an exception in the user's code."""
    rejected = isinstance(error, Reject)
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)
    except BaseException as problem:  # noqa: BLE001 - the user's __str__; nothing of it may end the worker
        message = f"(its text cannot be had: {type(problem).__name__})"
    told: dict[str, Any] = {
        "type": plain("Reject" if rejected else name, _TYPE_LIMIT),
        "message": plain(message, _MESSAGE_LIMIT),
    }
    if isinstance(error, Reject):
        told["details"] = _json(error.details)
        return Outcome(TaskStatus.FAILED, error=told, reason=FailureReason.REJECTED, retryable=False)
    told["traceback"] = _traceback(error)
    after = error.after if isinstance(error, RetryLater) else None
    return Outcome(TaskStatus.FAILED, error=told, reason=FailureReason.ERROR, retry_after=after)


def _traceback(error: BaseException) -> str:
    # The first frames are those of the pipeline and of the thread pool, which tell the author nothing.
    first = error.__traceback__
    while first is not None and first.tb_frame.f_code.co_filename.endswith(_OURS):
        first = first.tb_next
    lines = traceback.format_exception(type(error), error, first or error.__traceback__, limit=-_FRAMES_LIMIT)
    return plain("".join(lines), _TRACEBACK_LIMIT, keep_end=True)


def plain(text: str, limit: int, *, keep_end: bool = False) -> str:
    """Return `text` within `limit` characters and without lone surrogates, which JSON cannot carry."""
    if len(text) > limit:
        text = f"…{text[1 - limit :]}" if keep_end else f"{text[: limit - 1]}…"
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-8", "replace").decode()
    return text


def _json(details: Any) -> Any:  # noqa: ANN401 - opaque JSON in, opaque JSON out
    """Return `details`, or a text about them, as plain JSON that can be sent, can be read, and is not huge."""
    if details is None:
        return None
    try:
        body = to_json(details, inf_nan_mode="constants")
    except Exception:  # noqa: BLE001 - whatever the user's objects raise while they are read
        return _shown(details)
    if len(body) > _DETAILS_LIMIT:
        return f"(left out: {len(body):,} bytes of JSON)"
    if why := why_illegible_details(body):
        return f"(left out: {why})"
    return from_json(body)  # the user's own objects may have changed when the report is written


def _shown(thing: object) -> str:
    try:
        return plain(repr(thing), _MESSAGE_LIMIT)
    except Exception as problem:  # noqa: BLE001 - the user's __repr__
        return f"(a {type(thing).__name__} that cannot be shown: {type(problem).__name__})"


def _errors(error: ValidationError) -> list[Any]:
    # Without the input, which may be large or secret, and without what only Python can read.
    return list(error.errors(include_url=False, include_context=False, include_input=False))[:_ERRORS_LIMIT]


def _first(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = ".".join(str(step) for step in first["loc"])
    return f"{where}: {first['msg']}" if where else str(first["msg"])
