"""Reading the ledger of one pool: records, lists, numbers. Never writes, and needs no leader."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from pydantic_core import from_json

from bus.connection import Redis
from bus.errors import ScheduleError, first_problem
from bus.filters import TaskFacts, TaskFilter
from bus.messages import ScheduleInfo, ScheduleProgress, ScheduleRun, ScheduleSpec, SubmitTask
from bus.messages.schedules import AS_STORED
from bus.names import SCHEDULE_PROGRESS_NOTE, SCHEDULES_NOTE, PoolNames
from bus.placement import placed_because
from bus.records import AgentInfo, AgentWorkload, Guard, Run, Task, TaskInDB, TaskQueueStatus
from bus.states import TERMINAL, TaskPriority, TaskStatus

PAGE: Final = 200

HANDED_BACK: Final = frozenset({"returned", "undelivered"})
"""Outcomes of attempts that were not begun."""

_ACTIVE: Final = frozenset({TaskStatus.ASSIGNED, TaskStatus.RUNNING})


class TaskList(list[Task]):
    """Tasks that were found; `complete` is False if there may be others beyond those that were looked at."""

    complete: bool = True


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

    async def tasks(self, where: TaskFilter, limit: int, look_at: int) -> TaskList:
        """Return at most `limit` tasks that match: in agents' hands, then waiting by order, then ended, latest first.

        Records are read page by page until so many are found or `look_at` were read, whichever comes first.
        """
        found = TaskList()
        async for task_id, row in self._rows(where):
            if not look_at or len(found) == limit:
                found.complete = False
                break
            look_at -= 1
            if row[0] is None:
                continue
            task, facts = listed(self._names.pool, task_id, row)
            if where.matches(facts):
                found.append(task)
        return found

    async def dead_ids(self, where: TaskFilter) -> AsyncIterator[str]:
        """Yield the ids of all dead letters that match, the oldest first; those that come meanwhile may be missing.

        The index is read to its end before the first is told, for it changes under whoever acts on what is told.
        """
        scan = self._redis.zscan_iter(self._names.dead, count=PAGE)
        failed_at: dict[str, float] = {raw.decode(): score async for raw, score in scan}
        ids = sorted(failed_at, key=failed_at.__getitem__)
        for start in range(0, len(ids), PAGE):
            page = ids[start : start + PAGE]
            if where.empty:
                for task_id in page:
                    yield task_id
                continue
            for task_id, row in zip(page, await self._read(page), strict=True):
                if row[0] is not None and where.matches(listed(self._names.pool, task_id, row)[1]):
                    yield task_id

    async def _rows(self, where: TaskFilter) -> AsyncIterator[tuple[str, Any]]:
        for index, backwards in self._indexes(where):
            async for found in self._rows_of(index, backwards=backwards):
                yield found

    async def _rows_of(self, index: str, *, backwards: bool) -> AsyncIterator[tuple[str, Any]]:
        start = 0
        while True:
            ids: Any = await self._redis.zrange(index, start, start + PAGE - 1, desc=backwards)
            if not ids:
                break
            start += len(ids)
            page = [raw.decode() for raw in ids]
            for task_id, row in zip(page, await self._read(page), strict=True):
                yield task_id, row

    async def _read(self, page: Sequence[str]) -> list[Any]:
        async with self._redis.pipeline(transaction=False) as pipe:
            for task_id in page:
                pipe.hmget(self._names.task(task_id), ["state", "spec", "run"])
            return await pipe.execute()

    def _indexes(self, where: TaskFilter) -> Sequence[tuple[str, bool]]:
        """Return the indexes in which matching tasks may stand, each with whether it is read backwards."""
        names = self._names
        asked = set(where.status or TaskStatus)
        if where.reason:
            asked &= {TaskStatus.FAILED}
        if where.ended_after is not None or where.ended_before is not None:
            asked &= TERMINAL
        ended = asked & TERMINAL
        return [
            *([(names.leases, False)] if asked & _ACTIVE else []),
            *([(names.pending, False), (names.delayed, False)] if TaskStatus.PENDING in asked else []),
            *([(names.dead if ended == {TaskStatus.FAILED} else names.finished, True)] if ended else []),
        ]

    async def status(self, task_id: str) -> TaskStatus | None:
        """Return a task's status; None if the ledger has no such task."""
        guard: Any = await self._redis.hget(self._names.task(task_id), "state")
        return None if guard is None else Guard.parse(guard.decode()).status

    async def statuses(self, task_ids: Sequence[str]) -> dict[str, TaskStatus | None]:
        """Return the status of each task; None of those that the ledger does not have."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for task_id in task_ids:
                pipe.hget(self._names.task(task_id), "state")
            guards: list[bytes | None] = await pipe.execute()
        return {
            task_id: None if guard is None else Guard.parse(guard.decode()).status
            for task_id, guard in zip(task_ids, guards, strict=True)
        }

    async def children(self, task_id: str, limit: int) -> list[Task]:
        """Return at most `limit` children of a task, in the order of their submission."""
        found: list[Task] = []
        async for child_id, row in self._rows_of(self._names.children(task_id), backwards=False):
            if row[0] is not None:
                found.append(listed_task(self._names.pool, child_id, row))
                if len(found) >= limit:
                    break
        return found

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
            pipe.time()
            *records, loads, (seconds, micros) = await pipe.execute()
        now = int(seconds) * 1000 + int(micros) // 1000
        return [
            AgentInfo.model_validate(
                {**from_json(record), "workload": None if load is None else AgentWorkload.model_validate_json(load)}
            ).seen_at(now)
            for record, load in zip(records, loads, strict=True)
            if record is not None
        ]

    async def schedules(self) -> list[ScheduleInfo]:
        """Return every schedule, by id."""
        ids: Any = await self._redis.hkeys(self._names.notes(SCHEDULES_NOTE))
        found: list[ScheduleInfo] = []
        for start in range(0, len(ids), PAGE):
            found += await self._schedules([raw.decode() for raw in ids[start : start + PAGE]])
        return sorted(found, key=lambda info: info.spec.id)

    async def schedule_page(self, after: str, limit: int) -> tuple[list[ScheduleInfo], str | None]:
        """Return at most `limit` schedules behind the id `after`, by id, and the last id if there are more."""
        keys: Any = await self._redis.hkeys(self._names.notes(SCHEDULES_NOTE))
        ids = sorted(found for raw in keys if (found := raw.decode()) > after)
        page = ids[:limit]
        return await self._schedules(page) if page else [], page[-1] if len(ids) > limit else None

    async def schedule(self, schedule_id: str) -> ScheduleInfo | None:
        """Return one schedule, or None."""
        found = await self._schedules([schedule_id])
        return found[0] if found else None

    async def _schedules(self, ids: list[str]) -> list[ScheduleInfo]:
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(self._names.notes(SCHEDULES_NOTE), ids)
            pipe.hmget(self._names.notes(SCHEDULE_PROGRESS_NOTE), ids)
            specs, progress = await pipe.execute()
        return [
            _schedule(schedule_id, spec, how_far)
            for schedule_id, spec, how_far in zip(ids, specs, progress, strict=True)
            if spec is not None and how_far is not None
        ]


def _schedule(schedule_id: str, spec: bytes, progress: bytes) -> ScheduleInfo:
    try:
        return ScheduleInfo(
            spec=ScheduleSpec.model_validate_json(spec, context=AS_STORED),
            progress=ScheduleProgress.model_validate_json(progress),
        )
    except ValidationError as error:
        raise ScheduleError(
            f"schedule {schedule_id} cannot be read ({first_problem(error)}): is this program older than the "
            f"dispatcher? If not, `callboard schedules delete {schedule_id}`"
        ) from error


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
        cancellation=run.cancellation,
        requeues=run.requeues,
        placed_because=placed_because(run.why, spec.prefers, spec.sticky) if run.why else None,
    )


class ListedSpec(BaseModel):
    """What lists show of a submission: its other fields, the payload among them, are not even looked at."""

    model_config = ConfigDict(extra="ignore")

    capability: str = ""
    priority: TaskPriority = TaskPriority.MEDIUM
    max_attempts: int = 3
    tags: tuple[str, ...] = ()
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    fairness_key: str | None = None
    schedule: ScheduleRun | None = None
    parent: str | None = None
    depth: int = 0
    trace: str | None = None


def listed_task(pool: str, task_id: str, row: Sequence[bytes | None]) -> Task:
    """Make the view of a record's fields state, spec and run, of which a list shows thousands."""
    return listed(pool, task_id, row)[0]


