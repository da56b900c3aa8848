"""Who is whose child, as the scheduler remembers it: only of tasks that have a parent, or children.

Pure bookkeeping; what becomes of children is decided in `dispatcher.core.children`. An ordinary task has no `Kin`, and
no entry in any of these.
"""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bus.states import TaskStatus

if TYPE_CHECKING:
    from dispatcher.core.model import TaskState


@dataclass(slots=True, eq=False)
class Kin:
    """What a task has of a family: a parent, children, or both."""

    parent: str | None = None
    depth: int = 0
    """0 for a root; each child one more than its parent."""
    children: int = 0
    """How many were accepted so far, ended ones among them."""


class Family:
    """The live children of a pool's tasks, and what is still to be done about some of them."""

    def __init__(self) -> None:
        self._children: dict[str, dict[str, None]] = {}
        self.orphaned: deque[tuple[list[str], str]] = deque()
        """Children of parents that were cancelled or have failed, and what they are told; they are not yet cut."""
        self.doubtful: dict[str, None] = {}
        """Parents that are not live and may have ended well or badly: the ledger knows."""

    def add(self, parent: str, child: str) -> None:
        """Take in a live child."""
        self._children.setdefault(parent, {})[child] = None

    def leave(self, task: "TaskState") -> None:
        """Take out a task that is live no more."""
        kin = task.kin
        siblings = None if kin is None or kin.parent is None else self._children.get(kin.parent)
        if kin is None or kin.parent is None or siblings is None:
            return
        siblings.pop(task.id, None)
        if not siblings:
            del self._children[kin.parent]

    def ended(self, task: "TaskState") -> None:
        """Note the end of a task: its children go on if it ended well, and are to be cancelled if not."""
        if not self._children:
            return
        self.leave(task)
        if task.status is TaskStatus.COMPLETED:
            self._children.pop(task.id, None)
        elif not task.attempt:
            if task.id in self._children:  # who was never given out has none: it ended before, and was read again
                self.doubtful[task.id] = None
        else:
            self.bereave(task.id, task.status)

    def bereave(self, parent: str, status: TaskStatus) -> None:
        """Let the children of `parent`, which ended badly, be cancelled in this pass and the next ones."""
        children = self._children.pop(parent, None)
        if children:
            how = "was cancelled" if status is TaskStatus.CANCELLED else "has failed"
            self.orphaned.append((list(reversed(children)), f"its parent {parent} {how}"))

    def release(self, parent: str) -> None:
        """Let the children of `parent`, which ended well or is forgotten, go on by themselves."""
        self._children.pop(parent, None)

    def live(self, parent: str) -> int:
        """Return how many children of a task are live."""
        return len(self._children.get(parent, ()))

    def __contains__(self, parent: str) -> bool:
        return parent in self._children
