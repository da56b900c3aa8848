"""The life of a task, told from its record: instants of the task, and of each attempt."""

from bus.records import AttemptRecord, TaskInDB
from dispatcher.api.schemas.tasks import Moment, Timeline


def timeline_of(task: TaskInDB) -> Timeline:
    """Return all that a record tells, in the order of time; what is of one instant, in the order of life."""
    moments = [Moment(at=task.enqueued_at, what="submitted")]
    for attempt in task.attempts:
        moments += _of_attempt(attempt)
    past = {attempt.attempt for attempt in task.attempts}
    if task.attempt and task.attempt not in past and not task.status.terminal:
        for at, what in ((task.assigned_at, "assigned"), (task.started_at, "started")):
            if at:
                moments.append(Moment(at=at, what=what, attempt=task.attempt, agent_id=task.agent_id))
    if task.not_before and not task.status.terminal:
        moments.append(Moment(at=task.not_before, what="not before", detail="it may not be assigned earlier"))
    if task.finished_at:
        said = task.error.message if task.error else None
        detail = said if task.reason is None or said is None else f"{task.reason}: {said}"
        moments.append(
            Moment(at=task.finished_at, what="finished", outcome=task.status.value, detail=detail or task.reason)
        )
    return Timeline(task_id=task.id, status=task.status, moments=tuple(sorted(moments, key=lambda one: one.at)))


def _of_attempt(attempt: AttemptRecord) -> list[Moment]:
    number, agent_id = attempt.attempt, attempt.agent_id
    found = [Moment(at=attempt.assigned_at, what="assigned", attempt=number, agent_id=agent_id)]
    if attempt.started_at:
        found.append(Moment(at=attempt.started_at, what="started", attempt=number, agent_id=agent_id))
    detail = f"{attempt.error.type}: {attempt.error.message}" if attempt.error else None
    ended = {"at": attempt.ended_at, "attempt": number, "agent_id": agent_id, "outcome": attempt.outcome}
    return [*found, Moment.model_validate({**ended, "what": "ended", "detail": detail})]
