"""What operators want of tasks beside cancelling them: end an attempt, try again, change a priority."""

from typing import Final

from fastapi import APIRouter, Request

from bus.errors import UnknownTaskError
from dispatcher.api.admission import OperatesAnywhere, OperatesTask, PoolQuery, TaskIdPath, site_of
from dispatcher.api.looking import record_of_task
from dispatcher.api.problems import (
    BUSY,
    NEVER_VALID,
    NO_LEADER,
    NOT_DEAD,
    NOT_READ_YET,
    NOT_RUNNING,
    UNKNOWN_POOL,
    UNKNOWN_TASK,
    UNREADABLE_TASK,
    ProblemError,
    declared,
)
from dispatcher.api.routers.cancelling import SWEEP_S, admit
from dispatcher.api.schemas.tasks import (
    PriorityRequest,
    Reprioritised,
    ReprioritiseRequest,
    Requeued,
    RetryRequest,
    TimedOut,
    TimeoutRequest,
)
from dispatcher.api.strict import StrictRoute
from dispatcher.api.waits import allow

router: Final = APIRouter(prefix="/tasks", tags=["tasks"], route_class=StrictRoute)

_OF_TASK: Final = (UNKNOWN_TASK, UNKNOWN_POOL, NOT_READ_YET, UNREADABLE_TASK, NO_LEADER, BUSY)


@router.post(
    "/{task_id}/timeout", summary="Declare a running attempt overdue", responses=declared(*_OF_TASK, NOT_RUNNING)
)
async def timeout(visit: OperatesTask, task_id: TaskIdPath, asked: TimeoutRequest | None = None) -> TimedOut:
    """End the attempt of a RUNNING task as if its `run_timeout` were over: it is tried again or FAILED, by its policy.

    Its code is told to stop, and a next attempt may begin before it has. The attempt that runs now is meant, or the one
    that is named; a request that is sent twice does not hit the next one, and is answered by `not-running`.
    """
    asked = asked or TimeoutRequest()
    await record_of_task(visit, task_id)
    async with visit.site.question():
        told = await visit.site.operations.timeout(task_id, asked.reason, attempt=asked.attempt, by=visit.caller.by)
    return TimedOut(task_id=task_id, attempt=told.attempt, status=told.status)


@router.post(
    "/{task_id}/retry", summary="Try a failed task again", responses=declared(*_OF_TASK, NOT_DEAD, NEVER_VALID)
)
async def retry(visit: OperatesTask, task_id: TaskIdPath, asked: RetryRequest | None = None) -> Requeued:
    """Give a FAILED task a new life: it waits for an agent again, and its attempts are counted anew.

    A task that is live, or has ended otherwise, is `not-dead`: it is left as it is.
    """
    asked = asked or RetryRequest()
    record = await record_of_task(visit, task_id)
    async with visit.site.question():
        told = await visit.site.dead.requeue(
            [task_id], priority=asked.priority, reason=asked.reason, by=visit.caller.by
        )
    if told.unknown:
        raise UnknownTaskError(task_id)
    if told.not_dead:
        raise ProblemError(
            NOT_DEAD,
            f"the task is {record.status}: only one that is FAILED is tried again",
            facts={"status": record.status},
        )
    if told.refused:
        raise ProblemError(NEVER_VALID, "its payload was not kept: submit it anew, as it should be")
    return Requeued(task_id=task_id)


@router.post(
    "/{task_id}/reprioritise",
    status_code=202,
    summary="Give a task another priority",
    responses=declared(UNKNOWN_TASK, UNKNOWN_POOL, NOT_READ_YET, UNREADABLE_TASK),
)
async def reprioritise_one(visit: OperatesTask, task_id: TaskIdPath, asked: PriorityRequest) -> Reprioritised:
    """Ask that a task have another priority; it is stored. One that has ended stays as it is."""
    await record_of_task(visit, task_id)
    await visit.site.operations.reprioritise([task_id], asked.priority)
    return Reprioritised(priority=asked.priority, requested=(task_id,))


@router.post(
    "/reprioritise",
    status_code=202,
    summary="Give tasks another priority",
    responses=declared(UNKNOWN_POOL, NO_LEADER),
)
async def reprioritise(
    caller: OperatesAnywhere, request: Request, asked: ReprioritiseRequest, pool: PoolQuery = None
) -> Reprioritised:
    """Ask that tasks have another priority: some by their ids, or all live ones of a pool that meet conditions.

    Of tasks by their ids the request is stored; by conditions it is done when the answer comes.
    """
    site = site_of(request)
    await admit(site, caller, asked.ids, pool)
    if (where := asked.conditions) is None:
        await site.operations.reprioritise(asked.ids, asked.priority)
        return Reprioritised(priority=asked.priority, requested=asked.ids)
    allow(request, SWEEP_S)
    async with site.question():
        matched = await site.operations.reprioritise_matching(where, asked.priority, by=caller.by, pool=pool)
    return Reprioritised(priority=asked.priority, matched=matched)
