"""What clients and operators want of tasks, agents and schedules, and their questions: one function per command."""

from bus.messages import AgentCommand, CancelTasks, Explain, Plan, Reprioritise, WatchTasks
from bus.messages import Reply as ReplyMessage
from bus.states import TaskPriority
from dispatcher.core import agents, explain, lifecycle, schedule_commands
from dispatcher.core.board import Board
from dispatcher.core.decisions import Reply
from dispatcher.core.events import Commanded
from dispatcher.core.timers import TimerKind


def take(board: Board, event: Commanded) -> None:
    """Do what is asked for."""
    command = event.command
    match command:
        case CancelTasks():
            for task_id in command.task_ids:
                cancel(board, task_id, command.reason)
        case Reprioritise():
            for task_id in command.task_ids:
                reprioritise(board, task_id, command.priority)
        case Explain() | Plan():
            answer(board, command)
        case WatchTasks():
            for task_id in command.task_ids:
                watch(board, task_id, command.reply_to)
        case AgentCommand():
            agents.command(board, command.agent_id, command.type, command.reason)
        case _:
            schedule_commands.take(board, command, event.at)


def cancel(board: Board, task_id: str, reason: str) -> None:
    """Give up a task, whatever its state; one that is not known is remembered, for its submission may be unread."""
    task = board.live(task_id)
    if task is None:
        if task_id in board.tasks:
            return  # it has ended in this very pass
        board.bury(task_id, reason)
        board.clock_timers.set(board.now + board.config.tombstone_ms, TimerKind.TOMBSTONE, task_id)
        return
    lifecycle.stop(board, task, reason)
    lifecycle.cancel(board, task, reason, board.now)


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


def answer(board: Board, asked: Explain | Plan) -> None:
    """Explain a task, or what would become of one."""
    said = ReplyMessage(unknown=True)
    if isinstance(asked, Plan):
        said = ReplyMessage(explanation=explain.plan(board, asked.task))
    elif (task := board.live(asked.task_id)) is not None:
        said = ReplyMessage(explanation=explain.explain(board, task))
    board.draft.replies.append(Reply(asked.reply_to, said.model_dump_json().encode()))


def watch(board: Board, task_id: str, client_id: str | None) -> None:
    """Tell a client how a task ends, beside those that are told anyway."""
    task = board.live(task_id)
    if task is None or client_id is None or client_id in task.listeners:
        return
    task.watchers = (*task.watchers, client_id)
    board.touch(task)
