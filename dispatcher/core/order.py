"""The order of waiting tasks: levels compete by score, fairness keys by share, a key's tasks stand in line.

`score = time of submission - head start of its priority`, lower first. An URGENT task is treated as one submitted an
hour ago: nearly always next, and yet nothing starves, because every later submission has a later time. So much for the
heads of the levels. Within a level the next task is one of the fairness key that has least: first by the work that
runs for it, divided by its weight; then by what it was given so far (start-time fair queueing: Goyal, Vin and Cheng,
1996). Within a key it is first come, first served, across all requirements, by the millisecond of the submission.

    level      heap of lanes, by the rank of their share
    └ lane     the lines of one share (= fairness key) in one level: heap by the age of their heads
      └ line   the tasks of one requirement class, by age

Lanes and lines are in `lines`. Nothing is ever removed from within a heap. An entry that is not its owner's latest is
dropped when it comes up; one whose rank has grown meanwhile is put back where it belongs, which is right because it can
only have come up too early. What lowers a rank (running work has ended) makes a new entry.

A class without room for its head is *blocked*. Its lines are parked when they come up, and all the others never looked
at, since a pass ends as soon as all that wait are blocked: its cost does not grow with the backlog.
"""

import math
from heapq import heappop, heappush, heapreplace
from itertools import count
from typing import TYPE_CHECKING

from bus.states import TaskPriority
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.lines import Lane, Line, Share

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatcher.core.fleet import RequirementClass
    from dispatcher.core.model import AgentState, TaskState


