"""What happens when a timer rings.

A pass rings timers until they have cost a certain amount of work, however many are due, for it must be over long before
the leader's lease is; the others ring in the next. A timer may have lost its meaning since it was set, so each of these
looks first.
"""

from collections.abc import Callable, Mapping
from typing import Final

from bus.messages import TaskError
from bus.states import FailureReason, TaskStatus
from dispatcher.core import (
    agents,
    breaker,
    cancellation,
    fail_fast,
    failing,
    firing,
    lifecycle,
    overrun,
    recall,
    steering,
    sweeps,
)
from dispatcher.core.board import Board
from dispatcher.core.terms import Requirement
from dispatcher.core.timers import TimerKind
from dispatcher.core.waiting import why_waiting

CLASSES_PER_TIMER: Final = 20
"""To match an agent with so many kinds of requirements is as much work as a timer makes that concerns one task."""


def ring(board: Board) -> None:
    """Ring what is due: on the horizon first, then on the clock."""
    budget = board.config.timers_per_pass

    def cost(kind: TimerKind, subject: str) -> int:
        return _cost(board, kind, subject)

    board.schedules.looks_left = board.config.schedule_looks_per_pass
    for kind, subject, mark in board.horizon_timers.pop_due(board.horizon, budget, cost):
        _BELLS[kind](board, subject, mark)
    why: dict[Requirement, str] = {}
    for kind, subject, mark in board.clock_timers.pop_due(board.now, budget, cost):
        if kind is TimerKind.EXPIRE:
            _expire(board, subject, why)
        else:
            _BELLS[kind](board, subject, mark)


def _cost(board: Board, kind: TimerKind, subject: str) -> int:
    """Return how much work a timer may make: as much as so many that concern one task."""
    match kind:
        case TimerKind.LEASE | TimerKind.SESSION:
            agent = board.fleet.agents.get(subject)
            return 1 if agent is None else 1 + len(agent.tasks)
        case TimerKind.BREAKER | TimerKind.FORGET:
            return 1 + len(board.fleet.classes) // CLASSES_PER_TIMER
        case _:
            return 1


def _expire(board: Board, task_id: str, why: dict[Requirement, str]) -> None:
    """End a task that nobody began in time; `why` keeps the words for those of equal requirements."""
    task = board.live(task_id)
    if task is None or task.status is not TaskStatus.PENDING or task.begun:
        return  # one that an agent has, and returns unbegun, is looked at then
    if task.expires_at is None or task.expires_at > board.now:
        return  # the timer is of an earlier life
    requirement = task.terms.requirement
    words = why.get(requirement)
    if words is None:
        words = why[requirement] = why_waiting(board, board.fleet.class_of(task.terms))
    lifecycle.expire(board, task, words)


def _ready(board: Board, task_id: str, attempt: int) -> None:
    task = board.live(task_id)
    if task is None or task.status is not TaskStatus.PENDING or task.attempt != attempt:
        return
    if task.line is None and task.not_before <= board.now:  # else the timer is of an earlier life
        board.touch(task)
        board.enqueue(task)


def _said_nothing(board: Board, task_id: str, attempt: int) -> None:
    task = board.live(task_id)
    current = None if task is None else task.current
    if task is None or current is None or task.attempt != attempt or task.status is not TaskStatus.RUNNING:
        return
    if current.overdue is not None:
        if current.overdue_until <= board.horizon:
            lifecycle.stop(board, task, current.overdue.message)
            failing.attempt_failed(board, task, FailureReason.TIMEOUT, current.overdue, board.horizon)
        return
    timeout = task.terms.progress_timeout_ms or 0
    if current.waiting:
        current.heard_at = board.horizon  # its children's life is its progress
    if current.heard_at + timeout > board.horizon:
        board.horizon_timers.set(current.heard_at + timeout, TimerKind.PROGRESS, task_id, attempt)
        return
    error = TaskError(type="ProgressTimeout", message=f"no word of progress for {timeout / 1000:g} s")
    cancellation.overdue(board, task, current, error)


def _forget_tombstone(board: Board, task_id: str, _: int) -> None:
    found = board.tombstones.get(task_id)
    if found is not None and found[2] + board.config.tombstone_ms <= board.now:  # else it was asked for again
        board.unbury(task_id)


def _fail_fast(board: Board, _: str, __: int) -> None:
    for task, error in fail_fast.fallen(board):
        lifecycle.fail(board, task, FailureReason.IMPOSSIBLE, error, board.now)


_BELLS: Final[Mapping[TimerKind, Callable[[Board, str, int], None]]] = {
    TimerKind.LEASE: lambda board, agent_id, life: agents.lease_ended(board, agent_id, life, board.horizon),
    TimerKind.SESSION: lambda board, agent_id, _: agents.session_ended(board, agent_id, board.horizon),
    TimerKind.RUN_TIMEOUT: overrun.ring,
    TimerKind.CANCEL: cancellation.grace_over,
    TimerKind.PROGRESS: _said_nothing,
    TimerKind.READY: _ready,
    TimerKind.PROBATION: lambda board, agent_id, _: agents.probation_over(board, agent_id, board.now),
    TimerKind.FAIL_FAST: _fail_fast,
    TimerKind.FORGET: lambda board, agent_id, _: agents.forget(board, agent_id, board.now),
    TimerKind.LIMIT: lambda board, key, _: board.reopen(board.limits.open(key)),
    TimerKind.BREAKER: lambda board, subject, _: breaker.cooled_down(board, *subject.split(" ")),
    TimerKind.RESUME: lambda board, agent_id, _: steering.pause_over(board, agent_id),
    TimerKind.THROTTLE: lambda board, agent_id, _: agents.throttle_over(board, agent_id),
    TimerKind.RECALL: lambda board, agent_id, _: recall.look(board, agent_id),
    TimerKind.TOMBSTONE: _forget_tombstone,
    TimerKind.SWEEP: lambda board, key, _: sweeps.forget(board, key),
    TimerKind.SCHEDULE: firing.ring,
}
