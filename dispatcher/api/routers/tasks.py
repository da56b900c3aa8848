"""Submitting tasks, looking at them, cancelling them."""

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from bus.explanations import Explanation
from bus.ids import AGENT_ID_PATTERN, CAPABILITY_PATTERN, task_pool
from bus.records import Guard, TaskInDB, TaskQueueStatus
from bus.states import TaskPriority, TaskStatus
from bus.task_pages import TaskFilter, TaskPages
from dispatcher.api.admission import OperatesAnywhere, Reads, ReadsTask, TaskIdPath, site_of
from dispatcher.api.json_bodies import JsonRoute
from dispatcher.api.looking import record_of_task
from dispatcher.api.problems import (
    BUSY,
    INVALID_CURSOR,
    NO_LEADER,
    NOT_READ_YET,
    UNKNOWN_POOL,
    UNKNOWN_TASK,
    UNREADABLE_TASK,
    declared,
)
from dispatcher.api.schemas.tasks import (
    CancelRequest,
    CancelResponse,
    NewTask,
    TaskList,
    Timeline,
)
from dispatcher.api.timeline import timeline_of

router: Final = APIRouter(prefix="/tasks", tags=["tasks"], route_class=JsonRoute)

OF_TASK: Final = (UNKNOWN_TASK, UNKNOWN_POOL, NOT_READ_YET, UNREADABLE_TASK)


@router.get("", summary="List tasks", response_model=TaskList, responses=declared(UNKNOWN_POOL, INVALID_CURSOR))
async def list_tasks(
    visit: Reads,
    status: Annotated[list[TaskStatus] | None, Query(max_length=6, description="Only tasks of these statuses.")] = None,
    capability: Annotated[
        str | None, Query(pattern=CAPABILITY_PATTERN, description="Only tasks for this capability.")
    ] = None,
    priority: Annotated[TaskPriority | None, Query(description="Only tasks of this priority.")] = None,
    agent: Annotated[
        str | None, Query(pattern=AGENT_ID_PATTERN, description="Only tasks that this agent has, or had last.")
    ] = None,
    tag: Annotated[str | None, Query(min_length=1, max_length=64, description="Only tasks with this tag.")] = None,
    limit: Annotated[int, Query(ge=1, le=500, description="Most tasks of a page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")] = None,
) -> Response:
    """List the tasks of a pool: delayed ones, waiting ones in their order, those in agents' hands, ended ones.

    A task that stays as it is appears exactly once however many others come and go meanwhile, one that moves on at
    least once. A page looks at 500 records at most, so with filters other than `status` it may be short: go on until
    `next` is null.
    """
    wanted = TaskFilter(frozenset(status or ()), capability, priority, agent, tag)
    page = await TaskPages(visit.site.redis, visit.names).page(wanted, cursor, limit=limit)
    body = TaskList.model_construct(tasks=tuple(page.tasks), next=page.cursor).model_dump_json()
    return Response(body, media_type="application/json")  # FastAPI would validate once more what is valid


@router.post("/plan", summary="Ask what would become of a task", responses=declared(UNKNOWN_POOL, NO_LEADER, BUSY))
async def plan(visit: Reads, task: NewTask) -> Explanation:
    """Ask the leader what would become of such a task now: who could do it, what is missing. Nothing is submitted."""
    async with visit.site.question():
        return await visit.site.operations.plan(task.model_copy(update={"pool": visit.names.pool}))


@router.post("/cancel", status_code=202, summary="Cancel tasks", responses=declared(UNKNOWN_POOL))
async def cancel(caller: OperatesAnywhere, request: Request, asked: CancelRequest) -> CancelResponse:
    """Ask the leader to give up tasks, of any pools. The answer says what their records told when it was asked."""
    site = site_of(request)
    ids = tuple(dict.fromkeys(asked.task_ids))
    for pool in {task_pool(task_id) for task_id in ids}:
        caller.check_pool(pool)
        await site.names(pool)
    async with site.redis.pipeline(transaction=False) as pipe:
        for task_id in ids:
            pipe.hget(site.link.names_of(task_id).task(task_id), "state")
        states: list[Any] = await pipe.execute()
    sorted_out: dict[str, list[str]] = {"requested": [], "ended": [], "unknown": []}
    for task_id, state in zip(ids, states, strict=True):
        sorted_out[_fate(state)].append(task_id)
    if wanted := [*sorted_out["requested"], *sorted_out["unknown"]]:
        await site.operations.cancel(wanted, asked.reason)
    return CancelResponse.model_validate(sorted_out)


def _fate(state: bytes | None) -> str:
    if state is None:
        return "unknown"
    return "ended" if Guard.parse(state.decode()).status.terminal else "requested"


@router.get("/queue/status", summary="How much waits and runs", responses=declared(UNKNOWN_POOL))
async def queue_status(visit: Reads) -> TaskQueueStatus:
    """Return how many tasks of a pool wait, are delayed, run, or wait to be read."""
    return await visit.site.link.view(visit.names.pool).queue_status()


@router.get("/{task_id}", summary="One task", responses=declared(*OF_TASK))
async def task(visit: ReadsTask, task_id: TaskIdPath) -> TaskInDB:
    """Return all that is stored of a task; of a waiting one also why it waits."""
    return await record_of_task(visit, task_id)


@router.get("/{task_id}/explain", summary="Why a task waits", responses=declared(*OF_TASK, NO_LEADER, BUSY))
async def explain(visit: ReadsTask, task_id: TaskIdPath) -> Explanation:
    """Say why a task waits, in numbers, or why it is where it is; of an ended one how it ended, and why there."""
    async with visit.site.question():
        return await visit.site.operations.explain(task_id)


@router.get("/{task_id}/timeline", summary="The life of a task", responses=declared(*OF_TASK))
async def timeline(visit: ReadsTask, task_id: TaskIdPath) -> Timeline:
    """Return what has happened to a task so far: each attempt, by whom, and how it ended."""
    return timeline_of(await record_of_task(visit, task_id))
