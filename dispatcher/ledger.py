"""The ledger: every write of a leader, and what a new leader reads.

Decisions become calls of `commit.lua`, of so many tasks and bytes each, in order. A leader may die between two of
them, so each is true by itself: what is said of a task (events, answers) goes with the task. Agents' records,
instructions and notes go into the last call, and so do the acknowledgements of the input: until then the successor
finds agents as they were and reads the same input again, so that it decides once more of all that was not stored.
(Were an agent stored as lost before its tasks are freed, nobody would free them.) An instruction that goes unsent by
this is made up for: the agent's next heartbeat shows that it holds what it should not.

A call whose reply was lost is sent again: the script knows the latest call by its number. Any other doubt (a fence, a
conflict) is answered by loading the ledger anew, never by guessing.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from pydantic_core import to_json

from bus.connection import Redis
from bus.ids import is_keyed
from bus.messages import VERSION
from bus.names import DISPATCHERS_GROUP, PoolNames
from bus.script import Arg, Script
from dispatcher.core.decisions import (
    AgentChange,
    Answer,
    Decisions,
    Instruct,
    Note,
    NoteKind,
    Place,
    QueueChange,
    TaskChange,
    TaskTransition,
)
from dispatcher.leadership import Lead

COMMIT: Final = Script("dispatcher.scripts", "commit")
BATCH: Final = 100
"""Tasks per call: a hundred block the server for about 0.6 ms."""
BATCH_BYTES: Final = 2 * 1024 * 1024
"""A call is ended early by this size of its tasks."""
LARGE_OUTPUT: Final = 16 * 1024
"""Outputs above it are not repeated in replies: who waits is told to read the ledger."""
REPLY_BYTES: Final = 256 * 1024
"""Outcomes for one client are written in entries of about this size at most."""

REPLY_TTL_MS: Final = 60_000
"""How long the answer to a question may be fetched."""

STANDING_TTL_MS: Final = 60_000


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


class FencedError(Exception):
    """Another leads now, or the lease has run out: nothing was written. A normal outcome for a leader."""


class ConflictError(Exception):
    """A record is not what the scheduler's memory says it is; nothing was written."""


@dataclass(slots=True)
class Inputs:
    """Input entries to consume with a commit, and messages that could not be understood."""

    acks: dict[str, list[str]] = field(default_factory=dict)
    """Stream → entry ids."""
    rejected: list[bytes] = field(default_factory=list)
    """Bodies for the `rejected` stream."""


@dataclass(slots=True)
class _Part:
    """The tasks of one call, with all that is said of them."""

    changes: list[TaskChange]
    transitions: list[TaskTransition]
    answers: list[Answer]
    void: list[TaskChange] = field(default_factory=list)
    """Changes that were left out: of tasks that were to be new and exist."""

    def drop(self, known: Container[str]) -> None:
        """Leave out all that concerns the tasks `known`."""
        self.void += [one for one in self.changes if one.task_id in known]
        self.changes = [one for one in self.changes if one.task_id not in known]
        self.transitions = [one for one in self.transitions if one.task_id not in known]
        self.answers = [one for one in self.answers if one.task_id not in known]


@dataclass(slots=True)
class _Commit:
    """A pass that is being stored."""

    decisions: Decisions
    number: int
    parts: list[_Part]
    at: int = 0
    """The part whose outcome is not known yet."""
    known: list[str] = field(default_factory=list)


def in_parts(decisions: Decisions) -> list[_Part]:
    """Cut a pass into parts that one call may take; what concerns none of its tasks is in the last."""
    changes = decisions.changes
    cuts = list(_cuts(changes))
    if len(cuts) == 1:
        return [_Part(changes, decisions.transitions, decisions.answers)]
    parts = [_Part(changes[start:end], [], []) for start, end in cuts]
    part_of = {change.task_id: part for part in parts for change in part.changes}
    last = parts[-1]
    for transition in decisions.transitions:
        part_of.get(transition.task_id, last).transitions.append(transition)
    for answer in decisions.answers:
        part_of.get(answer.task_id, last).answers.append(answer)
    return parts


def _cuts(changes: Sequence[TaskChange]) -> Iterator[tuple[int, int]]:
    start = size = 0
    for n, change in enumerate(changes):
        own = len(change.run) + len(change.spec or b"") + len(change.output or b"")
        if n - start == BATCH or (size and size + own > BATCH_BYTES):
            yield start, n
            start, size = n, 0
        size += own
    yield start, len(changes)


