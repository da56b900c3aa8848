"""From tasks to entries of the intake streams: many in one script call, stored when the call returns.

A submission whose reply was lost is sent again until `RETRY_FOR_S` is over. That is harmless: a task's id is made
before the first try, and the leader drops a second entry with the same id.
"""

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Final

from pydantic_core import PydanticSerializationError, to_json

from bus.connection import CONNECTION_ERRORS, Redis
from bus.errors import BusUnavailableError, PayloadTooLargeError, SubmissionError
from bus.ids import ClientId, TaskId, check_pool, keyed_task_id, new_task_id
from bus.messages import MAX_BODY_BYTES, VERSION
from bus.names import PoolNames
from bus.records import TaskCreate
from bus.script import Arg, Script
from bus.states import TaskPriority

SUBMIT: Final = Script("bus.scripts", "submit")

TASKS_PER_CALL: Final = 200
BYTES_PER_CALL: Final = 4 * 1024 * 1024
MARKER_TTL_MS: Final = 3_600_000
RETRY_FOR_S: Final = 5.0
RETRY_EVERY_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Submission:
    """A task that is ready to be sent: its id is made, its message written."""

    task_id: TaskId
    priority: TaskPriority
    keyed: bool
    body: bytes


def submission_of(task: TaskCreate, default_pool: str, reply_to: ClientId | None) -> tuple[PoolNames, Submission]:
    """Give `task` its id and write its message; nobody is told its outcome if `reply_to` is None.

    Raises `SubmissionError` if it cannot be sent.
    """
    pool = check_pool(task.pool or default_pool)
    task_id = new_task_id(pool) if task.key is None else keyed_task_id(pool, task.key)
    fields: dict[str, Any] = {"v": VERSION, "id": task_id}
    if reply_to is not None:
        fields["reply_to"] = reply_to
    given = task.__dict__
    for name in task.model_fields_set:
        if name != "pool":
            fields[name] = given[name]
    try:
        body = to_json(fields, inf_nan_mode="constants", bytes_mode="base64")
    except PydanticSerializationError as error:
        raise SubmissionError(f"the payload of {task.capability} is not JSON: {error}") from error
    if len(body) > MAX_BODY_BYTES:
        raise PayloadTooLargeError(len(body), MAX_BODY_BYTES)
    return PoolNames(pool), Submission(task_id, task.priority, task.key is not None, body)


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


async def send(redis: Redis, url: str, names: PoolNames, part: Sequence[Submission]) -> set[TaskId]:
    """Store one call's submissions; return the ids of those that were submitted before.

    Returns when the server has them. Raises `BusUnavailableError` when it does not answer for `RETRY_FOR_S` seconds:
    then some may have been stored, and submitting the same keyed task again is safe.
    """
    keys = {names.submissions(level): n for n, level in enumerate(TaskPriority, 1)}
    args: list[Arg] = [MARKER_TTL_MS]
    for submission in part:
        record = marker = 0
        if submission.keyed:
            record = keys.setdefault(names.task(submission.task_id), len(keys) + 1)
            marker = keys.setdefault(names.submitted(submission.task_id), len(keys) + 1)
        args += (keys[names.submissions(submission.priority)], record, marker, submission.body)
    until = monotonic() + RETRY_FOR_S
    while True:
        try:
            known: list[int] = await SUBMIT.run(redis, list(keys), args)
        except CONNECTION_ERRORS as error:
            if monotonic() > until:
                raise BusUnavailableError(url, str(error)) from error
            await asyncio.sleep(RETRY_EVERY_S)
        else:
            return {part[position - 1].task_id for position in known}
