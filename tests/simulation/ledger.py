"""A ledger in memory that keeps what `commit.lua` would: records, agents, notes, and the streams to agents."""

from dataclasses import dataclass, field
from typing import Any

from pydantic_core import from_json

from bus.messages import TaskHeader
from bus.records import AgentRecord, Guard, Run
from dispatcher.core.decisions import Decisions, Note, NoteKind, QueueChange, TaskChange
from dispatcher.core.record import StoredTask
from dispatcher.ledger import queue_changes


@dataclass(slots=True)
class Record:
    """One task as it is stored."""

    guard: str
    run: bytes
    spec: bytes
    entry: tuple[str, int] | None = None
    """Agent and number of the assignment that is not yet begun."""
    at: int = 0
    """When it was accepted."""


@dataclass(slots=True)
class MemoryLedger:
    """Everything that outlives a leader."""

    tasks: dict[str, Record] = field(default_factory=dict)
    agents: dict[str, AgentRecord] = field(default_factory=dict)
    notes: dict[tuple[NoteKind, str], bytes] = field(default_factory=dict)
    assignments: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    control: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    ends: dict[str, str] = field(default_factory=dict)
    """The guard in which each ended task ended."""
    queues: dict[str, set[str]] = field(default_factory=dict)
    """By bounded scope, the ids of the tasks that wait."""
    entries: int = 0
    now: int = 0

    def commit(self, decisions: Decisions) -> list[str]:
        """Store decisions; return the ids of tasks that were to be new but exist, of which nothing is stored."""
        known = [c.task_id for c in decisions.changes if not c.before and c.task_id in self.tasks]
        void = [c for c in decisions.changes if c.task_id in known]
        if known:
            decisions = decisions.without(known)
        for change in decisions.changes:
            found = self.tasks.get(change.task_id)
            assert (found.guard if found else "") == change.before, f"{change}: the ledger has {found}"
        for change in decisions.changes:
            self._store(change)
        for agent in decisions.agents:
            if agent.record is None:
                self.agents.pop(agent.agent_id, None)
            else:
                self.agents[agent.agent_id] = agent.record
        for note in decisions.notes:
            if note.value is None:
                self.notes.pop((note.kind, note.field), None)
            else:
                self.notes[note.kind, note.field] = note.value
        for queue in (*queue_changes(decisions.changes, void), *decisions.queues):
            self._count(queue)
        for instruction in decisions.instructions:
            message = instruction.message.root.model_dump(mode="json")
            self.control.setdefault(instruction.agent_id, []).append(message)
        return known

    def _count(self, queue: QueueChange) -> None:
        if not queue.add and not queue.remove:
            self.queues.pop(queue.scope, None)
        ids = self.queues.setdefault(queue.scope, set())
        ids.update(queue.add)
        ids.difference_update(queue.remove)

    def _store(self, change: TaskChange) -> None:
        record = self.tasks.setdefault(change.task_id, Record("", b"", change.spec or b"", at=self.now))
        record.guard, record.run = change.after, change.run
        if change.release is not None and record.entry is not None:
            self.assignments[record.entry[0]].pop(record.entry[1], None)
        if change.handover is not None:
            self._hand_over(change.task_id, record, change.handover)
        if Guard.parse(change.after).status.terminal:
            assert change.task_id not in self.ends, f"{change.task_id} ended twice"
            if change.output is not None:
                who = from_json(change.output)
                assert change.before.endswith(f"/{who}"), (
                    f"{change.task_id}: {who} was not the one that had it: {change.before}"
                )
            self.ends[change.task_id] = change.after

    def _hand_over(self, task_id: str, record: Record, handover: Any) -> None:
        self.entries += 1
        record.entry = (handover.agent_id, self.entries)
        self.assignments.setdefault(handover.agent_id, {})[self.entries] = {
            "task_id": task_id,
            "attempt": handover.attempt,
            "session": handover.session,
            "score": handover.score,
            "spec": from_json(record.spec),
        }

    def live(self) -> list[StoredTask]:
        """Return the records of tasks that have not ended, as a new leader reads them."""
        return [
            StoredTask(task_id, guard, TaskHeader.model_validate_json(record.spec), Run.model_validate_json(record.run))
            for task_id, record in self.tasks.items()
            if not (guard := Guard.parse(record.guard)).status.terminal
        ]

    def noted(self) -> list[Note]:
        """Return all notes."""
        return [Note(kind, name, value) for (kind, name), value in self.notes.items()]
