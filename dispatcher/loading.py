"""What a new leader reads of the ledger: agents, tasks in agents' hands, delayed tasks, waiting ones in their order.

Read before the leader's first write and after its predecessor's last (the fence is up), so the indexes hold still
while they are paged through. A record that cannot be read is reported and left where it is: one bad record must not
keep a whole pool without a leader.
"""

import logging
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from pydantic import ValidationError

from bus.connection import Redis
from bus.messages import TaskHeader
from bus.names import PoolNames
from bus.records import AgentRecord, Guard, Run
from dispatcher.core.decisions import Note, NoteKind
from dispatcher.core.model import AgentState
from dispatcher.core.record import StoredTask, restore_agent

LOG: Final = logging.getLogger("callboard.dispatcher")

PAGE: Final = 1000


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


async def load_tasks(redis: Redis, names: PoolNames) -> AsyncIterator[list[StoredTask]]:
    """Yield all live tasks in pages."""
    for index in (names.leases, names.delayed, names.pending):
        start = 0
        while True:
            ids: Any = await redis.zrange(index, start, start + PAGE - 1)
            if not ids:
                break
            start += len(ids)
            async with redis.pipeline(transaction=False) as pipe:
                for raw in ids:
                    pipe.hmget(names.task(raw.decode()), ["state", "spec", "run"])
                rows: list[Any] = await pipe.execute()
            read = [read_task(raw.decode(), row) for raw, row in zip(ids, rows, strict=True)]
            yield [loaded for loaded in read if loaded is not None and not loaded.guard.status.terminal]


async def load_guards(redis: Redis, names: PoolNames, task_ids: Sequence[str]) -> list[str]:
    """Return the guards of tasks as they are stored, empty for those without a record."""
    async with redis.pipeline(transaction=False) as pipe:
        for task_id in task_ids:
            pipe.hget(names.task(task_id), "state")
        rows: list[bytes | None] = await pipe.execute()
    return ["" if row is None else row.decode() for row in rows]


def read_task(task_id: str, row: Sequence[bytes | None]) -> StoredTask | None:
    """Return the record of a task by its fields state, spec and run; None for what is not there, or not readable."""
    state, spec, run = row
    if state is None:
        LOG.error("task %s: it stands in an index and has no record", task_id)
        return None
    try:
        guard = Guard.parse(state.decode())
        header = TaskHeader.model_validate_json(spec or b"")
        return StoredTask(task_id, guard, header, Run.model_validate_json(run or b""))
    except ValueError as error:
        LOG.error("task %s: its record cannot be read and is left alone: %s", task_id, error)  # noqa: TRY400
        return None


async def load_notes(redis: Redis, names: PoolNames) -> list[Note]:
    """Return what else the leaders before had to remember."""
    notes: list[Note] = []
    for kind in NoteKind:
        async for field, value in redis.hscan_iter(names.notes(kind), count=PAGE):
            notes.append(Note(kind, field.decode(), value))
    return notes
