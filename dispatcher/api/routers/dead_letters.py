"""Dead letters: looking at tasks that have FAILED, requeueing and purging them."""

from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from bus.errors import NotDeadError
from bus.messages import OfDead
from bus.records import TaskInDB
from bus.states import TaskStatus
from bus.task_pages import TaskPages
from dispatcher.api.admission import OperatesAnywhere, PoolQuery, Reads, ReadsTask, TaskIdPath, site_of
from dispatcher.api.filtering import Conditions
from dispatcher.api.looking import record_of_task
from dispatcher.api.problems import (
    BUSY,
    INVALID_CURSOR,
    NO_LEADER,
    NOT_DEAD,
    NOT_READ_YET,
    UNKNOWN_POOL,
    UNKNOWN_TASK,
    UNREADABLE_TASK,
    declared,
)
from dispatcher.api.routers.cancelling import SWEEP_S, admit
from dispatcher.api.schemas.dead_letters import DeadLettersDone, PurgeRequest, RequeueRequest
from dispatcher.api.schemas.tasks import TaskList
from dispatcher.api.strict import StrictRoute
from dispatcher.api.waits import allow

router: Final = APIRouter(prefix="/dead", tags=["dead letters"], route_class=StrictRoute)


@router.get(
    "",
    summary="List dead letters",
    responses=declared(UNKNOWN_POOL, INVALID_CURSOR),
    response_model=TaskList,
)
async def list_dead(
    visit: Reads,
    where: Conditions,
    limit: Annotated[int, Query(ge=1, le=500, description="Most tasks of a page.")] = 100,
    cursor: Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")] = None,
) -> Response:
    """List the tasks of a pool that have FAILED and are kept, the latest first, page by page as `GET /tasks`."""
    failed = where.model_copy(update={"status": (TaskStatus.FAILED,)})
    page = await TaskPages(visit.site.redis, visit.names).page(failed, cursor, limit=limit)
    body = TaskList.model_construct(tasks=tuple(page.tasks), next=page.cursor).model_dump_json()
    return Response(body, media_type="application/json")  # FastAPI would validate once more what is valid


@router.get(
    "/{task_id}",
    summary="One dead letter",
    responses=declared(UNKNOWN_TASK, UNKNOWN_POOL, NOT_READ_YET, UNREADABLE_TASK, NOT_DEAD),
)
async def dead_letter(visit: ReadsTask, task_id: TaskIdPath) -> TaskInDB:
    """Return all that is stored of a task that has FAILED: each attempt with its agent and its error, earlier lives."""
    record = await record_of_task(visit, task_id)
    if record.status is not TaskStatus.FAILED:
        raise NotDeadError(task_id, record.status)
    return record


@router.post("/requeue", summary="Try dead letters again", responses=declared(UNKNOWN_POOL, NO_LEADER, BUSY))
async def requeue(
    caller: OperatesAnywhere, request: Request, asked: RequeueRequest, pool: PoolQuery = None
) -> DeadLettersDone:
    """Give FAILED tasks a new life: the same tasks wait for an agent again, all their attempts before them.

    Some by their ids, of any pools, or all of a pool that meet conditions. It is done when the answer comes; after
    `no-leader` a part may be, and asking again is harmless.
    """
    site = site_of(request)
    await admit(site, caller, asked.ids, pool)
    if asked.conditions is not None:
        allow(request, SWEEP_S)
    async with site.question():
        told = await site.dead.requeue(
            asked.ids,
            where=asked.conditions,
            priority=asked.priority,
            reason=asked.reason,
            by=caller.by,
            pool=pool,
        )
    return _done(told)


@router.post("/purge", summary="Delete dead letters", responses=declared(UNKNOWN_POOL, NO_LEADER, BUSY))
async def purge(
    caller: OperatesAnywhere, request: Request, asked: PurgeRequest, pool: PoolQuery = None
) -> DeadLettersDone:
    """Delete FAILED tasks for good, with all that is known of them; otherwise as `requeue`."""
    site = site_of(request)
    await admit(site, caller, asked.ids, pool)
    if asked.conditions is not None:
        allow(request, SWEEP_S)
    async with site.question():
        told = await site.dead.purge(asked.ids, where=asked.conditions, by=caller.by, pool=pool)
    return _done(told)


def _done(told: OfDead) -> DeadLettersDone:
    return DeadLettersDone(done=told.done, not_dead=told.not_dead, unknown=told.unknown, refused=told.refused)
