"""Reading the ledger of one pool: records, lists, numbers. Never writes, and needs no leader."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue
from pydantic_core import from_json

from bus.connection import Redis
from bus.messages import SubmitTask
from bus.names import PoolNames
from bus.records import AgentInfo, AgentWorkload, Guard, Run, Task, TaskInDB, TaskQueueStatus
from bus.states import TaskPriority, TaskStatus

PAGE: Final = 200

_ACTIVE: Final = (TaskStatus.ASSIGNED, TaskStatus.RUNNING)


class LedgerView:
    """What anybody may know of one pool."""

    def __init__(self, redis: Redis, names: PoolNames) -> None:
        self._redis = redis
        self._names = names

    async def task(self, task_id: str) -> TaskInDB | None:
        """Return the full record of a task, with the reason why it waits; None if there is none."""
        row: Any = await self._redis.hmget(self._names.task(task_id), ["state", "spec", "run", "result"])
        if row[0] is None:
            return None
        record = record_of(self._names.pool, task_id, row)
        if record.status is not TaskStatus.PENDING:
            return record
        return record.model_copy(update={"waiting_because": await self._why(record)})

    async def _why(self, task: TaskInDB) -> str | None:
        names, spec = self._names, task.spec
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hget(names.waiting, spec.requirement_key)
            pipe.exists(names.leader)
            pipe.time()
            why, led, (seconds, micros) = await pipe.execute()
        now = int(seconds) * 1000 + int(micros) // 1000
        if not led:
            return f"no dispatcher leads pool {names.pool!r}: start one with `callboard dispatcher`"
        if task.not_before is not None and task.not_before > now:
            what = "its next attempt" if task.attempt else "it"
            return f"{what} may not start for another {(task.not_before - now) / 1000:.1f} s"
        return None if why is None else why.decode()

    async def tasks(self, status: TaskStatus | None, limit: int) -> list[Task]:
        """Return at most `limit` tasks: in agents' hands first, then waiting by order, then ended, latest first."""
        found: list[Task] = []
        async for task_id, row in self._rows(status):
            if row[0] is None:
                continue
            task = listed_task(self._names.pool, task_id, row)
            if status is None or task.status is status:
                found.append(task)
                if len(found) >= limit:
                    break
        return found

    async def _rows(self, status: TaskStatus | None) -> AsyncIterator[tuple[str, Any]]:
        for index, backwards in self._indexes(status):
            start = 0
            while True:
                ids: Any = await self._redis.zrange(index, start, start + PAGE - 1, desc=backwards)
                if not ids:
                    break
                start += len(ids)
                async with self._redis.pipeline(transaction=False) as pipe:
                    for raw in ids:
                        pipe.hmget(self._names.task(raw.decode()), ["state", "spec", "run"])
                    rows: list[Any] = await pipe.execute()
                for raw, row in zip(ids, rows, strict=True):
                    yield raw.decode(), row

    def _indexes(self, status: TaskStatus | None) -> Sequence[tuple[str, bool]]:
        names = self._names
        live = [(names.pending, False), (names.delayed, False)]
        if status is None:
            return [(names.leases, False), *live, (names.finished, True)]
        if status is TaskStatus.PENDING:
            return live
        if status in _ACTIVE:
            return [(names.leases, False)]
        return [(names.dead if status is TaskStatus.FAILED else names.finished, True)]

    async def queue_status(self) -> TaskQueueStatus:
        """Return how much waits and runs."""
        names = self._names
        async with self._redis.pipeline(transaction=False) as pipe:
            for index in (names.pending, names.delayed, names.leases, names.dead):
                pipe.zcard(index)
            for level in TaskPriority:
                pipe.xlen(names.submissions(level))
            waiting, delayed, active, dead, *unread = await pipe.execute()
        return TaskQueueStatus(
            pool=names.pool, waiting=waiting, delayed=delayed, active=active, unread=sum(unread), dead=dead
        )

    async def agents(self) -> list[AgentInfo]:
        """Return every known agent, with its workload while a leader publishes it."""
        ids: Any = await self._redis.zrange(self._names.agents, 0, -1)
        return await self._agents([raw.decode() for raw in ids])

    async def agent(self, agent_id: str) -> AgentInfo | None:
        """Return one agent, or None."""
        found = await self._agents([agent_id])
        return found[0] if found else None

    async def _agents(self, ids: list[str]) -> list[AgentInfo]:
        if not ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for agent_id in ids:
                pipe.hget(self._names.agent(agent_id), "record")
            pipe.hmget(self._names.load, ids)
            *records, loads = await pipe.execute()
        return [
            AgentInfo.model_validate(
                {**from_json(record), "workload": None if load is None else AgentWorkload.model_validate_json(load)}
            )
            for record, load in zip(records, loads, strict=True)
            if record is not None
        ]


def record_of(pool: str, task_id: str, row: Sequence[bytes | None]) -> TaskInDB:
    """Make the view of a record's fields state, spec, run and perhaps result."""
    state, spec_json, run_json, *rest = row
    guard = Guard.parse((state or b"").decode())
    spec = SubmitTask.model_validate_json(spec_json or b"{}")
    run = Run.model_validate_json(run_json or b"{}")
    result = rest[0] if rest else None
    return TaskInDB(
        **task_fields(pool, task_id, guard, spec, run),
        session=guard.session or None,
        spec=spec,
        output=None if result is None else from_json(result),
        attempts=run.attempts,
    )


class ListedSpec(BaseModel):
    """What lists show of a submission: its other fields, the payload among them, are not even looked at."""

    model_config = ConfigDict(extra="ignore")

    capability: str = ""
    priority: TaskPriority = TaskPriority.MEDIUM
    max_attempts: int = 3
    tags: tuple[str, ...] = ()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)


def listed_task(pool: str, task_id: str, row: Sequence[bytes | None]) -> Task:
    """Make the view of a record's fields state, spec and run, of which a list shows thousands."""
    state, spec_json, run_json = row
    guard = Guard.parse((state or b"").decode())
    spec = ListedSpec.model_validate_json(spec_json or b"{}")
    run = Run.model_validate_json(run_json or b"{}")
    return Task.model_validate(task_fields(pool, task_id, guard, spec, run))


def task_fields(pool: str, task_id: str, guard: Guard, spec: SubmitTask | ListedSpec, run: Run) -> dict[str, Any]:
    """Return the fields of `bus.records.Task` that the parts of a record make."""
    last = run.attempts[-1] if run.attempts else None
    return {
        "id": task_id,
        "pool": pool,
        "capability": spec.capability,
        "status": guard.status,
        "priority": run.priority or spec.priority,
        "attempt": guard.attempt,
        "max_attempts": spec.max_attempts,
        "agent_id": guard.agent_id or (last.agent_id if last and guard.status.terminal else None),
        "enqueued_at": run.enqueued_at,
        "not_before": run.not_before,
        "assigned_at": run.assigned_at,
        "started_at": run.started_at,
        "finished_at": run.finished_at,
        "progress": run.progress,
        "note": run.note,
        "reason": run.reason,
        "error": run.error,
        "tags": spec.tags,
        "metadata": spec.metadata,
    }
