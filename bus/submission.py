"""From tasks to entries of the intake streams: many in one script call, stored when the call returns.

A submission whose reply was lost is sent again until `RETRY_FOR_S` is over. That is harmless: a task's id is made
before the first try, and the leader drops a second entry with the same id; where tasks are bounded, the script itself
knows the call.
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from time import monotonic
from typing import Any, Final, NamedTuple

from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python

from bus.connection import CONNECTION_ERRORS, Redis
from bus.endless import may_be_endless
from bus.errors import BusUnavailableError, PayloadTooLargeError, QueueFullError, SubmissionError
from bus.ids import ClientId, Pool, TaskId, keyed_task_id, new_nonce, new_task_id
from bus.messages import MAX_BODY_BYTES, VERSION
from bus.names import PoolNames, pool_names
from bus.records import TaskCreate
from bus.script import Arg, Script
from bus.states import TaskPriority

SUBMIT: Final = Script("bus.scripts", "submit")

TASKS_PER_CALL: Final = 200
BYTES_PER_CALL: Final = 4 * 1024 * 1024
MARKER_TTL_MS: Final = 3_600_000
DECIDED_TTL_MS: Final = 30_000
"""How long a call is known that may be repeated; longer than it is repeated."""
RETRY_FOR_S: Final = 5.0
RETRY_EVERY_S: Final = 0.1


class Submission(NamedTuple):
    """A task that is ready to be sent: its id is made, its message written."""

    capability: str
    priority: TaskPriority
    keyed: bool
    task_id: TaskId
    body: bytes


_KIND: Final = itemgetter(0, 1, 2)
"""What most of a batch have in common."""


def submission_of(task: TaskCreate, default_pool: str, reply_to: ClientId | None) -> tuple[PoolNames, Submission]:
    """Give `task` its id and write its message; nobody is told its outcome if `reply_to` is None.

    Raises `SubmissionError` if it cannot be sent.
    """
    names = pool_names(task.pool or default_pool)
    return names, submission_to(names.pool, task, reply_to)


def submission_to(pool: Pool, task: TaskCreate, reply_to: ClientId | None) -> Submission:
    """Do the same for a pool that is known, whatever the task says of it."""
    key = task.key
    task_id = new_task_id(pool) if key is None else keyed_task_id(pool, key)
    return written(task, task_id, reply_to, content_of(task), keyed=key is not None)


_CONTENT: Final = tuple(name for name in TaskCreate.model_fields if name != "pool")
_USUAL: Final = frozenset({"capability", "payload"})


def content_of(task: TaskCreate) -> bytes:
    """Return the part of a task's message that was given: a JSON object. Raises `SubmissionError` if it is none."""
    values, given = task.__dict__, task.__pydantic_fields_set__
    if given == _USUAL:  # of a name nothing has to be escaped, it matches its pattern
        capability = task.capability
        return b'{"capability":"%b","payload":%b}' % (capability.encode(), _json(task.payload, capability))
    return _json({name: values[name] for name in _in_order(frozenset(given))}, task.capability)


@lru_cache(maxsize=1024)
def _in_order(given: frozenset[str]) -> tuple[str, ...]:
    """Return the fields that were given in the order in which they are written; most tasks give the same ones."""
    return tuple(name for name in _CONTENT if name in given)


def written(
    task: TaskCreate, task_id: TaskId, reply_to: ClientId | None, content: bytes, *, keyed: bool, more: bytes = b""
) -> Submission:
    """Write a task's message: who it is, `more` members of it (each with a comma behind), and its content.

    Raises `PayloadTooLargeError`. Ids need no escaping, for they match their patterns.
    """
    body = b"".join((_BEGIN, task_id.encode(), _listens(reply_to), more, content[1:]))
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLargeError(len(body), MAX_BODY_BYTES)
    return Submission(task.capability, task.priority, keyed, task_id, body)


_BEGIN: Final = b'{"v":%d,"id":"' % VERSION


@lru_cache(maxsize=256)
def _listens(reply_to: ClientId | None) -> bytes:
    """Return what of a message says who is told the outcome, from the end of its id on."""
    return b'",' if reply_to is None else b'","reply_to":"%b",' % reply_to.encode()


def in_calls(submissions: Sequence[Submission]) -> Iterator[Sequence[Submission]]:
    """Cut into parts that one script call may take."""
    start = size = 0
    for n, submission in enumerate(submissions):
        if n - start == TASKS_PER_CALL or (size and size + len(submission.body) > BYTES_PER_CALL):
            yield submissions[start:n]
            start, size = n, 0
        size += len(submission.body)
    if start < len(submissions):
        yield submissions[start:]


