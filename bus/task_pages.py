"""Listing the tasks of a pool page by page, from the ledger's indexes. Never writes, and needs no leader.

A cursor names the last task that was looked at by its place in its index, (score, id), which stays as long as the task
waits, runs, or is kept: what comes and goes elsewhere moves nothing. The indexes are listed in the order in which tasks
go through them, delayed, waiting, in agents' hands, ended. So a task that stays is listed exactly once; one that moves
on meanwhile is listed at least once; only one that goes back, to be tried again, may be missed.
"""

import base64
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from bus.connection import Redis
from bus.filters import TaskFacts, TaskFilter
from bus.ids import task_pool
from bus.ledger_view import listed
from bus.names import PoolNames
from bus.records import Task
from bus.script import Script
from bus.states import TERMINAL, TaskStatus

LOG = logging.getLogger("callboard.client")

PAGE: Final = Script("bus.scripts", "page")
RECORDS: Final = Script("bus.scripts", "records")

CHUNK: Final = 100
"""Records that are read in one round trip: each may be of a megabyte."""
LOOKED_AT: Final = 500
"""Records that one page looks at, at most: then it ends, however few of them were asked for."""


class InvalidCursorError(ValueError):
    """A cursor is none of ours, or belongs to another list."""


class TaskPage(NamedTuple):
    """Some tasks, and the cursor behind the last that was looked at; None at the end of the list."""

    tasks: list[Task]
    cursor: str | None


class _Index(NamedTuple):
    letter: str
    key: Callable[[PoolNames], str]
    order: str


_DELAYED: Final = _Index("d", lambda names: names.delayed, "asc")
_WAITING: Final = _Index("w", lambda names: names.pending, "asc")
_ACTIVE: Final = _Index("a", lambda names: names.leases, "asc")
_ENDED: Final = _Index("e", lambda names: names.finished, "desc")
_DEAD: Final = _Index("x", lambda names: names.dead, "desc")


def _indexes(where: TaskFilter) -> Sequence[_Index]:
    """Return the indexes in which matching tasks may stand, in the order in which tasks go through them."""
    wanted = frozenset(where.status or TaskStatus)
    if where.reason:
        wanted &= {TaskStatus.FAILED}
    if where.ended_after is not None or where.ended_before is not None:
        wanted &= TERMINAL
    found: list[_Index] = []
    if TaskStatus.PENDING in wanted:
        found += [_DELAYED, _WAITING]
    if wanted & {TaskStatus.ASSIGNED, TaskStatus.RUNNING}:
        found.append(_ACTIVE)
    if ended := wanted & TERMINAL:
        found.append(_DEAD if ended == {TaskStatus.FAILED} else _ENDED)
    return found


class _Place(NamedTuple):
    """Where a page begins: behind a member of an index, or ('' as score) at its start."""

    at: int
    score: str = ""
    member: str = ""


class TaskPages:
    """The lists of one pool's tasks."""

    def __init__(self, redis: Redis, names: PoolNames) -> None:
        self._redis = redis
        self._names = names

    async def page(self, wanted: TaskFilter, cursor: str | None = None, *, limit: int = 100) -> TaskPage:
        """Return at most `limit` tasks behind `cursor`, from the start if it is None.

        A page may be short, or empty, and not the last: one looks at `LOOKED_AT` records at most. Ended tasks come
        latest first. Raises `InvalidCursorError`.
        """
        indexes = _indexes(wanted)
        every = wanted.model_copy(update={"status": ()}).empty
        place = _Place(0) if cursor is None else self._decode(cursor, wanted, indexes)
        found: list[Task] = []
        looked_at = 0
        while place.at < len(indexes):
            count = min(CHUNK, limit - len(found)) if every else CHUNK
            members = await self._members(indexes[place.at], place, count)
            for (member, score), task in zip(members, await self._tasks(members), strict=True):
                place = _Place(place.at, score, member)
                looked_at += 1
                if task is not None and wanted.matches(task[1]):
                    found.append(task[0])
                    if len(found) == limit:
                        return TaskPage(found, _encode(place, wanted, indexes))
            if len(members) < count:
                place = _Place(place.at + 1)
            elif looked_at >= LOOKED_AT:
                return TaskPage(found, _encode(place, wanted, indexes))
        return TaskPage(found, None)

    async def _members(self, index: _Index, place: _Place, count: int) -> list[tuple[str, str]]:
        args = (place.score, place.member, count, index.order)
        flat: list[bytes] = await PAGE.run(self._redis, [index.key(self._names)], args)
        return [(member.decode(), score.decode()) for member, score in list(pairwise(flat))[::2]]

    async def _tasks(self, members: Sequence[tuple[str, str]]) -> list[tuple[Task, TaskFacts] | None]:
        if not members:
            return []
        rows: list[Any] = await RECORDS.run(self._redis, [self._names.task(member) for member, _ in members], [])
        return list(self._read(members, rows))

    def _read(self, members: Sequence[tuple[str, str]], rows: Sequence[Any]) -> Iterator[tuple[Task, TaskFacts] | None]:
        for (member, _), row in zip(members, rows, strict=True):
            if row[0] is None:
                yield None  # its retention is over, and the index not pruned yet
                continue
            try:
                yield listed(self._names.pool, member, row)
            except ValueError:
                LOG.exception("task %s is left out of a list: its record cannot be read", member)
                yield None

    def _decode(self, cursor: str, wanted: TaskFilter, indexes: Sequence[_Index]) -> _Place:
        try:
            letter, score, member, mark = from_json(base64.b64decode(cursor, altchars=b"-_", validate=True))
            at = [index.letter for index in indexes].index(letter)
            place = _Place(at, repr(float(score)), member)
            ours = mark == _mark(wanted) and task_pool(member) == self._names.pool
        except (ValueError, TypeError):
            raise InvalidCursorError("this is no cursor: use `next` of the page before, or none") from None
        if not ours:
            raise InvalidCursorError("the cursor belongs to another list: begin without one")
        return place


def _encode(place: _Place, wanted: TaskFilter, indexes: Sequence[_Index]) -> str:
    parts = (indexes[place.at].letter, place.score, place.member, _mark(wanted))
    return base64.urlsafe_b64encode(to_json(parts)).decode()


def _mark(wanted: TaskFilter) -> str:
    """Return a text that cursors of this list have, and those of other lists have not."""
    asked = wanted.model_copy(update={"status": tuple(sorted(wanted.status)), "tags": tuple(sorted(wanted.tags))})
    return hashlib.blake2b(asked.model_dump_json(exclude_defaults=True).encode(), digest_size=9).hexdigest()
