"""Agents that speak only HTTP: what they say of their tasks, answered when the bus has stored it.

The task's record says who has it, in which attempt and session. A report of anything else is refused here at once; the
leader looks again when it takes the report, and that is what counts.
"""

from typing import Any, Final

from fastapi import APIRouter
from pydantic import ValidationError

from bus.errors import UnknownTaskError
from bus.messages import MAX_BODY_BYTES, HandBack, Report, TaskError, TaskResult, TaskUpdate
from bus.names import DATA_FIELD
from bus.records import Guard
from bus.states import FailureReason, TaskStatus
from dispatcher.api.admission import SpeaksOfTask, TaskIdPath, Visit
from dispatcher.api.problems import (
    BODY_TOO_LARGE,
    STALE_ATTEMPT,
    UNKNOWN_POOL,
    UNKNOWN_TASK,
    ProblemError,
    declared,
    field_problem,
)
from dispatcher.api.schemas.agent_work import ReportedResult, StoredReport, TaskProgress, TaskStart
from dispatcher.api.strict import StrictRoute

router: Final = APIRouter(prefix="/tasks", tags=["agents over HTTP"], route_class=StrictRoute)

OF_ATTEMPT: Final = (UNKNOWN_TASK, UNKNOWN_POOL, STALE_ATTEMPT)


@router.post("/{task_id}/start", status_code=202, summary="Begin a task", responses=declared(*OF_ATTEMPT))
async def start(visit: SpeaksOfTask, task_id: TaskIdPath, said: TaskStart) -> StoredReport:
    """Say that the agent has begun: the task is RUNNING from now on, and its assignment is not handed out any more.

    A task that takes no longer than this request need not be begun: its result is enough.
    """
    agent_id, _ = await _holder(visit, task_id, said)
    await _store(visit, _report(agent_id, said, updates=(TaskUpdate(task_id=task_id, attempt=said.attempt),)))
    return StoredReport(task_id=task_id, attempt=said.attempt, stored="start")


@router.post("/{task_id}/progress", status_code=202, summary="Say how far a task is", responses=declared(*OF_ATTEMPT))
async def progress(visit: SpeaksOfTask, task_id: TaskIdPath, said: TaskProgress) -> StoredReport:
    """Say how far the task is, ask for more time, or confirm a cancel. Counts as its beginning, too."""
    agent_id, _ = await _holder(visit, task_id, said)
    update = TaskUpdate.model_validate({"task_id": task_id, **said.model_dump(exclude={"session"})})
    await _store(visit, _report(agent_id, said, updates=(update,)))
    return StoredReport(task_id=task_id, attempt=said.attempt, stored="progress")


@router.post(
    "/{task_id}/result",
    status_code=202,
    summary="Say how a task ended",
    tags=["agents over HTTP"],
    responses=declared(*OF_ATTEMPT),
)
async def result(visit: SpeaksOfTask, task_id: TaskIdPath, said: ReportedResult) -> StoredReport:
    """Say how the attempt ended: with an output, with an error, cancelled; or hand it back unbegun.

    Answered when the server has stored it. `stale-attempt`: the task was given to another, cancelled, or has ended by
    this very result, if that was sent before and its answer was lost; there is nothing more to do in any case.
    """
    agent_id, status = await _holder(visit, task_id, said)
    if said.returned:
        if status is TaskStatus.RUNNING:
            raise field_problem("body.returned", "it has begun: report an error with `retry_after` to have it repeated")
        back = HandBack(task_id=task_id, attempt=said.attempt)
        await _store(visit, _report(agent_id, said, returned=(back,)))
        return StoredReport(task_id=task_id, attempt=said.attempt, stored="return")
    await _store(visit, _report(agent_id, said, results=(_result(task_id, said),)))
    return StoredReport(task_id=task_id, attempt=said.attempt, stored="result")


def _result(task_id: str, said: ReportedResult) -> TaskResult:
    if said.cancelled:
        return TaskResult(
            task_id=task_id,
            attempt=said.attempt,
            status=TaskStatus.CANCELLED,
            abandoned=said.abandoned,
            duration=said.duration,
        )
    if said.error is None:
        return TaskResult(
            task_id=task_id,
            attempt=said.attempt,
            status=TaskStatus.COMPLETED,
            output=said.output,
            duration=said.duration,
        )
    reason = FailureReason.ERROR
    if said.rejected or said.timed_out:
        reason = FailureReason.REJECTED if said.rejected else FailureReason.TIMEOUT
    return TaskResult(
        task_id=task_id,
        attempt=said.attempt,
        status=TaskStatus.FAILED,
        error=TaskError.model_validate(said.error.model_dump()),
        reason=reason,
        retryable=said.retryable,
        retry_after=said.retry_after,
        duration=said.duration,
    )


async def _holder(visit: Visit, task_id: str, said: TaskStart) -> tuple[str, TaskStatus]:
    """Return the id of the agent that has the attempt, and for which the caller may speak, and the task's status.

    Raises `UnknownTaskError` and the problems `forbidden` and `stale-attempt`.
    """
    raw: Any = await visit.site.redis.hget(visit.names.task(task_id), "state")
    if raw is None:
        raise UnknownTaskError(task_id)
    guard = Guard.parse(raw.decode())
    if guard.agent_id:
        visit.caller.check_speaks_for(guard.agent_id)
    if (guard.attempt, guard.session) != (said.attempt, said.session) or not guard.agent_id:
        raise ProblemError(STALE_ATTEMPT, f"the task is {guard.status}: stop, and hold the attempt no longer")
    return guard.agent_id, guard.status


def _report(agent_id: str, said: TaskStart, **parts: Any) -> Report:
    return Report(agent_id=agent_id, session=said.session, **parts)


async def _store(visit: Visit, report: Report) -> None:
    body = report.model_dump_json(exclude_defaults=True)
    if len(body.encode()) > MAX_BODY_BYTES:
        raise ProblemError(BODY_TOO_LARGE, f"at most {MAX_BODY_BYTES:,} bytes: report a reference to the data")
    try:
        Report.model_validate_json(body)  # what the leader could not read would end the attempt as a failure
    except ValidationError:
        raise field_problem("body", "its JSON nests too deep, or has too long a number, to be read again") from None
    await visit.site.redis.xadd(visit.names.results, {DATA_FIELD: body})
