"""Commands that speak of all tasks of a kind: worked off in portions, however many tasks there are.

A sweep is a `Note` from the pass that takes it on until a while after it is through, so a leader that takes over begins
it anew, and what was done is not found again. It concerns what was submitted no later than the command: by the time of
their entries it knows those that were still unread then, and waits for them as a tombstone does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from pydantic_core import from_json, to_json

from bus.filters import TaskFacts, TaskFilter
from bus.messages import CancelMatching, ReprioritiseMatching, Swept
from bus.messages import Reply as ReplyMessage
from bus.states import TaskPriority
from dispatcher.core.board import Board
from dispatcher.core.decisions import Note, NoteKind, Reply
from dispatcher.core.model import TaskState
from dispatcher.core.timers import TimerKind

LOOKED_AT: Final = 2_000
"""Tasks that one pass looks at."""
CONCERNED: Final = 200
"""Tasks to which one pass does it."""
WORD_EVERY_MS: Final = 500
"""Who waits for the end of a long one hears so often that it goes on."""


@dataclass(slots=True, eq=False)
class Sweep:
    """One such command."""

    key: str
    where: TaskFilter
    at: int
    """Instant of the command; later submissions are none of its business."""
    reason: str = ""
    by: str = ""
    priority: TaskPriority | None = None
    """What the tasks are to have; None: they are to be cancelled."""
    reply_to: str | None = None
    count: int = 0
    finished: bool = False
    left: list[str] | None = field(default=None, repr=False)
    """Tasks to look at, the last first; None before its turn has come."""
    said_at: int = 0

    def claims(self, task: TaskState) -> bool:
        """Tell whether it is meant for a live task."""
        if task.enqueued_at > self.at or task.terms.priority is self.priority:
            return False
        if self.priority is None and task.cancellation is not None:
            return False  # it was asked for already, perhaps by this very command, under another leader
        return self.where.matches(facts_of(task))


def facts_of(task: TaskState) -> TaskFacts:
    """Return what a filter may ask of a live task."""
    terms, agent = task.terms, task.agent
    return TaskFacts(
        task.status,
        terms.requirement.capability,
        terms.priority,
        terms.tags,
        terms.fairness_key,
        None if agent is None else agent.id,
        task.enqueued_at,
        None,
        None,
        None if task.error is None else task.error.type,
    )


Act = Callable[[Board, Sweep, str], None]


def begin(board: Board, command: CancelMatching | ReprioritiseMatching, at: int) -> None:
    """Take a command on."""
    board.sweeps_begun += 1
    sweep = Sweep(
        key=f"{board.now}-{board.sweeps_begun}",
        where=command.where,
        at=at,
        reason=command.reason if isinstance(command, CancelMatching) else "",
        by=command.by,
        priority=command.priority if isinstance(command, ReprioritiseMatching) else None,
        reply_to=command.reply_to,
        said_at=board.now,
    )
    _add(board, sweep)
    _note(board, sweep)


def work(board: Board, act: Act) -> None:
    """Do a portion of what is to be done: the oldest first."""
    looked_at, concerned = LOOKED_AT, CONCERNED
    for sweep in board.sweeps.values():
        if sweep.finished:
            continue
        left = sweep.left
        if left is None:
            left = sweep.left = list(board.tasks)
            left.reverse()
        before = sweep.count
        while left and looked_at and concerned:
            looked_at -= 1
            task = board.live(left.pop())
            if task is not None and sweep.claims(task):
                concerned -= 1
                sweep.count += 1
                act(board, sweep, task.id)
        if not left:
            sweep.finished, sweep.left = True, None
        if sweep.finished or sweep.count != before:
            _note(board, sweep)
        _say(board, sweep)
        if not (looked_at and concerned):
            return


def unfinished(board: Board) -> bool:
    """Tell whether there is something to do for the next pass."""
    return any(not sweep.finished for sweep in board.sweeps.values())


def claimants(board: Board, task: TaskState) -> Iterator[Sweep]:
    """Yield the sweeps that a task was submitted before, and which did not find it because it was unread."""
    if task.enqueued_at <= board.sweeps_until:
        yield from [sweep for sweep in board.sweeps.values() if sweep.claims(task)]


def forget(board: Board, key: str) -> None:
    """Forget a sweep for which no submission can be unread any more; one that goes on is looked at again later."""
    sweep = board.sweeps.get(key)
    if sweep is None:
        return
    if not sweep.finished:
        board.clock_timers.set(board.now + board.config.tombstone_ms, TimerKind.SWEEP, key)
        return
    del board.sweeps[key]
    board.draft.notes.append(Note(NoteKind.SWEEP, key, None))


def restore(board: Board, key: str, value: bytes) -> None:
    """Take a sweep over from the leader before: all of it anew, for how far that had come only its effects tell."""
    said = from_json(value)
    sweep = Sweep(
        key=key,
        where=TaskFilter.model_validate(said["where"]),
        at=int(said["at"]),
        reason=str(said["reason"]),
        by=str(said["by"]),
        priority=None if said["priority"] is None else TaskPriority(said["priority"]),
        reply_to=said["reply_to"],
        count=int(said["count"]),
        finished=bool(said["finished"]),
        said_at=board.now,
    )
    _add(board, sweep)


def _add(board: Board, sweep: Sweep) -> None:
    board.sweeps[sweep.key] = sweep
    board.sweeps_until = max(board.sweeps_until, sweep.at)
    board.clock_timers.set(max(sweep.at, board.now) + board.config.tombstone_ms, TimerKind.SWEEP, sweep.key)


def _note(board: Board, sweep: Sweep) -> None:
    told = {
        "where": sweep.where.model_dump(mode="json", exclude_defaults=True),
        "at": sweep.at,
        "reason": sweep.reason,
        "by": sweep.by,
        "priority": sweep.priority,
        "reply_to": sweep.reply_to,
        "count": sweep.count,
        "finished": sweep.finished,
    }
    board.draft.notes.append(Note(NoteKind.SWEEP, sweep.key, to_json(told)))


def _say(board: Board, sweep: Sweep) -> None:
    if sweep.reply_to is None or (not sweep.finished and board.now < sweep.said_at + WORD_EVERY_MS):
        return
    sweep.said_at = board.now
    said = ReplyMessage(swept=Swept(count=sweep.count, finished=sweep.finished))
    board.draft.replies.append(Reply(sweep.reply_to, said.model_dump_json().encode()))
