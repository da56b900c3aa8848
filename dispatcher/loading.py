"""What a new leader reads of the ledger: agents, tasks in agents' hands, waiting ones in their order, delayed ones.

No other writes the ledger (the fence is up), but the new leader itself does while it reads: it places what it has
loaded. So the indexes are paged through by score, which holds whatever has left them meanwhile; what is told twice by
this, or has changed since, its scheduler knows by the ids. A record that cannot be read is reported and left where it
is: one bad record must not keep a whole pool without a leader.

A million tasks are read one after the other, so what they have in common is read once: equal submissions share a
header, tasks that nobody has share a guard, and those of the same millisecond their `Run`.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from functools import lru_cache
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import from_json

from bus.connection import Redis
from bus.messages import TaskHeader
from bus.names import PoolNames
from bus.records import AgentRecord, Guard, Run
from bus.task_pages import PAGE as TASK_PAGE
from bus.task_pages import RECORDS
from dispatcher.core.decisions import Note, NoteKind
from dispatcher.core.model import AgentState
from dispatcher.core.record import StoredTask, restore_agent

LOG: Final = logging.getLogger("callboard.dispatcher")

PAGE: Final = 2000
SHARED_RUN: Final = 40
"""Bytes of a `Run` that tells no more than when its task came."""
HEADERS: Final = 8_192
"""So many different headers are remembered for sharing; then it begins anew."""


async def load_agents(redis: Redis, names: PoolNames, now: int) -> list[AgentState]:
    """Return all agents that the ledger knows, their leases starting at `now`."""
    ids: Any = await redis.zrange(names.agents, 0, -1)
    agents: list[AgentState] = []
    for start in range(0, len(ids), PAGE):
        page = [raw.decode() for raw in ids[start : start + PAGE]]
        async with redis.pipeline(transaction=False) as pipe:
            for agent_id in page:
                pipe.hget(names.agent(agent_id), "record")
            rows: list[Any] = await pipe.execute()
        for agent_id, row in zip(page, rows, strict=True):
            try:
                agents += [] if row is None else [restore_agent(AgentRecord.model_validate_json(row), now)]
            except ValidationError as error:
                LOG.error("agent %s: its record cannot be read and is left alone: %s", agent_id, error)  # noqa: TRY400
    return agents


Pages = AsyncGenerator[list[StoredTask], None]


async def load_tasks(redis: Redis, names: PoolNames) -> Pages:
    """Yield all live tasks in pages, those in agents' hands first."""
    for load in (load_held, load_unheld):
        async with aclosing(load(redis, names)) as pages:
            async for page in pages:
                yield page


def load_held(redis: Redis, names: PoolNames) -> Pages:
    """Yield the tasks in agents' hands in pages."""
    return _tasks(redis, names, (names.leases,))


def load_unheld(redis: Redis, names: PoolNames) -> Pages:
    """Yield the other live tasks in pages: those that wait, the least score first, then the delayed ones."""
    return _tasks(redis, names, (names.pending, names.delayed))


async def _tasks(redis: Redis, names: PoolNames, indexes: Sequence[str]) -> Pages:
    """Yield the live tasks of some indexes in pages; one page is on its way while another is worked on."""
    reader = _Reader()
    for index in indexes:
        ahead: asyncio.Queue[tuple[list[str], list[Any]] | None] = asyncio.Queue(maxsize=1)
        fetching = asyncio.create_task(_fetch(redis, names, index, ahead), name="ledger")
        try:
            while (got := await ahead.get()) is not None:
                read = (reader.read(task_id, row) for task_id, row in zip(*got, strict=True))
                yield [loaded for loaded in read if loaded is not None and not loaded.guard.status.terminal]
            await fetching
        finally:
            fetching.cancel()
            # Its end, whatever that is, and not ours: whoever is cancelled here must learn of it.
            await asyncio.gather(fetching, return_exceptions=True)


async def _fetch(
    redis: Redis, names: PoolNames, index: str, ahead: asyncio.Queue[tuple[list[str], list[Any]] | None]
) -> None:
    try:
        async for page in _ids(redis, index):
            rows: list[Any] = await RECORDS.run(redis, [names.task(task_id) for task_id in page], [])
            await ahead.put((page, rows))
    except Exception:
        await ahead.put(None)
        raise
    await ahead.put(None)


async def _ids(redis: Redis, index: str) -> AsyncIterator[list[str]]:
    """Yield the members of an index by their score."""
    score, member = "", ""
    while True:
        flat: list[bytes] = await TASK_PAGE.run(redis, [index], [score, member, PAGE, "asc"])
        if flat:
            page = [raw.decode() for raw in flat[::2]]
            score, member = flat[-1].decode(), page[-1]
            yield page
        if len(flat) < 2 * PAGE:
            return


async def load_guards(redis: Redis, names: PoolNames, task_ids: Sequence[str]) -> list[str]:
    """Return the guards of tasks as they are stored, empty for those without a record."""
    async with redis.pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.hget(names.task(task_id), "state")
        rows: list[bytes | None] = await pipe.execute()
    return ["" if row is None else row.decode() for row in rows]


def read_task(task_id: str, row: Sequence[bytes | None]) -> StoredTask | None:
    """Return the record of a task by its fields state, spec and run; None for what is not there, or not readable."""
    return _Reader().read(task_id, row)


@lru_cache(maxsize=1024)
def _guard_of(state: bytes) -> Guard:
    return Guard.parse(state.decode())


@lru_cache(maxsize=1024)
def _plain_run(run: bytes) -> Run:
    return Run.model_validate_json(run)


class _Reader:
    """Reads records; what it returns may share its parts with others, and is not to be changed."""

    def __init__(self) -> None:
        self._headers: dict[object, TaskHeader] = {}

    def read(self, task_id: str, row: Sequence[bytes | None]) -> StoredTask | None:
        """Return the record of a task by its fields; None for what is not there, or not readable."""
        state, spec, run = row
        if state is None:
            LOG.error("task %s: it stands in an index and has no record", task_id)
            return None
        try:
            guard = _guard_of(state)
            header = self._header(spec or b"")
            # Longer ones may have parts that are changed, as a cancellation is.
            how = _plain_run(run) if run and len(run) <= SHARED_RUN else Run.model_validate_json(run or b"")
        except ValueError as error:
            LOG.error("task %s: its record cannot be read and is left alone: %s", task_id, error)  # noqa: TRY400
            return None
        return StoredTask(task_id, guard, header, how)

    def _header(self, spec: bytes) -> TaskHeader:
        """Return what a submission says; for equal ones the same object, without what is each one's own."""
        said = from_json(spec)
        if not isinstance(said, dict):
            return TaskHeader.model_validate_json(spec)
        for own in ("id", "payload", "key", "metadata", "trace"):
            said.pop(own, None)
        key: object = tuple(said.items())
        try:
            header = self._headers.get(key)
        except TypeError:  # there is a list in it
            key = repr(key)
            header = self._headers.get(key)
        if header is None:
            header = TaskHeader.model_validate_json(spec)
            if len(self._headers) >= HEADERS:
                self._headers.clear()
            self._headers[key] = header
        return header


async def load_notes(redis: Redis, names: PoolNames) -> list[Note]:
    """Return what else the leaders before had to remember."""
    notes: list[Note] = []
    for kind in NoteKind:
        async for field, value in redis.hscan_iter(names.notes(kind), count=PAGE):
            notes.append(Note(kind, field.decode(), value))
    return notes
