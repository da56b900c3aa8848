"""What clients and operators want of tasks, agents and schedules, and their questions: one function per command."""

from bus.messages import (
    AgentCommand,
    CancelMatching,
    CancelTasks,
    Explain,
    Plan,
    PurgeDead,
    Reprioritise,
    ReprioritiseMatching,
    RequeueDead,
    TimeOutTask,
    UpdateAgent,
    WatchTasks,
)
from bus.messages import Reply as ReplyMessage
from dispatcher.core import explain, overrun, schedule_commands, steering, sweeps, task_commands
from dispatcher.core.board import Board
from dispatcher.core.decisions import Reply
from dispatcher.core.events import Commanded


def take(board: Board, event: Commanded) -> None:
    """Do what is asked for."""
    command = event.command
    match command:
        case CancelTasks() | TimeOutTask() | Reprioritise() | WatchTasks():
            _take_of_tasks(board, command)
        case Explain() | Plan():
            answer(board, command)
        case CancelMatching() | ReprioritiseMatching():
            sweeps.begin(board, command, event.at)
        case RequeueDead() | PurgeDead():
            pass  # they are taken as `OfDeadLetters`, with the records that they are about
        case AgentCommand() | UpdateAgent():
            steering.take(board, command)
        case _:
            schedule_commands.take(board, command, event.at)


def _take_of_tasks(board: Board, command: CancelTasks | TimeOutTask | Reprioritise | WatchTasks) -> None:
    """Do what is asked for with tasks that are named."""
    match command:
        case CancelTasks():
            task_commands.cancel_all(board, command)
        case TimeOutTask():
            overrun.declare(board, command)
        case Reprioritise():
            for task_id in command.task_ids:
                task_commands.reprioritise(board, task_id, command.priority)
        case WatchTasks():
            for task_id in command.task_ids:
                task_commands.watch(board, task_id, command.reply_to)


def answer(board: Board, asked: Explain | Plan) -> None:
    """Explain a task, or what would become of one."""
    said = ReplyMessage(unknown=True)
    if isinstance(asked, Plan):
        said = ReplyMessage(explanation=explain.plan(board, asked.task))
    elif (task := board.live(asked.task_id)) is not None:
        said = ReplyMessage(explanation=explain.explain(board, task))
    board.draft.replies.append(Reply(asked.reply_to, said.model_dump_json().encode()))