def _json(fields: Any, capability: str) -> bytes:  # noqa: ANN401 - a payload is anything
    """Write a message, or its payload.

    Raises `SubmissionError` for what is no JSON: NaN and infinities too, which models make null.
    """
    try:
        body = to_json(fields, inf_nan_mode="constants", bytes_mode="base64")
        if may_be_endless(body) or body.find(b"null") >= 0:  # perhaps a null that is meant
            plain = to_jsonable_python(fields, inf_nan_mode="constants", bytes_mode="base64")
            from_json(to_json(plain, inf_nan_mode="constants"), allow_inf_nan=False)
    except (PydanticSerializationError, UnicodeError) as error:
        raise SubmissionError(f"the payload of {capability} is not JSON: {error}") from error
    except ValueError:
        raise SubmissionError(
            f"the payload of {capability} is not JSON: it has a number that is NaN or infinite: "
            "send null, or a text, instead"
        ) from None
    return body


class Refusal(NamedTuple):
    """Why there is no room for a submission."""

    by_pool: bool
    """The bound is the whole pool's, and not the capability's."""
    bound: int
    pending: int

    def error(self, names: PoolNames, submission: Submission) -> QueueFullError:
        """Return what its submitter is told."""
        capability = None if self.by_pool else submission.capability
        return QueueFullError(names.pool, capability, bound=self.bound, pending=self.pending)


class Sent(NamedTuple):
    """What became of the submissions of a call."""

    known: set[int]
    """Those that were submitted before, perhaps by an earlier one of the call, by their place in the call."""
    refused: dict[int, Refusal]
    """Those that there was no room for, by their place in the call."""


async def send(redis: Redis, url: str, names: PoolNames, part: Sequence[Submission]) -> Sent:
    """Store one call's submissions; return which were submitted before, and which there was no room for.

    Returns when the server has them. Raises `BusUnavailableError` when it does not answer for `RETRY_FOR_S` seconds:
    then some may have been stored, and submitting the same keyed task again is safe.
    """
    keys, args = _call(names, part)
    until = monotonic() + RETRY_FOR_S
    while True:
        try:
            known, refused = await SUBMIT.run(redis, keys, args)
        except CONNECTION_ERRORS as error:
            if monotonic() > until:
                raise BusUnavailableError(url, str(error)) from error
            await asyncio.sleep(RETRY_EVERY_S)
        else:
            return Sent(
                {position - 1 for position in known},
                {
                    position - 1: Refusal(by == b"pool", bound, pending)
                    for position, by, bound, pending in zip(*[iter(refused)] * 4, strict=True)
                },
            )


_LEVELS: Final = {level: n for n, level in enumerate(TaskPriority, 1)}
"""The place of each level's stream among the keys."""


class _Frame(NamedTuple):
    """What all calls for some capabilities of a pool have in common."""

    before: tuple[str, ...]
    """Keys before the one of what the call has decided."""
    behind: tuple[str, ...]
    args: tuple[Arg, ...]
    numbers: Mapping[str, int]
    """The number of each capability."""


@lru_cache(maxsize=1024)
def _frame(names: PoolNames, capabilities: tuple[str, ...]) -> _Frame:
    return _Frame(
        (*(names.submissions(level) for level in _LEVELS), names.bounds),
        (names.queue("*"), *map(names.queue, capabilities)),
        (MARKER_TTL_MS, DECIDED_TTL_MS, len(capabilities), *capabilities),
        {name: n for n, name in enumerate(capabilities, 1)},
    )


def _call(names: PoolNames, part: Sequence[Submission]) -> tuple[list[str], list[Arg]]:
    """Return KEYS and ARGV of the call that stores `part`: in runs of those that are alike but for id and body."""
    runs = [(kind, list(alike)) for kind, alike in groupby(part, _KIND)]
    before, behind, head, numbers = _frame(names, tuple(dict.fromkeys([kind[0] for kind, _ in runs])))
    keys, args = [*before, names.offer(new_nonce()), *behind], [*head]
    for (capability, level, keyed), alike in runs:
        args += (_LEVELS[level], numbers[capability], len(keys) + 1 if keyed else 0, len(alike))
        for _, _, _, task_id, body in alike:
            args += (task_id, body)
            if keyed:
                keys += (names.task(task_id), names.submitted(task_id))
    return keys, args
