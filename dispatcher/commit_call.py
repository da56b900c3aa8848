"""One call of `commit.lua`: what is decided, as keys and arguments of the script.

Every key that the script touches is in KEYS, once, and referred to by its position; each kind of change has its own
section of ARGV. The order of both is told at the head of the script.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic_core import to_json

from bus.ids import is_keyed
from bus.messages import VERSION
from bus.names import DISPATCHERS_GROUP, PoolNames
from bus.script import Arg
from dispatcher.core.decisions import (
    AgentChange,
    Answer,
    Handover,
    Instruct,
    Note,
    Place,
    QueueChange,
    Reply,
    TaskChange,
)
from dispatcher.leadership import Lead

LARGE_OUTPUT: Final = 16 * 1024
"""Outputs above it are not repeated in replies: who waits is told to read the ledger."""
REPLY_BYTES: Final = 256 * 1024
"""Outcomes for one client are written in entries of about this size at most."""
REPLY_TTL_MS: Final = 60_000
"""How long the answer to a question may be fetched."""


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """How long and how much is kept. Durations are milliseconds, caps are entries."""

    retention_ms: int = 24 * 3_600_000
    events_retention_ms: int = 15 * 60_000
    events_cap: int = 100_000
    events_bytes: int = 256 * 1024 * 1024
    rejected_cap: int = 10_000
    rejected_bytes: int = 64 * 1024 * 1024
    replies_cap: int = 10_000
    replies_bytes: int = 16 * 1024 * 1024
    replies_ttl_ms: int = 3_600_000
    control_cap: int = 10_000
    control_ttl_ms: int = 24 * 3_600_000
    assignments_ttl_ms: int = 7 * 24 * 3_600_000
    """Counted from the last assignment; must be longer than any lease. Unread work is taken back long before."""


@dataclass(slots=True)
class Inputs:
    """Input entries to consume with a commit, and messages that could not be understood."""

    acks: dict[str, list[str]] = field(default_factory=dict)
    """Stream → entry ids."""
    rejected: list[bytes] = field(default_factory=list)
    """Bodies for the `rejected` stream."""


class CommitCall:
    """One call of the commit script, under construction: interned keys, and the arguments' sections."""

    __slots__ = (
        "_acks",
        "_agents",
        "_index",
        "_limits",
        "_messages",
        "_n_acks",
        "_n_agents",
        "_n_messages",
        "_n_notes",
        "_n_queues",
        "_n_tasks",
        "_names",
        "_notes",
        "_queues",
        "_tasks",
        "events",
        "keys",
    )

    def __init__(self, names: PoolNames, limits: LedgerLimits, changes: Sequence[TaskChange]) -> None:
        n = names
        self._names = names
        self._limits = limits
        self.keys = [n.leader, n.pending, n.delayed, n.leases, n.finished, n.dead, n.events, n.agents, n.committed]
        self.keys += [n.task(change.task_id) for change in changes]
        self._index: dict[str, int] = {}
        self._tasks: list[Arg] = []
        self._acks: list[Arg] = []
        self._messages: list[Arg] = []
        self._agents: list[Arg] = []
        self._notes: list[Arg] = []
        self._queues: list[Arg] = []
        self._n_tasks = len(changes)
        self._n_acks = self._n_messages = self._n_agents = self._n_notes = self._n_queues = 0
        self.events: bytes = b""
        for change in changes:
            self._add_task(change)

    def _key(self, name: str) -> int:
        """Return the position of `name` in KEYS, adding it if it is new."""
        at = self._index.get(name)
        if at is None:
            self.keys.append(name)
            at = self._index[name] = len(self.keys)
        return at

    def arguments(self, lead: Lead, now: int, chain: str, number: int) -> list[Arg]:
        """Return the arguments of the script, for the call of this `number` in its chain."""
        limits = self._limits
        return [
            lead.token,
            DISPATCHERS_GROUP,
            now,
            limits.retention_ms,
            self.events,
            bounded(limits.events_cap, limits.events_bytes, len(self.events)),
            limits.events_retention_ms,
            limits.assignments_ttl_ms,
            chain,
            number,
            self._n_tasks,
            self._n_acks,
            self._n_messages,
            self._n_agents,
            self._n_notes,
            self._n_queues,
            *self._tasks,
            *self._acks,
            *self._messages,
            *self._agents,
            *self._notes,
            *self._queues,
        ]

    def _add_task(self, change: TaskChange) -> None:
        """Add the change of one task's record: as one of the kinds that most are, if it is, for those take less."""
        task_id, before, spec, handover, place = (
            change.task_id,
            change.before,
            change.spec,
            change.handover,
            change.place,
        )
        new = not before
        if change.parent is not None or change.last_of_kin or (new and is_keyed(task_id)):
            self._add_general(change)
        elif new and place is Place.WAITING:
            self._tasks += ("w", task_id, "", change.after, change.place_score, change.run, spec or b"")
        elif handover is not None and change.release is None and (new or before.startswith("PENDING")):
            target = self._key(self._names.assignments(handover.agent_id))
            head = head_of(task_id, handover)
            after, at = change.after, change.place_score
            self._tasks += ("a", task_id, before, after, at, change.run, spec or b"", target, head)
        elif place is Place.DONE and spec is None and change.output is not None and before[:1] in ("A", "R"):
            release = 0 if change.release is None else self._key(self._names.assignments(change.release))
            after, at = change.after, change.place_score
            self._tasks += ("f", task_id, before, after, at, change.run, change.output, release)
        else:
            self._add_general(change)

    def _add_general(self, change: TaskChange) -> None:
        """Add any change of a task's record."""
        names = self._names
        handover = change.handover
        target = 0 if handover is None else self._key(names.assignments(handover.agent_id))
        ends_here = not change.before or change.place is Place.GONE
        marker = self._key(names.submitted(change.task_id)) if ends_here and is_keyed(change.task_id) else 0
        release = 0 if change.release is None else self._key(names.assignments(change.release))
        joined = 0 if change.parent is None else self._key(names.children(change.parent))
        ended = 0
        if change.last_of_kin:
            ended = self._key(names.children(change.task_id if change.parent is None else change.parent))
        self._tasks += (
            "g",
            change.task_id,
            change.before,
            change.after,
            change.place.value,
            change.place_score,
            change.run,
            change.spec or b"",
            change.output or b"",
            release,
            target,
            "" if handover is None else head_of(change.task_id, handover),
            marker,
            joined,
            ended,
        )

    def add_instructions(self, instructions: Sequence[Instruct]) -> None:
        """Write to control streams; a commit never pushes out what was written by it, or shortly before."""
        limits = self._limits
        number = Counter(one.agent_id for one in instructions)
        for one in instructions:
            body = one.message.model_dump_json().encode()
            cap = limits.control_cap + number[one.agent_id]
            self._message(self._names.control(one.agent_id), limits.control_ttl_ms, cap, body)

    def add_agents(self, agents: Sequence[AgentChange], now: int) -> None:
        """Add changes of agents' records."""
        names = self._names
        for change in agents:
            key, record = self._key(names.agent(change.agent_id)), change.record
            self._n_agents += 1
            if record is None:
                streams = self._key(names.assignments(change.agent_id)), self._key(names.control(change.agent_id))
                self._agents += (key, change.agent_id, b"", now, *streams)
            else:
                body = record.__pydantic_serializer__.to_json(record)
                self._agents += (key, change.agent_id, body, record.registered_at, 0, 0)

    def add_answers(self, answers: Sequence[Answer], outputs: Mapping[str, bytes]) -> None:
        """Write outcomes to who waits for them; `outputs` are those, by task, that are too large to be repeated."""
        by_client: dict[str, list[bytes]] = {}
        for answer in answers:
            large = outputs.get(answer.task_id)
            outcome = answer.outcome if large is None else without_output(answer.outcome, large)
            by_client.setdefault(answer.client_id, []).append(outcome)
        limits = self._limits
        for client, outcomes in by_client.items():
            stream = self._names.replies(client)
            for entry in _in_entries(outcomes):
                body = b'{"v":%d,"outcomes":[%b]}' % (VERSION, b",".join(entry))
                cap = bounded(limits.replies_cap, limits.replies_bytes, len(body))
                self._message(stream, limits.replies_ttl_ms, cap, body)

    def add_notes(self, notes: Iterable[Note]) -> None:
        """Add what else the next leader must know."""
        for note in notes:
            self._n_notes += 1
            self._notes += (self._key(self._names.notes(note.kind)), note.field, note.value or b"")

    def add_queue(self, change: QueueChange) -> None:
        """Add what begins, or ceases, to count for a bound."""
        key = self._key(self._names.queue(change.scope))
        if not change.add and not change.remove:
            self._n_queues += 1
            self._queues += (key, "0", 0)
        for sign, ids in (("+", change.add), ("-", change.remove)):
            if ids:
                self._n_queues += 1
                self._queues += (key, sign, len(ids), *ids)

    def add_inputs(self, inputs: Inputs) -> None:
        """Consume entries, and set aside what could not be understood."""
        limits = self._limits
        for body in inputs.rejected:
            cap = bounded(limits.rejected_cap, limits.rejected_bytes, len(body))
            self._message(self._names.rejected, 0, cap, body)
        for stream, ids in inputs.acks.items():
            if ids:
                self._n_acks += 1
                self._acks += [self._key(stream), len(ids), *ids]

    def add_replies(self, replies: Sequence[Reply]) -> None:
        """Write answers to questions."""
        for reply in replies:
            self._message(self._names.replies(reply.client_id), REPLY_TTL_MS, 0, reply.body)

    def _message(self, stream: str, ttl_ms: int, cap: int, body: bytes) -> None:
        self._n_messages += 1
        self._messages += (self._key(stream), ttl_ms, cap, body)


