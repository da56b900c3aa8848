"""What clients and operators want of schedules: one function per command, each answered once it is in force.

A command counts from the instant at which it was written, so that a leader that reads it again decides the same.
"""

from bus.ids import scheduled_task_id
from bus.messages import (
    MAX_SCHEDULE_BYTES,
    DeleteSchedule,
    PauseSchedule,
    PutSchedule,
    Reply,
    ResumeSchedule,
    ScheduleCommand,
    ScheduleProgress,
    TriggerSchedule,
)
from dispatcher.core import firing
from dispatcher.core.board import Board
from dispatcher.core.decisions import Note, NoteKind
from dispatcher.core.decisions import Reply as ReplyTo
from dispatcher.core.schedules import MOST_SCHEDULES, Schedule


def take(board: Board, command: ScheduleCommand, at: int) -> None:
    """Do what is asked for, and answer."""
    if isinstance(command, PutSchedule):
        said = _put(board, command, at)
    else:
        schedule = board.schedules.by_id.get(command.id)
        said = Reply(unknown=True) if schedule is None else _change(board, schedule, command, at)
        if schedule is None and isinstance(command, DeleteSchedule):
            _forget(board, command.id)  # one that cannot be read is stored, and may be deleted all the same
    if command.reply_to is not None:
        board.draft.replies.append(ReplyTo(command.reply_to, said.model_dump_json().encode()))


def _put(board: Board, command: PutSchedule, at: int) -> Reply:
    spec, known = command.schedule, board.schedules.by_id.get(command.schedule.id)
    if known is not None and command.if_absent:
        return Reply(schedule=known.info)
    if known is None and len(board.schedules.by_id) >= MOST_SCHEDULES:
        return Reply(problem=f"the pool has {MOST_SCHEDULES:,} schedules, which is the most: delete one first")
    if len(spec.model_dump_json(exclude_unset=True).encode()) > MAX_SCHEDULE_BYTES:
        return Reply(problem=f"the schedule takes more than {MAX_SCHEDULE_BYTES:,} bytes: pass a reference to the data")
    progress = ScheduleProgress(created_at=at, anchor=at) if known is None else known.progress
    moved = known is None or known.spec.timing != spec.timing
    if moved:
        progress.anchor = at
    schedule = Schedule.of(spec, progress)
    # With the timing that it had nothing is missed and nothing delayed, however often it is put.
    from_then = at if moved or progress.next_due is None else progress.next_due - 1
    if moved or progress.next_due is None or spec.until is not None:
        progress.next_due = schedule.first_after(from_then)
    if spec.max_runs is not None and progress.fired >= spec.max_runs:
        progress.next_due = None
    board.schedules.by_id[spec.id] = schedule
    board.draft.notes += schedule.notes()
    firing.arm(board, schedule)
    return Reply(schedule=schedule.info)


def _change(board: Board, schedule: Schedule, command: ScheduleCommand, at: int) -> Reply:
    progress = schedule.progress
    match command:
        case DeleteSchedule():
            _forget(board, schedule.id)
            return Reply(schedule=schedule.info)
        case PauseSchedule():
            progress.paused, progress.reason = True, command.reason
        case ResumeSchedule():
            if progress.paused:
                progress.paused, progress.reason, progress.resumed_at = False, "", at
        case TriggerSchedule():
            return _trigger(board, schedule, command, at)
    firing.arm(board, schedule)
    board.draft.notes.append(schedule.progress_note())
    return Reply(schedule=schedule.info)


def _trigger(board: Board, schedule: Schedule, command: TriggerSchedule, at: int) -> Reply:
    task_id = scheduled_task_id(board.pool, schedule.id, f"trigger {command.occasion or at}")
    made = firing.fire(board, schedule, at, task_id, asked=True)
    board.draft.notes.append(schedule.progress_note())
    if made:
        return Reply(schedule=schedule.info, task_id=task_id)
    live = board.schedules.live(schedule.id)
    return Reply(problem=f"task {live[-1]} of schedule {schedule.id} has not ended, and its overlap is to skip then")


def _forget(board: Board, schedule_id: str) -> None:
    board.schedules.by_id.pop(schedule_id, None)
    board.draft.notes += [
        Note(NoteKind.SCHEDULE, schedule_id, None),
        Note(NoteKind.SCHEDULE_PROGRESS, schedule_id, None),
    ]
