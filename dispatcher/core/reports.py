"""What agents say of their tasks, taken only if it is of the current attempt and session.

Everything else is stale: a zombie that finished late, a report delivered twice. It is refused and counted, and
changes nothing.
"""

from pydantic_core import to_json

from bus.messages import HandBack, Report, TaskResult, TaskUpdate
from bus.records import CancelOutcome
from bus.states import FailureReason, TaskStatus
from dispatcher.core import cancellation, failing, lifecycle, room
from dispatcher.core.board import Board
from dispatcher.core.model import Attempt, TaskState


def take(board: Board, report: Report, at: int) -> None:
    """Apply one report, in the order: started and progress, results, hand-backs."""
    for update in report.updates:
        found = _current(board, report, update, "update")
        if found is not None:
            _update(board, *found, update, at)
    for result in report.results:
        found = _current(board, report, result, "result")
        if found is not None:
            _result(board, *found, result, at)
    for back in report.returned:
        found = _current(board, report, back, "return")
        if found is not None and found[0].status is TaskStatus.ASSIGNED:
            lifecycle.requeue(board, found[0], "returned", at)


def _current(
    board: Board, report: Report, item: TaskUpdate | TaskResult | HandBack, kind: str
) -> tuple[TaskState, Attempt] | None:
    """Return the task with its present attempt, if that is what the item speaks of."""
    task = board.live(item.task_id)
    current = None if task is None else task.current
    if (
        task is None
        or current is None
        or current.agent is None
        or task.attempt != item.attempt
        or current.session != report.session
        or current.agent.id != report.agent_id
    ):
        board.draft.stale.append(kind)
        return None
    current.missing_since = None
    return task, current


def _update(board: Board, task: TaskState, current: Attempt, update: TaskUpdate, at: int) -> None:
    if update.progress is not None or update.note is not None:
        current.progress, current.note = update.progress, update.note
    current.heard_at = at
    if update.cancel is not None:
        cancellation.heard(board, task, current, update, at)
    if update.extend is not None:
        current.extended_ms = int(update.extend * 1000)
        board.touch(task)
    if task.status is TaskStatus.ASSIGNED:
        lifecycle.start(board, task, current, at)
    elif update.cancel is None:  # of which `heard` has told
        _coming_along(board, task, update)
    if update.chunk is not None:
        board.tell(task, chunk=update.chunk)
    if update.waiting not in (None, current.waiting) and current.agent is not None:
        (room.waits if update.waiting else room.goes_on)(board, task, current, current.agent)
        board.touch(task)


def _coming_along(board: Board, task: TaskState, update: TaskUpdate) -> None:
    """Store and tell what a running task says; a piece of output alone changes nothing of its record."""
    if update.chunk is None:
        board.tell(task)
    elif update.progress is None and update.note is None and update.extend is None:
        return
    board.touch(task)


def _result(board: Board, task: TaskState, current: Attempt, result: TaskResult, at: int) -> None:
    began = current.started_at or current.assigned_at
    run_ms = float(max(0, at - began)) if result.duration is None else result.duration * 1000
    if current.started_at is None and (result.status is not TaskStatus.CANCELLED or run_ms):
        current.started_at = max(current.assigned_at, at - int(run_ms))
    match result.status:
        case TaskStatus.COMPLETED:
            output = to_json(result.output, inf_nan_mode="constants")
            lifecycle.complete(board, task, current, output, at, run_ms)
        case TaskStatus.CANCELLED:
            if current.overdue is not None:
                failing.attempt_failed(board, task, FailureReason.TIMEOUT, current.overdue, at)
            else:
                _cancelled(board, task, result, at)
        case _:
            reason = result.reason or FailureReason.ERROR
            retryable = result.retryable and reason is not FailureReason.REJECTED
            after = None if result.retry_after is None else int(result.retry_after * 1000)
            failing.attempt_failed(board, task, reason, result.error, at, retryable=retryable, retry_after=after)


def _cancelled(board: Board, task: TaskState, result: TaskResult, at: int) -> None:
    known = task.cancellation
    if known is None:
        lifecycle.cancel(board, task, "cancelled by its agent", at)
        return
    known.delivered_at = known.delivered_at or at
    if result.abandoned:
        known.outcome = CancelOutcome.GIVEN_UP
    else:
        known.acknowledged_at = known.acknowledged_at or at
    lifecycle.cancel(board, task, known.reason, at, outcome="given_up" if result.abandoned else "cancelled")
