"""What is wanted of tasks, by whoever it is: cancel, reprioritise, watch; one task at a time, and all of a command."""

from enum import Enum

from bus.messages import CancelTasks, OfCancel
from bus.messages import Reply as ReplyMessage
from bus.states import TaskPriority
from dispatcher.core import cancellation, sweeps
from dispatcher.core.board import Board
from dispatcher.core.decisions import Reply
from dispatcher.core.terms import MILLI
from dispatcher.core.timers import TimerKind


class CancelStep(Enum):
    """How far a cancel has come when it has been asked for."""

    ENDED = "the task is CANCELLED"
    UNDER_WAY = "its agent is told"
    NOT_LIVE = "the task has ended already, or is not known"


def cancel_all(board: Board, command: CancelTasks) -> None:
    """Cancel each of the tasks, and answer what has come of it so far."""
    grace_ms = None if command.grace is None else int(command.grace * MILLI)
    found = {
        task_id: cancel(board, task_id, command.reason, command.by, grace_ms)
        for task_id in dict.fromkeys(command.task_ids)
    }
    if command.reply_to is not None:
        ids = {step: tuple(task_id for task_id, at in found.items() if at is step) for step in CancelStep}
        told = OfCancel(
            ended=ids[CancelStep.ENDED], under_way=ids[CancelStep.UNDER_WAY], not_live=ids[CancelStep.NOT_LIVE]
        )
        board.draft.replies.append(Reply(command.reply_to, ReplyMessage(cancel=told).model_dump_json().encode()))


def cancel(board: Board, task_id: str, reason: str, by: str = "", grace_ms: int | None = None) -> CancelStep:
    """Give up a task, whatever its state; one that is not known is remembered, for its submission may be unread."""
    task = board.live(task_id)
    if task is not None:
        ended = cancellation.request(board, task, reason, by, grace_ms)
        return CancelStep.ENDED if ended else CancelStep.UNDER_WAY
    if task_id not in board.tasks:  # else it has ended in this very pass
        board.bury(task_id, reason, by)
        board.clock_timers.set(board.now + board.config.tombstone_ms, TimerKind.TOMBSTONE, task_id)
    return CancelStep.NOT_LIVE


def reprioritise(board: Board, task_id: str, priority: TaskPriority) -> None:
    """Give a task another priority, and its place in the order with it."""
    task = board.live(task_id)
    if task is None or task.terms.priority is priority:
        return
    waits = task.line is not None
    board.order.leave(task)
    task.priority = priority
    task.terms = board.terms.with_priority(task.terms, priority)
    board.touch(task)
    board.tell(task, reason=f"priority is {priority} now")
    if waits:
        board.enqueue(task)


def apply(board: Board, sweep: sweeps.Sweep, task_id: str) -> None:
    """Do to one task what a sweep wants of all of its kind."""
    if sweep.priority is None:
        cancel(board, task_id, sweep.reason, sweep.by)
    else:
        reprioritise(board, task_id, sweep.priority)


def watch(board: Board, task_id: str, client_id: str | None) -> None:
    """Tell a client how a task ends, beside those that are told anyway."""
    task = board.live(task_id)
    if task is None or client_id is None or client_id in task.listeners:
        return
    task.watchers = (*task.watchers, client_id)
    board.touch(task)