class _Call:
    """One call of the commit script, under construction: interned keys, and the arguments' sections."""

    __slots__ = (
        "_index",
        "acks",
        "agents",
        "events",
        "id",
        "keys",
        "messages",
        "n_acks",
        "n_agents",
        "n_messages",
        "n_notes",
        "n_queues",
        "n_tasks",
        "notes",
        "queues",
        "tasks",
    )

    def __init__(self, fixed: Sequence[str]) -> None:
        self.keys = list(fixed)
        self._index = {key: n for n, key in enumerate(self.keys, 1)}
        self.tasks: list[Arg] = []
        self.acks: list[Arg] = []
        self.messages: list[Arg] = []
        self.agents: list[Arg] = []
        self.notes: list[Arg] = []
        self.queues: list[Arg] = []
        self.n_tasks = self.n_acks = self.n_messages = self.n_agents = self.n_notes = self.n_queues = 0
        self.events: bytes = b""
        self.id = ""

    def key(self, name: str) -> int:
        """Return the position of `name` in KEYS, adding it if it is new."""
        at = self._index.get(name)
        if at is None:
            self.keys.append(name)
            at = self._index[name] = len(self.keys)
        return at


class Ledger:
    """The ledger of one pool."""

    def __init__(self, redis: Redis, names: PoolNames, limits: LedgerLimits | None = None) -> None:
        self._redis = redis
        self._names = names
        self._limits = limits or LedgerLimits()
        n = names
        self._fixed = [n.leader, n.pending, n.delayed, n.leases, n.finished, n.dead, n.events, n.agents, n.committed]
        self._latest = _Commit(Decisions(), 0, [])

    async def commit(self, lead: Lead, decisions: Decisions, inputs: Inputs, now: int) -> list[str]:
        """Store `decisions` and consume `inputs`; return the ids of tasks that were to be new but exist.

        Nothing is written or said of those: a submission that is read a second time, after its task has ended, is
        news only to the scheduler's memory. Raises `FencedError`, `ConflictError`, or redis-py's connection errors,
        after which the very same decisions may be committed again: it goes on where it was, and all is stored once.
        """
        if self._latest.decisions is not decisions:
            self._latest = _Commit(decisions, self._latest.number + 1, in_parts(decisions))
        work = self._latest
        while True:
            part, last = work.parts[work.at], work.at == len(work.parts) - 1
            call = self._render(part, decisions if last else None, inputs if last else None, lead, now)
            if work.at == 0:  # starts without their rate would let others start in their place
                self._notes(call, (note for note in decisions.notes if note.kind is NoteKind.RATE))
            call.id = f"{lead.epoch}/{work.number}/{work.at}"
            status, *told = await COMMIT.run(self._redis, call.keys, self._arguments(call, lead, now))
            if status == b"FENCED":
                raise FencedError(told[0].decode())
            if status == b"CONFLICT":
                msg = f"task {told[0].decode()}: the ledger has {told[1].decode() or 'no record'}"
                raise ConflictError(msg)
            if status == b"KNOWN":
                found = {part.changes[position - 1].task_id for position in told}
                work.known += found
                part.drop(found)
            elif last:
                return work.known
            else:
                work.at += 1

    def _arguments(self, call: _Call, lead: Lead, now: int) -> list[Arg]:
        limits = self._limits
        return [
            lead.token,
            DISPATCHERS_GROUP,
            now,
            limits.retention_ms,
            call.events,
            bounded(limits.events_cap, limits.events_bytes, len(call.events)),
            limits.events_retention_ms,
            limits.assignments_ttl_ms,
            call.id,
            call.n_tasks,
            call.n_acks,
            call.n_messages,
            call.n_agents,
            call.n_notes,
            call.n_queues,
            *call.tasks,
            *call.acks,
            *call.messages,
            *call.agents,
            *call.notes,
            *call.queues,
        ]

    def _render(self, part: _Part, rest: Decisions | None, inputs: Inputs | None, lead: Lead, now: int) -> _Call:
        """Make the call that stores `part` of a pass; the last one has the `rest` and the `inputs`, too."""
        call = _Call(self._fixed)
        for change in part.changes:
            self._task(call, change)
        for queue in queue_changes(part.changes, part.void):
            self._queue(call, queue)
        outputs = {c.task_id: c.output for c in part.changes if c.output is not None and len(c.output) > LARGE_OUTPUT}
        self._answers(call, part.answers, outputs)
        if rest is not None:
            self._instructions(call, rest.instructions)
            for reply in rest.replies:
                self._message(call, self._names.replies(reply.client_id), REPLY_TTL_MS, 0, reply.body)
            self._agents(call, rest.agents, now)
            self._notes(call, (note for note in rest.notes if note.kind is not NoteKind.RATE))
            for queue in rest.queues:
                self._queue(call, queue)
        if inputs is not None:
            self._inputs(call, inputs)
        agents = [] if rest is None else rest.agent_transitions
        if part.transitions or agents:
            call.events = to_json(
                {"v": VERSION, "at": now, "epoch": lead.epoch, "tasks": part.transitions, "agents": agents},
                exclude_none=True,
            )
        return call

    def _inputs(self, call: _Call, inputs: Inputs) -> None:
        limits = self._limits
        for body in inputs.rejected:
            cap = bounded(limits.rejected_cap, limits.rejected_bytes, len(body))
            self._message(call, self._names.rejected, 0, cap, body)
        for stream, ids in inputs.acks.items():
            if ids:
                call.n_acks += 1
                call.acks += [call.key(stream), len(ids), *ids]

    def _task(self, call: _Call, change: TaskChange) -> None:
        names = self._names
        handover = change.handover
        if handover is None:
            target, head = 0, ""
        else:
            target = call.key(names.assignments(handover.agent_id))
            version = "" if handover.version is None else f'"version":{to_json(handover.version).decode()},'
            head = (
                f'{{"v":{VERSION},"task_id":"{change.task_id}","attempt":{handover.attempt},"session":"{handover.session}",'
                f'"score":{handover.score},"assigned_at":{handover.at},{version}"task":'
            )
        ends_here = not change.before or change.place is Place.GONE
        marker = call.key(names.submitted(change.task_id)) if ends_here and is_keyed(change.task_id) else 0
        release = 0 if change.release is None else call.key(names.assignments(change.release))
        joined = 0 if change.parent is None else call.key(names.children(change.parent))
        ended = 0
        if change.last_of_kin:
            ended = call.key(names.children(change.task_id if change.parent is None else change.parent))
        call.n_tasks += 1
        call.tasks += (
            call.key(names.task(change.task_id)),
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
            head,
            marker,
            joined,
            ended,
        )

    def _instructions(self, call: _Call, instructions: Sequence[Instruct]) -> None:
        """Write to control streams; a commit never pushes out what was written by it, or shortly before."""
        limits = self._limits
        number = Counter(one.agent_id for one in instructions)
        for one in instructions:
            body = one.message.model_dump_json().encode()
            cap = limits.control_cap + number[one.agent_id]
            self._message(call, self._names.control(one.agent_id), limits.control_ttl_ms, cap, body)

    def _agents(self, call: _Call, agents: Sequence[AgentChange], now: int) -> None:
        names = self._names
        for change in agents:
            key, record = call.key(names.agent(change.agent_id)), change.record
            call.n_agents += 1
            if record is None:
                streams = call.key(names.assignments(change.agent_id)), call.key(names.control(change.agent_id))
                call.agents += (key, change.agent_id, b"", now, *streams)
            else:
                body = record.__pydantic_serializer__.to_json(record)
                call.agents += (key, change.agent_id, body, record.registered_at, 0, 0)

    def _answers(self, call: _Call, answers: Sequence[Answer], outputs: Mapping[str, bytes]) -> None:
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
                self._message(call, stream, limits.replies_ttl_ms, cap, body)

    def _notes(self, call: _Call, notes: Iterable[Note]) -> None:
        for note in notes:
            call.n_notes += 1
            call.notes += (call.key(self._names.notes(note.kind)), note.field, note.value or b"")

    def _queue(self, call: _Call, change: QueueChange) -> None:
        key = call.key(self._names.queue(change.scope))
        if not change.add and not change.remove:
            call.n_queues += 1
            call.queues += (key, "0", 0)
        for sign, ids in (("+", change.add), ("-", change.remove)):
            if ids:
                call.n_queues += 1
                call.queues += (key, sign, len(ids), *ids)

    @staticmethod
    def _message(call: _Call, stream: str, ttl_ms: int, cap: int, body: bytes) -> None:
        call.n_messages += 1
        call.messages += (call.key(stream), ttl_ms, cap, body)

    async def prune(self, now: int) -> int:
        """Drop old events, and index entries of finished tasks whose records have expired; return how many of these.

        Safe from any process.
        """
        horizon = now - self._limits.retention_ms
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zremrangebyscore(self._names.finished, "-inf", horizon)
            pipe.zremrangebyscore(self._names.dead, "-inf", horizon)
            pipe.xtrim(self._names.events, minid=str(max(0, now - self._limits.events_retention_ms)))
            removed = await pipe.execute()
        return int(removed[0])

    async def publish(self, key: str, fields: Mapping[Any, Any], ttl_ms: int = STANDING_TTL_MS) -> None:
        """Replace a hash of words for people (why tasks wait, agents' load); short-lived and not fenced."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            if fields:
                pipe.hset(key, mapping=fields)
                pipe.pexpire(key, ttl_ms)
            await pipe.execute()


def queue_changes(changes: Sequence[TaskChange], void: Sequence[TaskChange]) -> Iterable[QueueChange]:
    """Return what changes in the sets of bounded scopes; what was submitted again and is `void` does not wait."""
    found: dict[str, QueueChange] = {}
    for change, queued in chain(((one, one.queued) for one in changes if one.queues), ((one, False) for one in void)):
        if queued is not None:
            for scope in change.queues:
                queue = found.setdefault(scope, QueueChange(scope))
                (queue.add if queued else queue.remove).append(change.task_id)
    return found.values()


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
