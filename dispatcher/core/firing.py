"""When schedules fire: what is due becomes tasks.

A firing makes the task in the very pass that moves the schedule on, and its id follows from the pool, the schedule and
the instant at which it was due. A pass is stored in several steps, the schedule's progress with the last: a leader that
dies between two of them has made tasks that its successor makes again. It then finds the id among its live tasks, or
the ledger says that it knows it; either way one instant is one task. And an instant is behind a schedule only when its
task is stored.
"""

from typing import Final

from bus.ids import scheduled_task_id
from bus.messages import Missed, Overlap
from dispatcher.core import acceptance, cancellation
from dispatcher.core.board import Board
from dispatcher.core.decisions import Firing
from dispatcher.core.schedules import Schedule
from dispatcher.core.timers import TimerKind

MADE_UP: Final = 100
"""Of the instants that were missed so many are made up for at most, the latest, where all shall be."""
MOST_RUNS: Final = 1_000
"""Live tasks of a schedule whose tasks may queue up."""
LOOK: Final = 2 * MADE_UP
"""Instants of one schedule that are looked at before it is another's turn."""


def arm(board: Board, schedule: Schedule) -> None:
    """Ring when the schedule is due next; earlier timers of it mean nothing any more."""
    schedule.mark = board.schedules.new_mark()
    due = schedule.progress.next_due
    if due is not None and not schedule.progress.paused:
        board.clock_timers.set(due, TimerKind.SCHEDULE, schedule.id, schedule.mark)


def ring(board: Board, schedule_id: str, mark: int) -> None:
    """Let a schedule fire that is due; if too much has been done in this pass, in the next."""
    schedule = board.schedules.by_id.get(schedule_id)
    if schedule is None or schedule.mark != mark:
        return
    if board.schedules.looks_left <= 0:
        board.clock_timers.set(board.now, TimerKind.SCHEDULE, schedule_id, mark)
        return
    _fire_due(board, schedule)
    board.draft.notes.append(schedule.progress_note())
    arm(board, schedule)


def _fire_due(board: Board, schedule: Schedule) -> None:
    """Fire what is due, as far as it is not to be let go."""
    progress, spec = schedule.progress, schedule.spec
    due, following = schedule.due(board.now, LOOK)
    board.schedules.looks_left -= len(due)
    kept = MADE_UP if spec.missed is Missed.ALL else 1
    gone, current = due[:-kept], due[-kept:]
    if following is not None and following <= board.now:
        progress.next_due, current = current[0], []  # whether these are the latest is not known yet
    else:
        progress.next_due = following
        if spec.missed is Missed.SKIP and current and not _in_time(board, schedule, current[-1]):
            gone, current = due, []
    _count(board, schedule, "missed", len(gone))
    for at in current:
        if spec.max_runs is not None and progress.fired >= spec.max_runs:
            break
        fire(board, schedule, at, scheduled_task_id(board.pool, schedule.id, at))
    if spec.max_runs is not None and progress.fired >= spec.max_runs:
        progress.next_due = None


def _in_time(board: Board, schedule: Schedule, due: int) -> bool:
    """Tell whether `due` was not missed: somebody led, or another soon took over, and it was not paused."""
    return due > schedule.progress.resumed_at and board.now - due <= board.config.schedule_grace_ms


def fire(board: Board, schedule: Schedule, due: int, task_id: str, *, asked: bool = False) -> bool:
    """Make the task of one instant, as the schedule's overlap allows; tell whether there is one.

    `asked` if it is not due, and somebody wants it all the same.
    """
    spec, progress = schedule.spec, schedule.progress
    if task_id not in board.tasks:  # else a leader that is no more has made it, and could not store that it had
        live = board.schedules.live(schedule.id)
        if live and _held_up(spec.overlap, len(live)):
            _count(board, schedule, "skipped", 1)
            return False
        if spec.overlap is Overlap.REPLACE:
            _replace(board, schedule, live)
        acceptance.accept(board, task_id, schedule.task_header(due), schedule.body(task_id, due), board.now)
    progress.last_due, progress.last_task = due, task_id
    _count(board, schedule, "triggered" if asked else "fired", 1)
    return True


def _held_up(overlap: Overlap, live: int) -> bool:
    return overlap is Overlap.SKIP or (overlap is Overlap.QUEUE and live >= MOST_RUNS)


def _replace(board: Board, schedule: Schedule, live: list[str]) -> None:
    for earlier in live:
        task = board.live(earlier)
        if task is not None and task.cancellation is None:
            reason = f"replaced by the next task of schedule {schedule.id}"
            cancellation.request(board, task, reason, f"schedule {schedule.id}", None)
            _count(board, schedule, "replaced", 1)


def _count(board: Board, schedule: Schedule, outcome: str, count: int) -> None:
    if count:
        setattr(schedule.progress, outcome, getattr(schedule.progress, outcome) + count)
        board.draft.firings.append(Firing(schedule.id, outcome, count))
