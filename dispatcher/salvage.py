"""What can be understood of a message that cannot be read as a whole.

JSON is split at its brackets without being parsed: nesting deeper than the parser's limit, a number that is out of
range, or bytes that are no text spoil the item that they stand in, and nothing else.

Recoverable is every item that is complete by itself and stands where it belongs, and of a spoilt result its task and
attempt, if these are legible. Not recoverable is what follows the place where brackets or quotation marks no longer
match (a message that was cut off), and any report whose `agent_id` or `session` cannot be read: nobody could say of
whose attempts it speaks.
"""

import re
from typing import Final, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from bus.messages import READS, HandBack, Report, TaskError, TaskResult, TaskUpdate
from bus.states import TaskStatus

M = TypeVar("M", bound=BaseModel)

MAX_BYTES: Final = 8 * 1024 * 1024
"""Larger messages are not split: it takes about 30 ms per MiB, and the leader has its lease to renew."""

_STRING: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_TOKEN: Final = re.compile(_STRING + rb'|[{\[]++|[}\]]++|[,"]', re.DOTALL)
_MEMBER: Final = re.compile(rb"\s*+(" + _STRING + rb")\s*+:\s*+", re.DOTALL)
_OPENING: Final = b"{["
_CLOSING: Final = b"}]"
_PROBLEMS_SHOWN: Final = 5


class Salvaged(NamedTuple):
    """The readable part of a report, and what was set aside."""

    report: Report
    set_aside: list[tuple[bytes, str]]
    """Raw bytes and the reason, for each item that could not be read."""


class Split(NamedTuple):
    """A JSON array or object, taken apart."""

    parts: list[bytes]
    """Its elements, or its members, as they are."""
    rest: bytes | None
    """What follows them where its end was not found, or behind its end; None if it is whole."""


def split(raw: bytes) -> Split:
    """Take a JSON array or object apart at its top, without parsing it."""
    found: list[bytes] = []
    if raw.lstrip()[:1] not in (b"{", b"["):
        return Split(found, raw)
    depth = start = 0
    for token in _TOKEN.finditer(raw):
        text = token[0]
        if text[0] in _OPENING:
            if not depth:
                start = token.start() + 1
            depth += len(text)
        elif text[0] in _CLOSING:
            if len(text) >= depth:
                end = token.start() + depth - 1
                last = raw[start:end].strip()
                return Split([*found, last] if last else found, raw[end + 1 :].strip() or None)
            depth -= len(text)
        elif text == b",":
            if depth == 1:
                found.append(raw[start : token.start()].strip())
                start = token.end()
        elif len(text) == 1:
            break  # a string that does not end
    return Split(found, raw[start:])


def members(raw: bytes) -> tuple[dict[str, bytes], bool]:
    """Return the members of a JSON object, each value as it is; and whether nothing had to be left out.

    Where the object is cut off in an array, what there is of that array is among them.
    """
    if len(raw) > MAX_BYTES or raw.lstrip()[:1] != b"{":
        return {}, False
    parts, rest = split(raw)
    whole = rest is None
    found: dict[str, bytes] = {}
    for part in parts:
        whole &= _member(part, found)
    if rest is not None:
        cut: dict[str, bytes] = {}
        _member(rest, cut)
        found |= {name: value for name, value in cut.items() if value[:1] == b"["}
    return found, whole


def _member(raw: bytes, found: dict[str, bytes]) -> bool:
    head = _MEMBER.match(raw)
    try:
        name = None if head is None else str(from_json(head[1]))
    except ValueError:
        return False
    if head is None or name is None:
        return False
    found[name] = raw[head.end() :]
    return True


def salvage_report(body: bytes, reason: str) -> Salvaged | None:
    """Read a report item by item that is not valid as a whole, for `reason`.

    Returns None if there is nothing to be saved, or it is of a version that this program does not know.

    A result that cannot be read ends its attempt as FAILED, if task and attempt can be read: its agent has
    forgotten it, so the task would hang. It is not tried again, for the next attempt would say the same.
    """
    said, whole = members(body)
    try:
        head = Report.model_validate_json(_object(said, "v", "agent_id", "session"))
    except ValidationError:
        return None
    if head.v > READS:
        return None
    set_aside: list[tuple[bytes, str]] = []
    updates, complete = _items(TaskUpdate, said.get("updates", b"[]"), set_aside)
    whole &= complete
    already = len(set_aside)
    results, complete = _items(TaskResult, said.get("results", b"[]"), set_aside)
    whole &= complete
    failed = [_failed(raw, why) for raw, why in set_aside[already:]]
    returned, complete = _items(HandBack, said.get("returned", b"[]"), set_aside)
    whole &= complete
    results += [result for result in failed if result is not None]
    if not (updates or results or returned or set_aside):
        return None
    if not whole or not set_aside:
        set_aside.append((body, reason))
    report = Report(
        v=head.v,
        agent_id=head.agent_id,
        session=head.session,
        updates=tuple(updates),
        results=tuple(results),
        returned=tuple(returned),
    )
    return Salvaged(report, set_aside)


def _items(model: type[M], raw: bytes, set_aside: list[tuple[bytes, str]]) -> tuple[list[M], bool]:
    if raw[:1] != b"[":
        return [], False
    parts, rest = split(raw)
    good: list[M] = []
    for part in parts if rest is None else [*parts, rest]:
        try:
            good.append(model.model_validate_json(part))
        except ValidationError as error:
            set_aside.append((part, in_words(error)))
    return good, rest is None


def _failed(raw: bytes, why: str) -> TaskResult | None:
    said, _ = members(raw)
    try:
        which = HandBack.model_validate_json(_object(said, "task_id", "attempt"))
    except ValidationError:
        return None
    error = TaskError(type="InvalidReport", message=f"the agent's result could not be read: {why}"[:10_000])
    return TaskResult(
        task_id=which.task_id, attempt=which.attempt, status=TaskStatus.FAILED, error=error, retryable=False
    )


def _object(said: dict[str, bytes], *names: str) -> bytes:
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), said[name]) for name in names if name in said)


def in_words(error: ValidationError) -> str:
    """Say in one line what is wrong, naming the fields and not repeating the input."""
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    shown = [
        f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}" if problem["loc"] else problem["msg"]
        for problem in problems[:_PROBLEMS_SHOWN]
    ]
    if len(problems) > _PROBLEMS_SHOWN:
        shown.append(f"and {len(problems) - _PROBLEMS_SHOWN} more")
    return "; ".join(shown)
