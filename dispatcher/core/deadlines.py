"""When a task has waited, run, or said nothing, for too long: its timers."""

from dispatcher.core.board import Board
from dispatcher.core.model import Attempt, TaskState
from dispatcher.core.timers import TimerKind


def arm_expiry(board: Board, task: TaskState) -> None:
    """Ring when the task has waited for too long."""
    expires_at = task.expires_at
    if expires_at is not None:
        board.clock_timers.set(expires_at, TimerKind.EXPIRE, task.id)


def run_until(board: Board, task: TaskState, current: Attempt) -> int | None:
    """Return when the attempt will have run too long, its agent's grace included; None if it may run for ever."""
    timeout = task.terms.run_timeout_ms
    if timeout is None or current.started_at is None:
        return None
    return current.started_at + timeout + current.extended_ms + board.config.timeout_grace_ms


def arm_timeouts(board: Board, task: TaskState, current: Attempt) -> None:
    """Ring when a running attempt has run, or said nothing, for too long; on the horizon."""
    due = run_until(board, task, current)
    if due is not None:
        board.horizon_timers.set(max(due, board.now), TimerKind.RUN_TIMEOUT, task.id, task.attempt)
    timeout = task.terms.progress_timeout_ms
    if timeout is not None:
        board.horizon_timers.set(current.heard_at + timeout, TimerKind.PROGRESS, task.id, task.attempt)
