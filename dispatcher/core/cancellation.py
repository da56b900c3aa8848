"""Cancelling, step by step: requested → delivered → acknowledged → finished, or given up.

What no agent has is CANCELLED at once. What an agent has keeps its status, and its record tells how far the cancel is:

- *requested*: who wants it and why is stored, and the agent is told (`CancelAttempt`), again and again as long as its
  heartbeats list the attempt and it has not answered;
- *delivered*: the agent has it, and the code, if it runs, will be told;
- *acknowledged*: the code was told: a coroutine was cancelled, a function in a thread has asked and seen it;
- *finished*: the attempt ended, however it did: a cancelled task is never tried again. Only a result that was on its
  way already still counts: then the cancel came *too late*;
- *given up*: the grace is over, or the agent is lost, and nobody knows whether the code has stopped. The task is
  CANCELLED, the attempt fenced off, and its slot taken until the agent's heartbeats say that it is free.

The first who asks counts; whoever asks later may only shorten the grace. All of it is in the task's record, so a new
leader goes on. The children of a task are cancelled when it is requested of their parent, not when that has ended.
"""

from typing import Final

from bus.messages import CancelAttempt, Control, TaskError, TaskUpdate
from bus.records import Cancellation, CancelOutcome
from bus.states import TaskStatus
from dispatcher.core import lifecycle
from dispatcher.core.board import Board
from dispatcher.core.model import Attempt, TaskState
from dispatcher.core.terms import MILLI
from dispatcher.core.timers import TimerKind

AGAIN_AFTER_MS: Final = 1_000
"""An agent that was told so long ago, has the attempt and has not answered is told again."""
MARGIN_MS: Final = 1_000
"""How long after the grace the agent's own word on it is waited for."""


def request(board: Board, task: TaskState, reason: str, by: str, grace_ms: int | None) -> bool:
    """Cancel a live task; tell whether it has ended by that. Asking again is harmless."""
    grace = board.config.cancel_grace_ms if grace_ms is None else grace_ms
    known = task.cancellation
    if known is None:
        task.cancellation = known = Cancellation(board.now, reason, by, grace)
    elif board.now + grace < known.requested_at + known.grace_ms:
        known.grace_ms = max(0, board.now + grace - known.requested_at)
    else:
        return False
    current = task.current
    if current is None or current.agent is None:
        lifecycle.cancel(board, task, known.reason, board.now)
        return True
    _tell_agent(board, task, known)
    _arm(board, task, known)
    board.family.bereave(task.id, TaskStatus.CANCELLED)
    board.touch(task)
    board.tell(task, reason=_words(known, "cancel requested"))
    return False


def heard(board: Board, task: TaskState, current: Attempt, update: TaskUpdate, at: int) -> None:
    """Take an agent's word on how far the cancel is."""
    known = task.cancellation
    if known is None or current.agent is None:
        return
    steps = [known.delivered_at, known.acknowledged_at]
    known.delivered_at = known.delivered_at or at
    if update.cancel == "acknowledged":
        known.acknowledged_at = known.acknowledged_at or at
    if steps != [known.delivered_at, known.acknowledged_at]:
        board.touch(task)
        board.tell(task, reason=f"cancel {update.cancel}")


def remind(board: Board, task: TaskState, at: int) -> None:
    """Tell the agent again, whose heartbeat lists the attempt, unless it has answered."""
    known = task.cancellation
    if known is not None and known.delivered_at is None and at - known.requested_at >= AGAIN_AFTER_MS:
        _tell_agent(board, task, known)


def resume(board: Board, task: TaskState) -> None:
    """Go on with a cancel that the ledger tells of."""
    if task.cancellation is not None:
        _tell_agent(board, task, task.cancellation)
        _arm(board, task, task.cancellation)


def grace_over(board: Board, task_id: str, attempt: int) -> None:
    """Give up waiting for the agent; called on the horizon, when all that it said in time is read."""
    task = board.live(task_id)
    known = None if task is None else task.cancellation
    if task is None or known is None or task.attempt != attempt or task.current is None:
        return
    due = known.requested_at + known.grace_ms + MARGIN_MS
    if due > board.horizon:
        return  # it was told with a shorter one later, whose timer this is not
    known.outcome = CancelOutcome.GIVEN_UP
    lifecycle.cancel(board, task, known.reason, board.horizon, outcome="given_up")


def overdue(board: Board, task: TaskState, current: Attempt, error: TaskError) -> None:
    """Let the agent stop an attempt that takes too long: it fails with `error` when it stops, or its grace is over.

    Another attempt may follow, and none begins before that.
    """
    if current.agent is None or current.overdue is not None:
        return
    grace = board.config.timeout_grace_ms
    current.overdue, current.overdue_until = error, board.horizon + grace + MARGIN_MS
    _instruct(board, task, current, error.message, grace)
    board.horizon_timers.set(current.overdue_until, TimerKind.PROGRESS, task.id, task.attempt)
    board.tell(task, reason=f"overdue: {error.message}")


def _tell_agent(board: Board, task: TaskState, known: Cancellation) -> None:
    current = task.current
    if current is None or current.agent is None:
        return
    left = max(0, known.requested_at + known.grace_ms - board.now)
    _instruct(board, task, current, known.reason or "cancelled", left)


def _instruct(board: Board, task: TaskState, current: Attempt, reason: str, grace_ms: int) -> None:
    if current.agent is not None:
        stop = CancelAttempt(
            session=current.session,
            task_id=task.id,
            attempt=task.attempt,
            reason=reason,
            grace=grace_ms / MILLI,
            confirm=True,
        )
        board.instruct(current.agent.id, Control(stop))


def _arm(board: Board, task: TaskState, known: Cancellation) -> None:
    due = known.requested_at + known.grace_ms + MARGIN_MS
    board.horizon_timers.set(max(due, board.horizon + 1), TimerKind.CANCEL, task.id, task.attempt)


def _words(known: Cancellation, what: str) -> str:
    by = f" by {known.by}" if known.by else ""
    return f"{what}{by}: {known.reason}" if known.reason else what + by


def explain(task: TaskState, now: int) -> str | None:
    """Say how far the cancel of a live task is; None if nobody wants it."""
    known = task.cancellation
    if known is None or task.status is TaskStatus.PENDING:
        return None
    parts = [_words(known, f"cancel requested {(now - known.requested_at) / 1000:.1f} s ago")]
    if known.delivered_at is not None:
        parts.append("delivered")
    if known.acknowledged_at is not None:
        parts.append("acknowledged")
    left = (known.requested_at + known.grace_ms - now) / 1000
    parts.append(f"given up in {left:.1f} s" if left > 0 else "about to be given up")
    return "; ".join(parts)
