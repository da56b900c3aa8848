"""A ledger in memory that does what `commit.lua` does: guards first, then records, indexes, streams, notes and sets.

It is strict: whatever the script would refuse is an assertion here, and so is any change that no task may undergo. A
task ends once in each of its lives; a life ends a record's history only by a requeue, or by a purge.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic_core import from_json

from bus.ids import DEFAULT_POOL, scheduled_task_id
from bus.messages import TaskHeader
from bus.records import AgentRecord, AttemptRecord, Guard, Run
from bus.states import TaskStatus
from dispatcher.core.agents import CAME_BACK
from dispatcher.core.decisions import AgentChange, Decisions, Handover, Note, NoteKind, Place, QueueChange, TaskChange
from dispatcher.core.record import StoredTask
from dispatcher.ledger import queue_changes

LIVE: Final = (Place.ACTIVE, Place.DELAYED, Place.WAITING)
"""The indexes of live tasks, in the order in which a new leader reads them."""
Entries = dict[str, dict[int, dict[str, Any]]]


@dataclass(slots=True)
class Record:
    """One task as it is stored."""

    guard: str
    run: bytes
    header: TaskHeader
    birth: int
    """Number of the record: a task that is purged and submitted again has another."""
    at: int
    """When it was accepted."""
    status: TaskStatus = TaskStatus.PENDING
    lives: int = 1
    entry: tuple[str, int] | None = None
    """Agent and number of the assignment that is not yet begun."""


@dataclass(slots=True)
class MemoryLedger:
    """Everything that outlives a leader."""

    tasks: dict[str, Record] = field(default_factory=dict)
    indexes: dict[Place, dict[str, int]] = field(default_factory=lambda: {place: {} for place in Place})
    agents: dict[str, AgentRecord] = field(default_factory=dict)
    notes: dict[tuple[NoteKind, str], bytes] = field(default_factory=dict)
    assignments: Entries = field(default_factory=dict)
    control: Entries = field(default_factory=dict)
    queues: dict[str, set[str]] = field(default_factory=dict)
    """By bounded scope, the ids of the tasks that wait."""
    ends: dict[str, str] = field(default_factory=dict)
    """The guard in which each ended task ended."""
    ended_at: dict[str, int] = field(default_factory=dict)
    purged: set[str] = field(default_factory=set)
    requeued: int = 0
    fired: dict[str, list[int]] = field(default_factory=dict)
    """The instants of each schedule's tasks, those apart that somebody asked for."""
    triggered: list[str] = field(default_factory=list)
    """The tasks of schedules that somebody asked for."""
    starts: list[tuple[Handover, TaskHeader]] = field(default_factory=list)
    """All assignments there ever were."""
    tell: Callable[[str], None] = lambda _agent_id: None
    """Wakes an agent that waits at its streams."""
    now: int = 0
    _numbers: int = 0

    def commit(self, decisions: Decisions, *, first: int | None = None) -> list[str]:
        """Store decisions; return the ids of tasks that were to be new but exist, of which nothing is stored.

        With `first`, only so many tasks: what a leader has stored that dies between two calls of the script.
        """
        changes = decisions.changes if first is None else decisions.changes[:first]
        known = [c.task_id for c in changes if not c.before and c.task_id in self.tasks]
        void = [c for c in changes if c.task_id in known]
        changes = [c for c in changes if c.task_id not in known]
        for change in changes:
            found = self.tasks.get(change.task_id)
            assert (found.guard if found else "") == change.before, f"{change}: the ledger has {found}"
        for change in changes:
            self._store(change)
        for queue in queue_changes(changes, void):
            self._count(queue)
        if first is not None:  # the rates go with the first call, all else that is of no task with the last
            notes = [note for note in decisions.notes if note.kind is NoteKind.RATE]
            decisions = replace(decisions, agents=[], notes=notes, queues=[], instructions=[])
        for agent in decisions.agents:
            self._store_agent(agent)
        for note in decisions.notes:
            if note.value is None:
                self.notes.pop((note.kind, note.field), None)
            else:
                self.notes[note.kind, note.field] = note.value
        for queue in decisions.queues:
            self._count(queue)
        for instruction in decisions.instructions:
            self._write(self.control, instruction.agent_id, instruction.message.root.model_dump(mode="json"))
        return known

    # --- a task

    def _store(self, change: TaskChange) -> None:
        task_id, before = change.task_id, change.before
        record = self.tasks.get(task_id)
        if before.startswith("FAILED"):
            self._begin_anew(change)
        if record is None or change.spec is not None:
            record = self.tasks[task_id] = self._born(change)
        elif change.place is not Place.GONE:
            _compare(task_id, record, change)
        self._index(change)
        if change.place is Place.GONE:
            del self.tasks[task_id]
            self.purged.add(task_id)
            return
        record.guard, record.run, record.status = change.after, change.run, Guard.parse(change.after).status
        if change.release is not None and record.entry is not None:
            self.assignments.get(record.entry[0], {}).pop(record.entry[1], None)
        if change.handover is not None:
            self._hand_over(task_id, record, change.handover)
        if record.status.terminal:
            self._end(change)

    def _born(self, change: TaskChange) -> Record:
        assert change.spec is not None, f"{change.task_id} is new and has no specification"
        self._numbers += 1
        header = TaskHeader.model_validate_json(change.spec)
        if header.schedule is not None:
            due = header.schedule
            if change.task_id == scheduled_task_id(DEFAULT_POOL, due.id, due.due):
                self.fired.setdefault(due.id, []).append(due.due)
            else:
                self.triggered.append(change.task_id)
        self.purged.discard(change.task_id)
        return Record("", b"{}", header, self._numbers, self.now)

    def _begin_anew(self, change: TaskChange) -> None:
        """Forget the end of a dead letter that is requeued, purged, or purged and submitted again."""
        ended = self.ends.pop(change.task_id, None)
        assert ended == change.before, f"{change.task_id} was {change.before} and had ended as {ended}"
        del self.ended_at[change.task_id]
        if change.place is not Place.GONE and change.spec is None:
            self.tasks[change.task_id].lives += 1
            self.requeued += 1

    def _end(self, change: TaskChange) -> None:
        task_id = change.task_id
        assert task_id not in self.ends, f"{task_id} ended twice"
        if change.output is not None:
            who = from_json(change.output)
            assert change.before.endswith(f"/{who}"), f"{task_id}: {who} did not have it: {change.before}"
        self.ends[task_id], self.ended_at[task_id] = change.after, self.now

    def _index(self, change: TaskChange) -> None:
        """Do what the script does by the first letter of the guard before, no more and no less."""
        task_id, was, place = change.task_id, change.before[:1], change.place
        left = {"P": (Place.WAITING, Place.DELAYED), "A": (Place.ACTIVE,), "R": (Place.ACTIVE,)}.get(was, ())
        if was == "F":
            self.indexes[Place.DONE].pop(task_id, None)
            self.indexes[Place.DEAD].pop(task_id, None)
        for index in left:
            if index is not place:
                self.indexes[index].pop(task_id, None)
        if place is Place.DEAD:
            self.indexes[Place.DONE][task_id] = change.place_score
        if place is not Place.GONE:
            self.indexes[place][task_id] = change.place_score

    def _hand_over(self, task_id: str, record: Record, handover: Handover) -> None:
        self.starts.append((handover, record.header))
        said = {
            "task_id": task_id,
            "attempt": handover.attempt,
            "session": handover.session,
            "score": handover.score,
            "header": record.header,
            "birth": record.birth,
        }
        record.entry = handover.agent_id, self._write(self.assignments, handover.agent_id, said)

    # --- everything else

    def _write(self, streams: Entries, agent_id: str, message: dict[str, Any]) -> int:
        self._numbers += 1
        streams.setdefault(agent_id, {})[self._numbers] = message
        self.tell(agent_id)
        return self._numbers

    def _store_agent(self, agent: AgentChange) -> None:
        if agent.record is not None:
            self.agents[agent.agent_id] = agent.record
            return
        held = [one for one, record in self.tasks.items() if f"/{agent.agent_id}/" in record.guard]
        assert not held, f"{agent.agent_id} is forgotten and holds {held}"
        for stored in (self.agents, self.assignments, self.control):
            stored.pop(agent.agent_id, None)

    def _count(self, queue: QueueChange) -> None:
        if not queue.add and not queue.remove:
            self.queues.pop(queue.scope, None)
        ids = self.queues.setdefault(queue.scope, set())
        ids.update(queue.add)
        ids.difference_update(queue.remove)

    # --- reading

    def read(self, task_id: str) -> StoredTask | None:
        """Return a task's record as it is read for a leader."""
        record = self.tasks.get(task_id)
        if record is None:
            return None
        return StoredTask(task_id, Guard.parse(record.guard), record.header, Run.model_validate_json(record.run))

    def live(self) -> list[StoredTask]:
        """Return the tasks that have not ended, as a new leader reads them: by the indexes."""
        ids = [one for place in LIVE for one, _ in sorted(self.indexes[place].items(), key=lambda entry: entry[1])]
        return [stored for task_id in ids if (stored := self.read(task_id)) is not None]

    def noted(self) -> list[Note]:
        """Return all notes."""
        return [Note(kind, name, value) for (kind, name), value in self.notes.items()]

    def notes_of(self, kind: NoteKind) -> Mapping[str, bytes]:
        """Return the notes of one kind by their fields."""
        return {name: value for (of, name), value in self.notes.items() if of is kind}


