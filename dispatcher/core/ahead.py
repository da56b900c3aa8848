"""How many waiting tasks go before another one: those that would take room which it could have.

Exact as far as the order is: those of its own fairness key, first come, first served; those of other levels, by score.
Of other keys in its level that many are counted as have their turn before it by start-time fair queueing if nothing
else came and what runs went on ending as it was begun; then the number is told as being about right.
"""

import math
from typing import NamedTuple

from dispatcher.core.fleet import RequirementClass
from dispatcher.core.lines import Line, Share
from dispatcher.core.model import TaskState
from dispatcher.core.order import Order
from dispatcher.core.terms import Terms


class Ahead(NamedTuple):
    """How many tasks are ahead of one."""

    tasks: int
    exact: bool


def ahead_of(order: Order, cls: RequirementClass, terms: Terms, enqueued_at: int, task: TaskState | None) -> Ahead:
    """Return what is ahead of a task that waits, or (None) of one that came at `enqueued_at`; takes a look at each."""
    own = order.share_of(terms.fairness_key)
    score = enqueued_at - terms.head_start_ms
    before = turns = 0
    others: list[tuple[Share, int]] = []
    for share in order.shares():
        for priority, lane in share.lanes.items():
            lines = [line for line in lane.lines.values() if line.size and _competes(line, cls)]
            if priority is not terms.priority:
                before += sum(line.before(score + lane.head_start) for line in lines)
            elif share is own:
                turns = sum(
                    line.position(task) if task is not None and line is task.line else line.before(enqueued_at)
                    for line in lines
                )
            else:
                others.append((share, sum(line.size for line in lines)))
    start = order.start_of(own) + turns / (1.0 if own is None else own.weight)
    for share, waiting in others:
        before += min(waiting, max(0, math.ceil((start - share.served) * share.weight)))
    return Ahead(before + turns, exact=not any(waiting for _, waiting in others))


def _competes(line: Line, cls: RequirementClass) -> bool:
    """Tell whether an agent could run tasks of both."""
    return line.cls is cls or bool(line.cls.mask & cls.mask)