def head_of(task_id: str, handover: Handover) -> str:
    """Return an assignment's JSON up to the submission that it is of."""
    version = "" if handover.version is None else f'"version":{to_json(handover.version).decode()},'
    return (
        f'{{"v":{VERSION},"task_id":"{task_id}","attempt":{handover.attempt},"session":"{handover.session}",'
        f'"score":{handover.score},"assigned_at":{handover.at},{version}"task":'
    )


def bounded(cap: int, budget: int, size: int) -> int:
    """Return at how many entries a stream is cut when one of `size` bytes is written to it, at most `cap`.

    At any time the stream then has no more than `budget / size` entries of `size` bytes or more, whatever `size`.
    """
    return max(1, min(cap, budget // max(1, size)))


def without_output(outcome: bytes, output: bytes) -> bytes:
    """Leave the output out of an outcome's JSON, which ends with it, and say where it is."""
    tail = b',"output":%b}' % output
    return outcome.removesuffix(tail) + b',"output_in_ledger":true}' if outcome.endswith(tail) else outcome


def _in_entries(outcomes: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    start = size = 0
    for n, outcome in enumerate(outcomes):
        if size and size + len(outcome) > REPLY_BYTES:
            yield outcomes[start:n]
            start, size = n, 0
        size += len(outcome)
    yield outcomes[start:]
