"""Dead letters: FAILED tasks are requeued or purged, by an operator's command alone.

They are not in the scheduler's memory, so the command comes with their records (`events.OfDeadLetters`), read when
nothing that was decided was still to be stored: they are as the ledger has them until this pass has said otherwise.
"""

from typing import Final

from bus.messages import OfDead, PurgeDead, RequeueDead
from bus.messages import Reply as ReplyMessage
from bus.records import Requeued
from bus.states import FailureReason, TaskStatus
from dispatcher.core import children, lifecycle
from dispatcher.core.board import Board
from dispatcher.core.decisions import Reply
from dispatcher.core.events import OfDeadLetters
from dispatcher.core.model import TaskState
from dispatcher.core.record import StoredTask

KEPT_LIVES: Final = 10
"""So many earlier lives a task's record tells of, the latest."""


def take(board: Board, event: OfDeadLetters) -> None:
    """Do what is asked for with each task that is dead, and answer what became of all of them."""
    command = event.command
    done: list[str] = []
    not_dead: list[str] = []
    unknown: list[str] = []
    refused: list[str] = []
    for task_id in dict.fromkeys(command.task_ids):
        stored, task = event.found.get(task_id), board.tasks.get(task_id)
        if task_id in board.purged or (stored is None and task is None):
            unknown.append(task_id)
        elif _is_done(command, event.at, task.requeues if task else stored.run.requeues if stored else ()):
            done.append(task_id)
        elif task is not None or stored is None or stored.guard.status is not TaskStatus.FAILED:
            not_dead.append(task_id)
        elif isinstance(command, PurgeDead):
            _purge(board, stored)
            done.append(task_id)
        elif _never_was_one(stored):
            refused.append(task_id)
        else:
            _revive(board, stored, command, event.at)
            done.append(task_id)
    if command.reply_to is not None:
        told = OfDead(done=tuple(done), not_dead=tuple(not_dead), unknown=tuple(unknown), refused=tuple(refused))
        board.draft.replies.append(Reply(command.reply_to, ReplyMessage(dead=told).model_dump_json().encode()))


def _is_done(command: RequeueDead | PurgeDead, at: int, requeues: tuple[Requeued, ...]) -> bool:
    """Tell whether this very command has been at work on a task: its leader died, and it is read once more."""
    return isinstance(command, RequeueDead) and any((past.at, past.by) == (at, command.by) for past in requeues[-1:])


def _never_was_one(stored: StoredTask) -> bool:
    """Tell whether this is a submission that was refused: its payload was not kept."""
    return stored.run.reason == FailureReason.REJECTED and not stored.guard.attempt


def _purge(board: Board, stored: StoredTask) -> None:
    board.purged[stored.task_id] = str(stored.guard)
    board.draft.purged += 1


def _revive(board: Board, stored: StoredTask, command: RequeueDead, at: int) -> None:
    """Make the live task of a dead letter: with its attempts, numbered on, and none of them counted against it.

    `at` may be later than the clock here, which follows the server's: it names the command, and places nothing.
    """
    run = stored.run
    priority = command.priority or run.priority
    terms = board.terms.of(stored.header)
    if priority is not None:
        terms = board.terms.with_priority(terms, priority)
    past = Requeued(
        at=at,
        by=command.by,
        why=command.reason,
        ended_at=run.finished_at or 0,
        reason=run.reason,
        error=run.error,
        attempt=stored.guard.attempt,
    )
    task = TaskState(
        id=stored.task_id,
        terms=terms,
        enqueued_at=min(at, board.now),
        priority=priority,
        status=stored.guard.status,
        attempt=stored.guard.attempt,
        attempts=run.attempts,
        requeues=(*run.requeues[1 - KEPT_LIVES :], past),
        stored=str(stored.guard),
    )
    board.tasks[task.id] = task
    if stored.header.sticky is not None:
        board.sticky.wanted[task.id] = stored.header.sticky
    if stored.header.schedule is not None:
        board.schedules.began(stored.header.schedule.id, task.id)
    children.restored(board, task, stored.header, run.children)
    lifecycle.revive(board, task, command.reason)
