"""Attempts that run too long: a timer rings for one, or somebody declares one overdue. Both end in the same way.

The attempt fails as `timeout`, which the task's retry policy takes as it takes any failure, its agent is told to stop
the code, and whatever it still reports is stale. All of that is one pass: a leader that dies has done all or nothing.
Who declares an attempt overdue may name it: the attempt that follows is not hit by a command that was sent twice.
"""

from bus.messages import OfTimeOut, TaskError, TimeOutTask
from bus.messages import Reply as ReplyMessage
from bus.states import FailureReason, TaskStatus
from dispatcher.core import deadlines, failing, lifecycle
from dispatcher.core.board import Board
from dispatcher.core.decisions import Reply
from dispatcher.core.model import TaskState
from dispatcher.core.timers import TimerKind


def ring(board: Board, task_id: str, attempt: int) -> None:
    """End an attempt that its agent should have stopped long ago; called on the horizon."""
    task = board.live(task_id)
    current = None if task is None else task.current
    if task is None or current is None or task.attempt != attempt or task.status is not TaskStatus.RUNNING:
        return
    due = deadlines.run_until(board, task, current)
    if due is not None and due > board.horizon:
        board.horizon_timers.set(due, TimerKind.RUN_TIMEOUT, task_id, attempt)  # it was extended
        return
    error = TaskError(type="RunTimeout", message="its agent neither finished nor stopped it within run_timeout")
    _end(board, task, "run_timeout is over", error, board.horizon)


def declare(board: Board, command: TimeOutTask) -> None:
    """End the attempt that is meant, if it runs, and answer what came of it."""
    task = board.live(command.task_id)
    said = ReplyMessage(unknown=True)
    if task is not None:
        attempt = task.attempt
        done = task.status is TaskStatus.RUNNING and command.attempt in (None, attempt)
        if done:
            words = _words(command)
            _end(board, task, words, TaskError(type="DeclaredOverdue", message=words), board.now)
        said = ReplyMessage(timed_out=OfTimeOut(done=done, status=task.status, attempt=attempt))
    if command.reply_to is not None:
        board.draft.replies.append(Reply(command.reply_to, said.model_dump_json().encode()))


def _end(board: Board, task: TaskState, why: str, error: TaskError, at: int) -> None:
    lifecycle.stop(board, task, why)
    failing.attempt_failed(board, task, FailureReason.TIMEOUT, error, at)


def _words(command: TimeOutTask) -> str:
    by = f" by {command.by}" if command.by else ""
    return f"declared overdue{by}: {command.reason}" if command.reason else f"declared overdue{by}"
