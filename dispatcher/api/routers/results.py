"""The results of tasks, at once or when they are there."""

import asyncio
from time import monotonic
from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response

from bus.ids import TaskId, task_pool
from bus.messages import Outcome
from bus.records import CancelOutcome, Guard, TaskInDB
from bus.states import TaskStatus
from bus.waiting import outcome_of
from dispatcher.api.admission import AwaitsAnywhere, AwaitsTask, TaskIdPath, Visit, site_of
from dispatcher.api.looking import find_task
from dispatcher.api.problems import BUSY, UNKNOWN_POOL, UNKNOWN_TASK, UNREADABLE_TASK, declared
from dispatcher.api.routers.cancelling import admit
from dispatcher.api.schemas.tasks import Results, ResultsRequest, UnfinishedTask
from dispatcher.api.site import Site
from dispatcher.api.strict import StrictRoute
from dispatcher.api.waits import waiting

router: Final = APIRouter(prefix="/tasks", tags=["tasks"], route_class=StrictRoute)

MAX_OUTPUTS: Final = 4 * 1024 * 1024
"""Bytes of outputs after which no further ones are added to an answer."""
Wait = Annotated[
    float, Query(ge=0, le=3600, description="Seconds to wait for it; cut to what this API allows, a minute.")
]


@router.get(
    "/{task_id}/result",
    summary="The result of a task",
    response_description="It has ended: `status` says how.",
    responses={
        202: {"model": UnfinishedTask, "description": "It has not ended yet: ask again."},
        **declared(UNKNOWN_TASK, UNKNOWN_POOL, UNREADABLE_TASK, BUSY),
    },
    response_model=Outcome,
)
async def result(
    visit: AwaitsTask,
    request: Request,
    task_id: TaskIdPath,
    wait: Wait = 0.0,
) -> Outcome | Response:
    """Return how a task ended: its output, or its error. While it has not, 202 and its status.

    With `wait` the answer comes as soon as the task ends, or when the time is over. The task goes on in any case.
    """
    if wait:
        async with waiting(visit.site, request, wait) as seconds:
            ended = await _wait_for(visit, TaskId(task_id), seconds)
            if ended is not None:
                return ended
    record = await find_task(visit, task_id, 0.0)
    if record is not None and record.status.terminal:
        return _outcome(record)
    unfinished = UnfinishedTask(task_id=task_id, status=None)
    if record is not None:
        unfinished = UnfinishedTask(task_id=task_id, status=record.status, progress=record.progress, note=record.note)
    return Response(unfinished.model_dump_json(), 202, {"Retry-After": "1"}, "application/json")


async def _wait_for(visit: Visit, task_id: TaskId, seconds: float) -> Outcome | None:
    """Wait until the task ends, the time is over, or the process stops. Raises `UnknownTaskError`."""
    site = visit.site
    record = await find_task(visit, task_id, 0.0)  # says at once of what has ended, or never was
    if record is not None and record.status.terminal:
        return _outcome(record)
    outcomes = site.outcomes(visit.names)
    waiter = outcomes.waiter(task_id)
    outcomes.wait_for(waiter, watch=True)
    stopping = asyncio.create_task(site.stopping.wait())
    try:
        await asyncio.wait((waiter.outcome, stopping), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    return waiter.outcome.result() if waiter.outcome.done() else None


def _outcome(record: TaskInDB) -> Outcome:
    last = record.attempts[-1] if record.attempts else None
    ended = last if last is not None and last.ended_at == record.finished_at else None
    cancel = record.cancellation if record.status is TaskStatus.CANCELLED else None
    return Outcome(
        task_id=record.id,
        status=record.status,
        attempt=record.attempt,
        agent_id=None if ended is None else ended.agent_id,
        output=record.output,
        error=record.error,
        reason=record.reason,
        by=None if cancel is None else cancel.by or None,
        given_up=cancel is not None and cancel.outcome is CancelOutcome.GIVEN_UP,
    )


@router.post(
    "/results", summary="The results of many tasks", response_model=Results, responses=declared(UNKNOWN_POOL, BUSY)
)
async def results(caller: AwaitsAnywhere, request: Request, asked: ResultsRequest, wait: Wait = 0.0) -> Response:
    """Return how tasks ended, of any pools; which have not ended, and which are unknown.

    With `wait` the answer comes as soon as any of them has ended, or is unknown, or when the time is over: ask again
    for those that are left. Outputs of more than 4 MiB in all are not told at once: the tasks are among the unfinished,
    and the next request tells of them.
    """
    site = site_of(request)
    ids = tuple(TaskId(task_id) for task_id in dict.fromkeys(asked.task_ids))
    await admit(site, caller, ids)
    async with waiting(site, request, wait) as seconds:
        until = monotonic() + seconds
        found = await _read(site, ids)
        while not (found.ended or found.unknown or found.unreadable) and (left := until - monotonic()) > 0:
            if not await _any_ends(site, ids, left):
                break
            found = await _read(site, ids)
    return Response(found.model_dump_json(), media_type="application/json")  # it is valid, and may be large


async def _any_ends(site: Site, ids: tuple[TaskId, ...], seconds: float) -> bool:
    """Wait until one of the tasks ends; False when the time is over, or the process stops."""
    waiters = []
    for task_id in ids:
        outcomes = site.outcomes(site.link.names_of(task_id))
        waiters.append(outcomes.waiter(task_id))
        outcomes.wait_for(waiters[-1], watch=True)
    stopping = asyncio.create_task(site.stopping.wait())
    try:
        ends: list[asyncio.Future[Any]] = [waiter.outcome for waiter in waiters]
        await asyncio.wait([stopping, *ends], timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
    return not site.stopping.is_set() and any(end.done() for end in ends)


async def _read(site: Site, ids: tuple[TaskId, ...]) -> Results:
    """Return what the ledger tells of tasks.

    Submissions are counted before the records are read: what has left its stream by then has its record.
    """
    unread = {
        pool: (await site.link.view(pool).queue_status()).unread for pool in {task_pool(task_id) for task_id in ids}
    }
    told: dict[str, list[Any]] = {"ended": [], "unfinished": [], "unknown": [], "unreadable": []}
    size = 0
    async with site.redis.pipeline(transaction=False) as pipe:
        for task_id in ids:
            pipe.hmget(site.link.names_of(task_id).task(task_id), ["state", "run"])
        rows: list[Any] = await pipe.execute()
    for task_id, (state, run) in zip(ids, rows, strict=True):
        try:
            ended = state is not None and Guard.parse(state.decode()).status.terminal
            if state is None and not unread[task_pool(task_id)]:
                told["unknown"].append(task_id)
            elif not ended or size > MAX_OUTPUTS:
                told["unfinished"].append(task_id)
            else:
                output: Any = await site.redis.hget(site.link.names_of(task_id).task(task_id), "result")
                size += len(output or b"")
                told["ended"].append(outcome_of(task_id, (state, run, output)))
        except ValueError:
            told["unreadable"].append(task_id)
    return Results.model_construct(None, **{name: tuple(found) for name, found in told.items()})
