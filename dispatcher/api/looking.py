"""A task's record, for whoever asks right after it was submitted.

A submission that was acknowledged may not be in the ledger yet. While submissions wait to be read, an unknown task is
therefore looked for again for a moment, and then answered by "not read yet" instead of "no such task".
"""

import asyncio
from time import monotonic
from typing import Final

from pydantic import ValidationError

from bus.errors import UnknownTaskError, UnreadableTaskError
from bus.records import TaskInDB
from dispatcher.api.admission import Visit
from dispatcher.api.problems import NOT_READ_YET, ProblemError

PATIENCE_S: Final = 1.0
_POLL_S: Final = 0.02


async def record_of_task(visit: Visit, task_id: str) -> TaskInDB:
    """Return a task's record. Raises `UnknownTaskError`, `UnreadableTaskError`, or the problem `not-read-yet`."""
    found = await find_task(visit, task_id, PATIENCE_S)
    if found is None:
        raise ProblemError(NOT_READ_YET, "it may be one of the submissions that wait: does a dispatcher run?")
    return found


async def find_task(visit: Visit, task_id: str, patience: float) -> TaskInDB | None:
    """Return a task's record; None if it may be among submissions that are still unread after `patience` seconds.

    Raises `UnknownTaskError` and `UnreadableTaskError`.
    """
    view = visit.site.link.view(visit.names.pool)
    until = monotonic() + patience
    try:
        while True:
            # Counted before the record is read: what has left its stream by then has its record.
            unread = (await view.queue_status()).unread
            record = await view.task(task_id)
            if record is not None:
                return record
            if not unread:
                raise UnknownTaskError(task_id)
            if monotonic() >= until or visit.site.stopping.is_set():
                return None
            await asyncio.sleep(_POLL_S)
    except (ValidationError, ValueError) as error:
        raise UnreadableTaskError(task_id, str(error)) from error
