"""What waiting tasks stand in: the share of a fairness key, its lane in each level, a line for each requirement class.

How they compete is told in `order`, which has them. In a line, and among the lines of a lane, the oldest goes first.
"""

from collections import deque
from heapq import heappop, heappush, heapreplace
from itertools import count, takewhile
from typing import TYPE_CHECKING, Final

from bus.states import TaskPriority

if TYPE_CHECKING:
    from dispatcher.core.fleet import RequirementClass
    from dispatcher.core.model import TaskState

SLACK: Final = 64
"""Dropped entries a line may hold beside as many as tasks wait in it."""


class Share:
    """What one fairness key has, in all levels together."""

    __slots__ = ("key", "lanes", "running", "served", "waiting", "weight")

    def __init__(self, key: str, weight: float) -> None:
        self.key = key
        self.weight = weight
        self.running = 0
        """Slots that its tasks take now."""
        self.served = 0.0
        """Slots it was given, divided by its weight, on the clock that all shares have in common."""
        self.waiting = 0
        """Tasks of it that wait."""
        self.lanes: dict[TaskPriority, Lane] = {}

    @property
    def rank(self) -> tuple[float, float]:
        """What it has, the least being next."""
        return self.running / self.weight, self.served


class Lane:
    """The lines of one share in one level."""

    __slots__ = ("_heap", "head_start", "lines", "priority", "rank", "share", "stamp")

    def __init__(self, share: Share, priority: TaskPriority, head_start: int) -> None:
        self.share = share
        self.priority = priority
        self.head_start = head_start
        self.lines: dict[RequirementClass, Line] = {}
        self.stamp = 0
        """Number of its entry in the level's heap; 0: it has none."""
        self.rank = (0.0, 0.0)
        """That of its share when the entry was made."""
        self._heap: list[tuple[int, int, Line]] = []

    def enter(self, line: "Line", stamp: int) -> None:
        """Let `line` compete with its present head."""
        head = line.head()
        if head is None or (line.stamp and line.entered_at <= head.enqueued_at):
            return
        line.stamp, line.entered_at = stamp, head.enqueued_at
        heappush(self._heap, (head.enqueued_at, stamp, line))

    def front(self) -> "Line | None":
        """Return the line with the oldest head that is not blocked; None if there is none."""
        heap = self._heap
        while heap:
            at, stamp, line = heap[0]
            if stamp != line.stamp:
                heappop(heap)
                continue
            head = line.head()
            if head is None:
                heappop(heap)
                line.stamp = 0
                del self.lines[line.cls]
            elif line.cls.blocked:
                heappop(heap)
                line.stamp = 0
                line.cls.parked.append(line)
            elif head.enqueued_at != at:
                line.entered_at = head.enqueued_at
                heapreplace(heap, (head.enqueued_at, stamp, line))
            else:
                return line
        return None


class Line:
    """The waiting tasks of one class, level and fairness key, by age. Those that come in order are not even sorted."""

    __slots__ = ("_fifo", "_late", "_order", "cls", "entered_at", "lane", "size", "stamp")

    def __init__(self, cls: "RequirementClass", lane: Lane) -> None:
        self.cls = cls
        self.lane = lane
        self.size = 0
        self.stamp = 0
        """Number of its entry in the lane's heap; 0: it has none."""
        self.entered_at = 0
        self._fifo: deque[TaskState] = deque()
        self._late: list[tuple[int, int, TaskState]] = []
        self._order = count()

    def push(self, task: "TaskState") -> None:
        """Let `task` stand where its age says."""
        task.line = self
        self.size += 1
        if not self._fifo or self._fifo[-1].enqueued_at <= task.enqueued_at:
            self._fifo.append(task)
        else:
            heappush(self._late, (task.enqueued_at, next(self._order), task))

    def head(self) -> "TaskState | None":
        """Return the oldest task that still waits here; None when nobody does."""
        fifo, late = self._fifo, self._late
        while fifo and fifo[0].line is not self:
            fifo.popleft()
        while late and late[0][2].line is not self:
            heappop(late)
        if late and (not fifo or late[0][0] < fifo[0].enqueued_at):
            return late[0][2]
        return fifo[0] if fifo else None

    def before(self, at: int) -> int:
        """Return how many tasks came before `at`; as soon as one did not, those behind it are not looked at."""
        in_order = takewhile(lambda task: task.enqueued_at < at, self._fifo)
        late = (entry[2] for entry in self._late if entry[2].enqueued_at < at)
        return len({task.id for task in (*in_order, *late) if task.line is self})

    def position(self, task: "TaskState") -> int:
        """Return how many are before `task`, which waits here."""
        at, ahead = task.enqueued_at, set[str]()
        for other in self._fifo:
            if other is task or other.enqueued_at > at:
                break
            if other.line is self:
                ahead.add(other.id)
        # Of those that came late and at the same instant some may stand behind it.
        ahead.update(entry[2].id for entry in self._late if entry[2].line is self and entry[2].enqueued_at < at)
        return len(ahead - {task.id})

    def leave(self, task: "TaskState") -> None:
        """Let `task` wait no more; what is left of it is dropped when it comes up, or when there is much of it."""
        task.line = None
        self.size -= 1
        if len(self._fifo) + len(self._late) > 2 * self.size + SLACK:
            waiting = {t.id: t for t in (*self._fifo, *(entry[2] for entry in self._late)) if t.line is self}
            self._fifo = deque(sorted(waiting.values(), key=lambda t: t.enqueued_at))
            self._late = []
