"""What agents say of their tasks, taken only if it is of the current attempt and session.

Everything else is stale: a zombie that finished late, a report delivered twice. It is refused and counted, and
changes nothing.
"""

from pydantic_core import to_json

from bus.messages import HandBack, Report, TaskResult, TaskUpdate
from bus.states import FailureReason, TaskStatus
from dispatcher.core import lifecycle
from dispatcher.core.board import Board
from dispatcher.core.model import TaskState


def take(board: Board, report: Report, at: int) -> None:
    """Apply one report, in the order: started and progress, results, hand-backs."""
    for update in report.updates:
        task = _current(board, report, update, "update")
        if task is not None:
            _update(board, task, update, at)
    for result in report.results:
        task = _current(board, report, result, "result")
        if task is not None:
            _result(board, task, result, at)
    for back in report.returned:
        task = _current(board, report, back, "return")
        if task is not None and task.status is TaskStatus.ASSIGNED:
            lifecycle.requeue(board, task, "returned", at)


def _current(board: Board, report: Report, item: TaskUpdate | TaskResult | HandBack, kind: str) -> TaskState | None:
    task = board.live(item.task_id)
    if task is None or task.attempt != item.attempt or task.session != report.session or task.agent is None:
        board.draft.stale.append(kind)
        return None
    if task.agent.id != report.agent_id:
        board.draft.stale.append(kind)
        return None
    task.missing_since = None
    return task


def _update(board: Board, task: TaskState, update: TaskUpdate, at: int) -> None:
    if update.progress is not None or update.note is not None:
        task.progress, task.note = update.progress, update.note
    if task.status is TaskStatus.ASSIGNED:
        lifecycle.start(board, task, at)
    else:
        board.touch(task)
        board.tell(task)


def _result(board: Board, task: TaskState, result: TaskResult, at: int) -> None:
    began = task.started_at or task.assigned_at or at
    run_ms = float(at - began) if result.duration is None else result.duration * 1000
    if task.started_at is None:
        task.started_at = max(task.assigned_at or at, at - int(run_ms))
    match result.status:
        case TaskStatus.COMPLETED:
            lifecycle.complete(board, task, to_json(result.output, inf_nan_mode="constants"), at, run_ms)
        case TaskStatus.CANCELLED:
            lifecycle.cancel(board, task, task.reason or "cancelled by its agent", at)
        case _:
            reason = result.reason or FailureReason.ERROR
            retryable = result.retryable and reason is not FailureReason.REJECTED
            lifecycle.attempt_failed(board, task, reason, result.error, at, retryable=retryable)