def _compare(task_id: str, record: Record, change: TaskChange) -> None:
    """Fail if a record lost what none may lose, whatever happens to its task; `lives` counts the new one already."""
    before, after = Run.model_validate_json(record.run), Run.model_validate_json(change.run)
    old, new = Guard.parse(change.before), Guard.parse(change.after)
    requeues = min(record.lives - 1, 10)
    assert len(after.requeues) == requeues, f"{task_id}: lives are missing: {after}"
    assert old.attempt <= new.attempt, f"{task_id}: attempts begin anew: {old} -> {new}"
    assert _acquitted(after.attempts[: len(before.attempts)]) == _acquitted(before.attempts[:50]), (
        f"{task_id}: past attempts are lost: {before} -> {after}"
    )
    assert (before.children or 0) <= (after.children or 0), f"{task_id}: children are lost: {before} -> {after}"
    assert before.priority is None or after.priority is not None, (
        f"{task_id}: its priority is lost: {before} -> {after}"
    )
    if old.status is TaskStatus.FAILED:
        return
    assert before.enqueued_at == after.enqueued_at, f"{task_id}: its age is lost: {before} -> {after}"
    assert before.failures <= after.failures, f"{task_id}: failures are forgotten: {before} -> {after}"
    assert before.cancellation is None or after.cancellation is not None, (
        f"{task_id}: its cancel is forgotten: {before} -> {after}"
    )
    assert set(before.watchers) <= set(after.watchers), f"{task_id}: watchers are forgotten: {before} -> {after}"


def _acquitted(attempts: tuple[AttemptRecord, ...]) -> list[AttemptRecord]:
    """Return past attempts as they are without what may be learnt afterwards: that an agent that was lost came back."""
    return [replace(one, error=None) if one.error == CAME_BACK else one for one in attempts]
