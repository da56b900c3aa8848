"""A task's beginning: how what was submitted, by a client or by a schedule, becomes a live task."""

from bus.messages import TaskHeader
from bus.states import FailureReason
from dispatcher.core import cancellation, children, deadlines, fail_fast, lifecycle, sweeps, task_commands
from dispatcher.core.board import Board
from dispatcher.core.decisions import Accepted
from dispatcher.core.model import TaskState


def accept(board: Board, task_id: str, header: TaskHeader, body: bytes, at: int) -> None:
    """Make the task `task_id`, which must not be on the board; `body` is its submission as it is to be kept.

    It may end by that: cancelled before it was read, the child of a parent that has ended, or impossible.
    """
    terms = board.terms.of(header)
    # Of a dead letter that this very pass deletes the record is not deleted, but written over.
    task = TaskState(task_id, terms, at, spec=body, stored=board.purged.pop(task_id, ""))
    if terms.delay_ms:
        task.not_before = at + terms.delay_ms
    board.tasks[task.id] = task
    if header.schedule is not None:
        board.schedules.began(header.schedule.id, task.id)
    if header.sticky is not None:
        board.sticky.wanted[task.id] = header.sticky
    board.touch(task)
    board.tell(task)
    board.draft.accepted.append(Accepted(task.id, terms.requirement.capability, terms.priority.value))
    if _may_begin(board, task, header):
        deadlines.arm_expiry(board, task)
        lifecycle.wait(board, task)
        if board.sweeps:
            for sweep in sweeps.claimants(board, task):
                sweep.count += 1
                task_commands.apply(board, sweep, task.id)


def _may_begin(board: Board, task: TaskState, header: TaskHeader) -> bool:
    """Tell whether the task lives; if not it has ended."""
    buried = board.unbury(task.id) if board.tombstones else None
    if buried is not None:
        reason, by, _ = buried
        cancellation.request(board, task, reason, by, None)
        return False
    if not children.join(board, task, header):
        return False
    impossible = fail_fast.verdict(board, task) if task.terms.fail_fast else None
    if impossible is not None:
        lifecycle.fail(board, task, FailureReason.IMPOSSIBLE, impossible, board.now)
    return impossible is None
