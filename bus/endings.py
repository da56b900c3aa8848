"""What an ended task's record tells of its end: the answer to `explain` when nothing is left to be decided."""

from datetime import UTC, datetime

from bus.explanations import Explanation
from bus.records import CancelOutcome, TaskInDB
from bus.states import TaskStatus


def explanation_of(task: TaskInDB) -> Explanation:
    """Return how and where a task has ended, and why it was there, by its record alone."""
    parts = [f"{_outcome(task)} {_when_and_where(task)}"]
    if task.placed_because is not None and task.attempt:
        parts.append(f"attempt {task.attempt} was placed there as {task.placed_because}")
    return Explanation(
        task_id=task.id,
        status=task.status,
        text="; ".join(parts),
        agents=0,
        eligible=0,
        agent_id=task.agent_id,
        ended_at=task.finished_at,
    )


def _outcome(task: TaskInDB) -> str:
    if task.status is TaskStatus.FAILED:
        error = "" if task.error is None else f": {task.error.type}: {' '.join(task.error.message.split())}"
        return f"FAILED as {task.reason or 'error'}{error};"
    cancel = task.cancellation
    if task.status is not TaskStatus.CANCELLED or cancel is None:
        return f"{task.status}{f' ({task.reason})' if task.reason else ''}"
    by = f" by {cancel.by}" if cancel.by else ""
    doubt = ", and may still run," if cancel.outcome is CancelOutcome.GIVEN_UP else ""
    return f"CANCELLED{by}{f' ({cancel.reason})' if cancel.reason else ''}{doubt}"


def _when_and_where(task: TaskInDB) -> str:
    if task.finished_at is None:
        at = ""
    else:
        instant = datetime.fromtimestamp(task.finished_at / 1000, UTC)
        at = f"at {instant.isoformat(sep=' ', timespec='seconds').removesuffix('+00:00')} UTC"
    where = "before any agent had it" if not task.attempt else f"in attempt {task.attempt}"
    if task.attempt and task.agent_id is not None:
        where = f"on {task.agent_id}, {where}"
    return f"{at} {where}".strip()
