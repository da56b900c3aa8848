"""The results of tasks, at once or when they are there."""

import asyncio
from typing import Annotated, Final

from fastapi import APIRouter, Query, Request, Response

from bus.ids import TaskId
from bus.messages import Outcome
from bus.records import TaskInDB
from dispatcher.api.admission import AwaitsTask, TaskIdPath, Visit
from dispatcher.api.looking import find_task
from dispatcher.api.problems import BUSY, UNKNOWN_POOL, UNKNOWN_TASK, UNREADABLE_TASK, declared
from dispatcher.api.schemas.tasks import UnfinishedTask
from dispatcher.api.waits import waiting

router: Final = APIRouter(prefix="/tasks", tags=["tasks"])


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
    wait: Annotated[
        float, Query(ge=0, le=3600, description="Seconds to wait for it; cut to what this API allows, a minute.")
    ] = 0.0,
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
    return Outcome(
        task_id=record.id,
        status=record.status,
        attempt=record.attempt,
        agent_id=None if ended is None else ended.agent_id,
        output=record.output,
        error=record.error,
        reason=record.reason,
    )
