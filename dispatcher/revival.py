"""Brings the records of dead letters to the scheduler, which does no I/O and does not keep what has ended.

Read when all that was decided is stored (the engine waits for that): nobody else writes records, so what is read here
is what the commit's guards will find, and no client can provoke a conflict by what it asks for, or how often. Only
time can take a record away between the reading and the commit; so each is first given longer to live than any leader
may need. That write is harmless from whoever makes it: it adds nothing, and what was to expire still does.
"""

import logging
from collections.abc import Iterable, Sequence
from typing import Any, Final

from bus.connection import Redis
from bus.messages import PurgeDead, RequeueDead
from bus.names import PoolNames
from dispatcher.core.events import Commanded, Event, OfDeadLetters
from dispatcher.core.record import StoredTask
from dispatcher.loading import read_task

LOG: Final = logging.getLogger("callboard.dispatcher")

PAGE: Final = 500
HELD_MS: Final = 600_000
"""How long a record lives at least once it was read: longer than a lease, with which all repeating ends."""


def speaks_of_the_dead(events: Iterable[Event]) -> bool:
    """Tell whether there is any event for which `with_records` would have to read."""
    return any(isinstance(event, Commanded) and isinstance(event.command, RequeueDead | PurgeDead) for event in events)


async def with_records(redis: Redis, names: PoolNames, events: Sequence[Event]) -> list[Event]:
    """Return the events, with the records that some of them are about. Raises redis-py's connection errors."""
    asked = [
        task_id
        for event in events
        if isinstance(event, Commanded) and isinstance(event.command, RequeueDead | PurgeDead)
        for task_id in event.command.task_ids
    ]
    found = await _read(redis, names, list(dict.fromkeys(asked)))
    return [
        OfDeadLetters(event.command, found, event.at)
        if isinstance(event, Commanded) and isinstance(event.command, RequeueDead | PurgeDead)
        else event
        for event in events
    ]


async def _read(redis: Redis, names: PoolNames, task_ids: Sequence[str]) -> dict[str, StoredTask]:
    found: dict[str, StoredTask] = {}
    for start in range(0, len(task_ids), PAGE):
        page = task_ids[start : start + PAGE]
        async with redis.pipeline(transaction=False) as pipe:
            for task_id in page:
                pipe.pexpire(names.task(task_id), HELD_MS, gt=True)
                pipe.hmget(names.task(task_id), ["state", "spec", "run"])
            rows: list[Any] = await pipe.execute(raise_on_error=False)
        for task_id, row in zip(page, rows[1::2], strict=True):
            stored = _stored(task_id, row)
            if stored is not None:
                found[task_id] = stored
    return found


def _stored(task_id: str, row: Any) -> StoredTask | None:  # noqa: ANN401 - what the server says, an error included
    if isinstance(row, Exception):
        LOG.error("task %s: its record cannot be read and is left alone: %s", task_id, row)
        return None
    return None if row[0] is None else read_task(task_id, row)
