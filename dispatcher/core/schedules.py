"""The schedules of a pool as the leader remembers them, and which of their tasks have not ended.

A schedule is two notes: what it is (`NoteKind.SCHEDULE`, written when somebody says so) and how far it is
(`NoteKind.SCHEDULE_PROGRESS`, small, written with each firing). Which of its tasks live is not stored: each carries
its schedule's id, so it is known again when the tasks are loaded.

Knows nothing of boards: when schedules fire is decided in `firing`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Self

from pydantic import ValidationError

from bus.errors import first_problem
from bus.messages import ScheduleInfo, ScheduleProgress, ScheduleRun, ScheduleSpec, TaskHeader
from bus.recurrence import Recurrence
from dispatcher.core.decisions import Note, NoteKind

MOST_SCHEDULES: Final = 10_000
"""In one pool."""


@dataclass(slots=True, eq=False)
class Schedule:
    """One schedule: what it is, how far it is, and what of it need not be made for each firing."""

    spec: ScheduleSpec
    progress: ScheduleProgress
    recurrence: Recurrence
    header: TaskHeader
    """Of its tasks, ids apart."""
    fields: bytes
    """Its task's JSON without the opening brace."""
    mark: int = 0
    """Number of the timer that counts."""

    @classmethod
    def of(cls, spec: ScheduleSpec, progress: ScheduleProgress) -> Self:
        """Make one of what is stored."""
        task = spec.task.model_dump_json(exclude_unset=True).encode()
        header = TaskHeader.model_validate_json(task)
        return cls(spec, progress, spec.recurrence(progress.anchor), header, task.removeprefix(b"{"))

    @property
    def id(self) -> str:
        """The name that was given to it."""
        return self.spec.id

    @property
    def info(self) -> ScheduleInfo:
        """The schedule as its readers see it, now."""
        return ScheduleInfo(spec=self.spec, progress=self.progress.model_copy())

    def body(self, task_id: str, due: int) -> bytes:
        """Return the submission of one of its tasks."""
        return b'{"v":1,"id":"%b","schedule":{"id":"%b","due":%d},%b' % (
            task_id.encode(),
            self.id.encode(),
            due,
            self.fields,
        )

    def task_header(self, due: int) -> TaskHeader:
        """Return the header of one of its tasks."""
        return self.header.model_copy(update={"schedule": ScheduleRun(id=self.id, due=due)})

    def first_after(self, instant: int) -> int | None:
        """Return when it is due next after `instant`; None if it will not be."""
        start = self.spec.start
        if start is not None and self.spec.cron is not None:
            instant = max(instant, start - 1)
        return self._within(next(self.recurrence.after(instant), None))

    def due(self, now: int, limit: int) -> tuple[list[int], int | None]:
        """Return the instants that are due at `now`, at most `limit`, and the one after these.

        The latter is due, too, if there are more.
        """
        first = self.progress.next_due
        if first is None or first > now:
            return [], first
        due = [first]
        for at in islice(self.recurrence.after(first), limit):
            if self._within(at) is None:
                return due, None
            if at > now or len(due) == limit:
                return due, at
            due.append(at)
        return due, None

    def _within(self, at: int | None) -> int | None:
        until = self.spec.until
        return None if at is None or (until is not None and at > until) else at

    def notes(self) -> list[Note]:
        """Return what is to be stored of it."""
        said = self.spec.model_dump_json(exclude_unset=True).encode()
        return [Note(NoteKind.SCHEDULE, self.id, said), self.progress_note()]

    def progress_note(self) -> Note:
        """Return what is to be stored when it has fired."""
        said = self.progress.model_dump_json(exclude_defaults=True).encode()
        return Note(NoteKind.SCHEDULE_PROGRESS, self.id, said)


@dataclass(slots=True)
class Schedules:
    """All schedules of a pool."""

    by_id: dict[str, Schedule] = field(default_factory=dict)
    runs: dict[str, dict[str, None]] = field(default_factory=dict)
    """The tasks of each schedule that have not ended, in their order, also of one that is forgotten by now."""
    looks_left: int = 0
    """Instants that may still be looked at in this pass."""
    _schedule_of: dict[str, str] = field(default_factory=dict)
    _marks: int = 0

    def began(self, schedule_id: str, task_id: str) -> None:
        """Note a live task of a schedule."""
        self.runs.setdefault(schedule_id, {})[task_id] = None
        self._schedule_of[task_id] = schedule_id

    def ended(self, task_id: str) -> None:
        """Note that a task lives no longer, whosever it was. Costs nothing where no schedule has a live task."""
        if not self._schedule_of:
            return
        schedule_id = self._schedule_of.pop(task_id, None)
        if schedule_id is None:
            return
        runs = self.runs[schedule_id]
        del runs[task_id]
        if not runs:
            del self.runs[schedule_id]

    def live(self, schedule_id: str) -> list[str]:
        """Return the tasks of a schedule that have not ended, oldest first."""
        return list(self.runs.get(schedule_id, ()))

    def new_mark(self) -> int:
        """Return a number for a timer; earlier timers of its schedule mean nothing any more."""
        self._marks += 1
        return self._marks

    def remember(self, notes: Sequence[Note], now: int) -> list[Note]:
        """Take over what was stored; return what is to be stored anew.

        A schedule that cannot be read here (its time zone is unknown to this machine, say) is kept as it is stored, and
        does not fire: it is somebody's, and another leader may know better. Its progress says what the problem is.
        """
        progress: dict[str, ScheduleProgress] = {}
        for note in notes:
            if note.kind is NoteKind.SCHEDULE_PROGRESS and note.value is not None:
                try:
                    progress[note.field] = ScheduleProgress.model_validate_json(note.value)
                except ValueError:
                    continue  # it counts from now on
        stored = {note.field for note in notes if note.kind is NoteKind.SCHEDULE}
        anew = [
            Note(note.kind, note.field, None)
            for note in notes
            if note.kind is NoteKind.SCHEDULE_PROGRESS and note.field not in stored
        ]
        for note in notes:
            if note.kind is NoteKind.SCHEDULE and note.value is not None:
                known = progress.get(note.field)
                found = known or ScheduleProgress(created_at=now, anchor=now)
                anew += self._take_over(note.field, note.value, found, fresh=known is None, now=now)
        return anew

    def _take_over(
        self, schedule_id: str, value: bytes, progress: ScheduleProgress, *, fresh: bool, now: int
    ) -> list[Note]:
        before = progress.problem
        progress.problem = None
        try:
            schedule = Schedule.of(ScheduleSpec.model_validate_json(value), progress)
        except ValidationError as error:
            progress.problem = first_problem(error)[:1000]
            said = progress.model_dump_json(exclude_defaults=True).encode()
            return [Note(NoteKind.SCHEDULE_PROGRESS, schedule_id, said)] if progress.problem != before else []
        if fresh:
            progress.next_due = schedule.first_after(now)
        self.by_id[schedule_id] = schedule
        return [schedule.progress_note()] if fresh or before is not None else []
