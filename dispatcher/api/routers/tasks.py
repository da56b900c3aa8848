"""Submitting tasks, looking at them."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Response

from bus.explanations import Explanation
from bus.records import TaskInDB, TaskQueueStatus
from bus.task_pages import TaskPages
from dispatcher.api.admission import Reads, ReadsTask, TaskIdPath
from dispatcher.api.filtering import Where
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
    NewTask,
    TaskList,
    Timeline,
)
from dispatcher.api.strict import StrictRoute
from dispatcher.api.timeline import timeline_of

router: Final = APIRouter(prefix="/tasks", tags=["tasks"], route_class=StrictRoute)

OF_TASK: Final = (UNKNOWN_TASK, UNKNOWN_POOL, NOT_READ_YET, UNREADABLE_TASK)


@router.get("", summary="List tasks", response_model=TaskList, responses=declared(UNKNOWN_POOL, INVALID_CURSOR))
async def list_tasks(
    visit: Reads,
    where: Where,
    limit: Annotated[int, Query(ge=1, le=500, description="Most tasks of a page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")] = None,
) -> Response:
    """List the tasks of a pool: delayed ones, waiting ones in their order, those in agents' hands, ended ones.

    A task that stays as it is appears exactly once however many others come and go meanwhile, one that moves on at
    least once. A page looks at 500 records at most, so with filters other than `status` it may be short: go on until
    `next` is null.
    """
    page = await TaskPages(visit.site.redis, visit.names).page(where, cursor, limit=limit)
    body = TaskList.model_construct(tasks=tuple(page.tasks), next=page.cursor).model_dump_json()
    return Response(body, media_type="application/json")  # FastAPI would validate once more what is valid


@router.post("/plan", summary="Ask what would become of a task", responses=declared(UNKNOWN_POOL, NO_LEADER, BUSY))
async def plan(visit: Reads, task: NewTask) -> Explanation:
    """Ask the leader what would become of such a task now: who could do it, what is missing. Nothing is submitted."""
    async with visit.site.question():
        return await visit.site.operations.plan(task.model_copy(update={"pool": visit.names.pool}))


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


@router.get("/{task_id}/children", summary="The children of a task", responses=declared(*OF_TASK))
async def children(
    visit: ReadsTask,
    task_id: TaskIdPath,
    limit: Annotated[int, Query(ge=1, le=500, description="Most tasks of the list.")] = 100,
) -> TaskList:
    """List the tasks that a task has submitted, the oldest first; the task's `children` says how many there are."""
    await record_of_task(visit, task_id)
    found = await visit.site.operations.children(task_id, limit=limit)
    return TaskList(tasks=tuple(found), next=None)
