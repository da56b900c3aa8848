"""A task's beginning: how what was submitted, by a client or by a schedule, becomes a live task."""

from bus.messages import TaskHeader
from dispatcher.core import lifecycle
from dispatcher.core.board import Board
from dispatcher.core.decisions import Accepted
from dispatcher.core.model import TaskState


def accept(board: Board, task_id: str, header: TaskHeader, body: bytes, at: int) -> None:
    """Make the task `task_id`, which must not be on the board; `body` is its submission as it is to be kept."""
    terms = board.terms.of(header)
    task = TaskState(task_id, terms, at, spec=body)
    if terms.delay_ms:
        task.not_before = at + terms.delay_ms
    board.tasks[task.id] = task
    if header.schedule is not None:
        board.schedules.began(header.schedule.id, task.id)
    board.touch(task)
    board.tell(task)
    board.draft.accepted.append(Accepted(task.id, terms.requirement.capability, terms.priority.value))
    reason = board.unbury(task.id) if board.tombstones else None
    if reason is not None:
        lifecycle.cancel(board, task, reason, board.now)
        return
    lifecycle.arm_expiry(board, task)
    lifecycle.wait(board, task)
