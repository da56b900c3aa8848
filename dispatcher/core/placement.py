"""Who gets what: the best of those who wait, to the best of the agents with room, until nobody who waits finds room.

A class whose head finds no room is blocked, and passed over until one of its agents has gained room. Two things keep
others from taking that room first, again and again:

- work ahead of an agent's slots is not given to agents that something more urgent waits for;
- a task that takes more than one slot, or resources, *reserves* an agent (`reservations`).
"""

from dispatcher.core import lifecycle
from dispatcher.core.board import Board
from dispatcher.core.fleet import RequirementClass


def place(board: Board) -> bool:
    """Place whoever is next, at most as many as a pass may; tell whether more could be placed."""
    left = board.config.placements_per_pass
    board.reservations.review(board.fleet)
    while True:
        _reopen(board)
        left = _place(board, left)
        if (
            not left or not board.fleet.levels.gained
        ):  # a reservation that has ended may leave room to those who were kept away
            return not left


def _place(board: Board, left: int) -> int:
    """Place until all who wait are blocked, `left` at most; return how many more it might have been."""
    fleet, order, reservations = board.fleet, board.order, board.reservations
    # Who waits for a slot that becomes free must not see it taken again and again by short work behind it.
    first, spared = order.first_blocked()
    while left and not fleet.levels.full and (best := order.best()) is not None:
        left -= 1
        line, task, score = best
        cls = line.cls
        if cls.gates and _limited(board, cls):
            continue
        estimate = fleet.estimate(cls.requirement.capability, task.terms.estimate_ms)
        barred = reservations.barred(cls, score) if reservations else 0
        sticky = board.sticky.preferred(task.id, cls, fleet) if board.sticky.wanted else None
        if sticky is not None and barred >> sticky.index & 1:
            sticky = None
        spare = spared if score > first else 0
        agent = sticky or fleet.choose(cls, estimate, board.rng, spared=spare, barred=barred)
        if agent is None:
            order.block(cls, score)
            reservations.ask(fleet, cls, score, board.rng)
            first, spared = min(first, score), spared | cls.mask
            continue
        order.take(task, line)
        lifecycle.assign(board, task, agent, cls, estimate, sticky=sticky is not None)
        if reservations:
            reservations.give_up(fleet, cls)
    return left


def _reopen(board: Board) -> None:
    """Let classes compete again whose limits, or whose agents' room, have changed since the last pass."""
    fleet, order = board.fleet, board.order
    fleet.levels.settle()
    order.settle()
    board.reopen(fleet.loosened)
    fleet.loosened = []
    if fleet.levels.gained:
        gained, fleet.levels.gained = fleet.levels.gained, 0
        fleet.consider(gained)
        for cls in [c for c, score in order.blocked.items() if score is not None and c.mask & gained]:
            order.open(cls)


def _limited(board: Board, cls: RequirementClass) -> bool:
    """Tell whether a limit holds `cls` up; then it is blocked until that opens."""
    closed = board.limits.closed(cls.gates, board.now)
    if closed is None:
        return False
    board.order.block(cls, None)
    board.reservations.give_up(board.fleet, cls)
    board.await_limit(closed, cls)
    return True