def listed(pool: str, task_id: str, row: Sequence[bytes | None]) -> tuple[Task, TaskFacts]:
    """Return the view of a record, and what a filter may ask of it."""
    state, spec_json, run_json = row
    guard = Guard.parse((state or b"").decode())
    spec = ListedSpec.model_validate_json(spec_json or b"{}")
    run = Run.model_validate_json(run_json or b"{}")
    task = Task.model_validate(task_fields(pool, task_id, guard, spec, run))
    facts = TaskFacts(
        status=task.status,
        capability=task.capability,
        priority=task.priority,
        tags=task.tags,
        fairness_key=spec.fairness_key,
        agent_id=task.agent_id,
        enqueued_at=task.enqueued_at,
        ended_at=task.finished_at,
        reason=task.reason,
        error_type=None if task.error is None else task.error.type,
    )
    return task, facts


def _uncounted(run: Run) -> int:
    before = run.requeues[-1].attempt if run.requeues else 0
    return before + sum(past.attempt > before and past.outcome in HANDED_BACK for past in run.attempts)


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
        "uncounted": _uncounted(run),
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
        "schedule": spec.schedule,
        "tags": spec.tags,
        "metadata": spec.metadata,
        "parent": spec.parent,
        "depth": spec.depth,
        "trace": spec.trace or (task_id if run.children and spec.parent is None else None),
        "children": run.children,
        "waiting": run.waiting and guard.status is TaskStatus.RUNNING,
    }
