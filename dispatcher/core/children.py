"""What becomes of children: whose submission is taken, and that none outlives a parent that ended badly.

A child belongs to its parent, not to an attempt of it: a parent that is tried again finds its children where they are.
It is cancelled when its parent is cancelled or has failed, and goes on when the parent has completed.

A parent's end may be read before a submission that it made earlier, for streams have no order among each other. Then
the parent is not live, and only the ledger knows how it ended: the pass asks (`Decisions.inquiries`), the child is
taken meanwhile, and the answer (`events.Found`) decides. The same question is asked of every child whose parent is not
live when the ledger is loaded, so a leader that dies between a parent's end and its children's loses none of them. The
answer is read after the asking pass is stored, hence never before an end that this leader has decided.

A submission that is read again after its task has ended is a live task for a moment, in memory only: one that ends, or
is withdrawn, before it was ever given out. How it really ended is asked of the ledger as well, and a child of an
attempt that memory has not come to is taken meanwhile.

A tree may have any number of tasks: each pass cuts off `children_per_pass` of them, and the next goes on.
"""

from itertools import islice

from bus.ids import task_pool
from bus.messages import MAX_DEPTH, TaskError, TaskHeader
from bus.records import Guard
from bus.states import FailureReason, TaskStatus
from dispatcher.core import lifecycle, task_commands
from dispatcher.core.board import Board
from dispatcher.core.kin import Kin
from dispatcher.core.model import TaskState


def join(board: Board, task: TaskState, header: TaskHeader) -> bool:
    """Let a new task be the child that its submission says it is; False if it has ended by that.

    One that breaks the rules FAILS as `rejected`; one of an attempt that is over is CANCELLED: whoever submitted it has
    lost its parent, which is in other hands now, or in nobody's.
    """
    if header.parent is None:
        return True
    parent = board.live(header.parent)
    problem = _problem(task, header, parent)
    if problem is not None:
        lifecycle.fail(board, task, FailureReason.REJECTED, TaskError(type="Refused", message=problem), board.now)
        return False
    task.kin = Kin(header.parent, header.depth)
    if parent is None:
        board.family.doubtful[header.parent] = None
    elif parent.attempt < (header.parent_attempt or 1):
        pass  # the parent's submission was read again after its end: `withdrawn` asks how that was
    elif parent.cancellation is not None:
        lifecycle.cancel(board, task, f"its parent {parent.id} was cancelled", board.now)
        return False
    elif parent.agent is None or header.parent_attempt not in (None, parent.attempt):
        reason = f"attempt {header.parent_attempt or parent.attempt} of its parent {parent.id} is over"
        lifecycle.cancel(board, task, reason, board.now)
        return False
    else:
        if parent.kin is None:
            parent.kin = Kin()
        parent.kin.children += 1
        board.touch(parent)
    board.family.add(header.parent, task.id)
    return True


def withdrawn(board: Board, task: TaskState) -> None:
    """Let the ledger tell how a task ended that was in memory again; it is nobody's live child."""
    if task.id in board.family:
        board.family.doubtful[task.id] = None
    board.family.leave(task)


def _problem(task: TaskState, header: TaskHeader, parent: TaskState | None) -> str | None:
    if task_pool(header.parent or "") != task_pool(task.id):
        return (
            f"its parent {header.parent} is of another pool: a tree of tasks lives in one, submit it without a parent"
        )
    if header.depth > MAX_DEPTH:
        return f"its depth is {header.depth} and the limit is {MAX_DEPTH}: does a task call itself without an end?"
    depth = 1 + _depth(parent) if parent is not None else max(1, header.depth)
    if header.depth != depth:
        return f"its depth is {header.depth}, and must be {depth}: one more than its parent's"
    return None


def _depth(task: TaskState) -> int:
    return 0 if task.kin is None else task.kin.depth


def restored(board: Board, task: TaskState, header: TaskHeader, children: int) -> None:
    """Remember the kin of a task of the ledger; whether its parent is live shows when all are loaded.

    One that an operator has requeued goes on by itself, whatever becomes of its parent, which has most likely failed.
    """
    if header.parent is None and not children:
        return
    task.kin = Kin(header.parent, header.depth, children)
    if header.parent is not None and not task.requeues:
        board.family.add(header.parent, task.id)
        board.family.doubtful[header.parent] = None


def inquire(board: Board) -> None:
    """Ask how parents have ended that are not live; so many in a pass, the others in the next."""
    family = board.family
    for parent_id in list(islice(family.doubtful, board.config.children_per_pass)):
        del family.doubtful[parent_id]
        parent = board.live(parent_id)
        if parent is not None:
            # Its record may be older than those of its children: the leader died between the two.
            parent.kin = parent.kin or Kin()
            known = family.live(parent_id)
            if known > parent.kin.children:
                parent.kin.children = known
                board.touch(parent)  # or it were forgotten with them when they have ended, by the leader after this
            if parent.cancellation is not None:
                family.bereave(parent_id, TaskStatus.CANCELLED)
        elif parent_id in family:
            board.draft.inquiries.append(parent_id)


def found(board: Board, parent: str, text: str) -> None:
    """Take what the ledger has of a parent that is not live: its guard, empty if it has none any more.

    A record that is gone tells of an end that is a whole retention ago: had it been a bad one, its children would have
    been cancelled then. One that is live for the ledger only (it could not be read) leaves its children alone.
    """
    status = Guard.parse(text).status if text else TaskStatus.COMPLETED
    if status is TaskStatus.COMPLETED:
        board.family.release(parent)
    elif status.terminal:
        board.family.bereave(parent, status)


def cut(board: Board) -> None:
    """Cancel children whose parents ended badly; so many in a pass, and theirs in turn."""
    family, left = board.family, board.config.children_per_pass
    while left and family.orphaned:
        children, why = family.orphaned[0]
        if not children:
            family.orphaned.popleft()
        elif board.live(child := children.pop()) is not None:
            left -= 1
            task_commands.cancel(board, child, why)
