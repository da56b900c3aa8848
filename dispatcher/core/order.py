"""The order of waiting tasks: one number per task, and the line of one requirement class.

`score = time of submission - head start of its priority`, lower first. An URGENT task is treated as one submitted an
hour ago: nearly always next, and yet nothing starves, because every later submission has a later time.
"""

from heapq import heappop, heappush

from bus.states import TaskPriority, TaskStatus
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.model import TaskState


def score_of(config: SchedulerConfig, priority: TaskPriority, enqueued_at: int) -> int:
    """Return the task's place in the order, in milliseconds; lower is earlier."""
    return enqueued_at - config.head_start_ms[priority]


class Line:
    """The waiting tasks of one class, first by score, then by arrival.

    Removal is lazy: `head` drops tasks that no longer wait. A task that comes back gets a new ticket, so that an old
    entry of it is not mistaken for the new one.
    """

    __slots__ = ("_heap", "_tickets", "by_priority", "count")

    def __init__(self) -> None:
        self.by_priority = dict.fromkeys(TaskPriority, 0)
        self._heap: list[tuple[int, int, TaskState]] = []
        self._tickets: dict[str, int] = {}
        self.count = 0

    def push(self, task: TaskState, ticket: int) -> None:
        """Let `task` wait. `ticket` must be greater than all before: it orders equal scores and marks the entry."""
        self._tickets[task.id] = ticket
        heappush(self._heap, (task.score, ticket, task))
        self.count += 1
        self.by_priority[task.priority] += 1

    def discard(self, task: TaskState) -> None:
        """Take `task` out of the line; harmless if it is not in it."""
        if self._tickets.pop(task.id, None) is not None:
            self.count -= 1
            self.by_priority[task.priority] -= 1

    def head(self) -> TaskState | None:
        """Return the first waiting task without removing it; None when nobody waits."""
        heap, tickets = self._heap, self._tickets
        while heap:
            _, ticket, task = heap[0]
            if tickets.get(task.id) == ticket and task.status is TaskStatus.PENDING:
                return task
            heappop(heap)
        return None

    def pop(self) -> TaskState | None:
        """Remove and return the first waiting task."""
        task = self.head()
        if task is not None:
            heappop(self._heap)
            self.discard(task)
        return task

    def __len__(self) -> int:
        return self.count