class Order:
    """All waiting tasks of a pool."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self._levels: dict[TaskPriority, list[tuple[float, float, int, Lane]]] = {level: [] for level in TaskPriority}
        self._shares: dict[str, Share] = {}
        self._stamps = count(1)
        self._eased: dict[Share, None] = {}
        """Shares whose running work has become less since they were last put in their places."""
        self._served = 0.0
        """The common clock: what the share had been served from which the last task was taken."""
        self.placeable = 0
        """Tasks that wait in classes which are not blocked."""
        self.blocked: dict[RequirementClass, int | None] = {}
        """Classes that are passed over, with the score of the head that found no room; None: a limit holds them up."""

    # --- waiting

    def push(self, task: "TaskState", cls: "RequirementClass") -> None:
        """Let a PENDING task wait. In a blocked class one that goes before the head has that class tried again."""
        terms = task.terms
        if cls.blocked:
            score = self.blocked[cls]
            if score is not None and task.score < score:
                self.open(cls)
        share = self._share(terms.fairness_key)
        if not share.waiting:
            share.served = max(share.served, self._served)
        share.waiting += 1
        lane = share.lanes.get(terms.priority)
        if lane is None:
            lane = share.lanes[terms.priority] = Lane(share, terms.priority, self._config.head_start_ms[terms.priority])
        line = lane.lines.get(cls)
        if line is None:
            line = lane.lines[cls] = Line(cls, lane)
            if cls.blocked:
                cls.parked.append(line)
        line.push(task)
        cls.waiting += 1
        cls.by_priority[terms.priority] += 1
        if not cls.blocked:
            self.placeable += 1
            self._enter(line)

    def leave(self, task: "TaskState") -> None:
        """Let a task wait no more; harmless if it does not."""
        line = task.line
        if line is not None:
            cls = line.cls
            if cls.blocked:
                score = self.blocked[cls]
                if score is not None and task.score <= score:
                    self.open(cls)  # it may have been the head, for which room is kept
            self._leave(task, line)
            self._part_with(line.lane.share)

    def _leave(self, task: "TaskState", line: Line) -> None:
        line.leave(task)
        lane, cls = line.lane, line.cls
        lane.share.waiting -= 1
        cls.waiting -= 1
        cls.by_priority[lane.priority] -= 1
        if not cls.blocked:
            self.placeable -= 1

    def _share(self, key: str | None) -> Share:
        key = key or ""
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = Share(key, self._config.fairness_weights.get(key, 1.0))
        return share

    def _enter(self, line: Line) -> None:
        lane = line.lane
        lane.enter(line, next(self._stamps))
        if not lane.stamp or lane.share.rank < lane.rank:
            self._offer(lane)

    def _offer(self, lane: Lane) -> None:
        share, heap = lane.share, self._levels[lane.priority]
        lane.stamp, lane.rank = next(self._stamps), share.rank
        entry = (*lane.rank, lane.stamp, lane)
        if len(heap) == 1 and heap[0][3] is lane:
            heap[0] = entry
        else:
            heappush(heap, entry)

    # --- classes

    def block(self, cls: "RequirementClass", score: int | None) -> None:
        """Pass over the tasks of `cls` until it is opened; `score` is that of a head that found no room."""
        cls.blocked = True
        self.blocked[cls] = score
        self.placeable -= cls.waiting

    def open(self, cls: "RequirementClass") -> None:
        """Let the tasks of `cls` compete again."""
        cls.blocked = False
        del self.blocked[cls]
        self.placeable += cls.waiting
        parked, cls.parked = cls.parked, []
        for line in parked:
            if line.size:
                self._enter(line)
            else:
                line.lane.lines.pop(cls, None)

    def first_blocked(self) -> tuple[float, int]:
        """Return the least score that waits for room, and all agents that such wait for."""
        first, agents = math.inf, 0
        for cls, score in self.blocked.items():
            if score is not None and cls.waiting:
                first, agents = min(first, score), agents | cls.mask
        return first, agents

    def first_for(self, agent: "AgentState") -> float:
        """Return the least score that waits for room in `agent`; infinity when nothing does."""
        bit = 1 << agent.index
        scores = (s for cls, s in self.blocked.items() if s is not None and cls.waiting and cls.mask & bit)
        return min(scores, default=math.inf)

    def forget(self, cls: "RequirementClass") -> None:
        """Drop a class in which nobody waits."""
        if cls.blocked:
            del self.blocked[cls]
            cls.blocked = False
        for line in cls.parked:
            line.lane.lines.pop(cls, None)
        cls.parked = []

    # --- the next

    def best(self) -> "tuple[Line, TaskState, int] | None":
        """Return the task that is to be placed next, with its line and its score; None if all that wait are blocked."""
        if self.placeable <= 0:
            return None
        best: tuple[Line, TaskState, int] | None = None
        for heap in self._levels.values():
            line = self._front(heap) if heap else None
            head = None if line is None else line.head()
            if line is not None and head is not None:
                score = head.enqueued_at - line.lane.head_start
                if best is None or score < best[2]:
                    best = line, head, score
        return best

    @staticmethod
    def _front(heap: list[tuple[float, float, int, Lane]]) -> Line | None:
        while heap:
            running, served, stamp, lane = heap[0]
            share = lane.share
            if stamp != lane.stamp:
                heappop(heap)
                continue
            rank = share.rank
            if (running, served) < rank:
                lane.rank = rank
                heapreplace(heap, (*rank, stamp, lane))
                continue
            line = lane.front()
            if line is not None:
                return line
            heappop(heap)
            lane.stamp = 0
        return None

    def take(self, task: "TaskState", line: Line) -> None:
        """Let the head of `line` wait no more: it is placed, and its share has that much more now."""
        self._leave(task, line)
        share = line.lane.share
        self._served = max(self._served, share.served)
        share.served += task.terms.requirement.slots / share.weight

    def shares(self) -> "Iterable[Share]":
        """Return the shares that wait or have something."""
        return self._shares.values()

    def share_of(self, key: str | None) -> Share | None:
        """Return the share of a fairness key; None if it has nothing, and waits for nothing."""
        return self._shares.get(key or "")

    def start_of(self, share: Share | None) -> float:
        """Return where the next task of a share stands on the common clock."""
        if share is None or not share.waiting:
            return max(self._served, 0.0 if share is None else share.served)
        return share.served

    # --- running work

    def hold(self, task: "TaskState") -> None:
        """Count a task as running for its share."""
        self._share(task.terms.fairness_key).running += task.terms.requirement.slots

    def release(self, task: "TaskState") -> None:
        """Count a task as running no more."""
        terms = task.terms
        share = self._share(terms.fairness_key)
        share.running -= terms.requirement.slots
        self._eased[share] = None

    def settle(self) -> None:
        """Let shares whose running work has ended stand where they belong now: before anybody is placed."""
        if self._eased:
            eased, self._eased = self._eased, {}
            for share in eased:
                for lane in share.lanes.values():
                    if lane.stamp and share.waiting and share.rank < lane.rank:
                        self._offer(lane)
                self._part_with(share)

    def _part_with(self, share: Share) -> None:
        """Forget a share that has nothing and waits for nothing."""
        if not share.waiting and not share.running and self._shares.get(share.key) is share:
            del self._shares[share.key]
