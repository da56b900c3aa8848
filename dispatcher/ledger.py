"""The ledger: every write of a leader, and what a new leader reads.

Decisions become calls of `commit.lua`, of so many tasks and bytes each, in order. A leader may die between two of
them, so each is true by itself: what is said of a task (events, answers) goes with the task. Agents' records,
instructions and notes go into the last call, and so do the acknowledgements of the input: until then the successor
finds agents as they were and reads the same input again, so that it decides once more of all that was not stored.
(Were an agent stored as lost before its tasks are freed, nobody would free them.) An instruction that goes unsent by
this is made up for: the agent's next heartbeat shows that it holds what it should not.

Calls are sent without waiting for the answers to those before them, so that the server works on one while the next is
made: each has a number in the chain of calls of its leader, and the script takes none whose predecessor was not made.
One whose reply was lost is sent again, and known by its number. Any other doubt (a fence, a conflict, a chain that is
not as remembered) is answered by loading the ledger anew, never by guessing.
"""

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final

from pydantic import TypeAdapter
from redis.exceptions import NoScriptError

from bus.connection import Redis
from bus.ids import new_nonce
from bus.in_flight import in_flight
from bus.messages import VERSION
from bus.names import PoolNames
from bus.script import Script
from dispatcher.commit_call import LARGE_OUTPUT, CommitCall, Inputs, LedgerLimits
from dispatcher.core.decisions import (
    AgentTransition,
    Answer,
    Decisions,
    NoteKind,
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
STANDING_TTL_MS: Final = 60_000

_TASKS: Final = TypeAdapter(list[TaskTransition])
_AGENTS: Final = TypeAdapter(list[AgentTransition])
"""What knows its types is written seven times as fast, and leaves out what is None."""


class FencedError(Exception):
    """Another leads now, or the lease has run out: nothing was written. A normal outcome for a leader."""


class ConflictError(Exception):
    """A record is not what the scheduler's memory says it is; nothing was written."""


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
    first: int
    """Number of its first part in the chain."""
    parts: list[_Part]
    at: int = 0
    """The first part whose outcome is not known yet."""
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


class Ledger:
    """The ledger of one pool, for one leader after another: each lead is a chain of commits."""

    def __init__(self, redis: Redis, names: PoolNames, limits: LedgerLimits | None = None) -> None:
        self._redis = redis
        self._names = names
        self._limits = limits or LedgerLimits()
        self._lead: Lead | None = None
        self._chain = ""
        self._latest = _Commit(Decisions(), 0, [])
        self._in_server = False
        """The server knows the script, unless it has lost it again."""

    async def commit(self, lead: Lead, decisions: Decisions, inputs: Inputs, now: int) -> list[str]:
        """Store `decisions` and consume `inputs`; return the ids of tasks that were to be new but exist.

        Nothing is written or said of those: a submission that is read a second time, after its task has ended, is
        news only to the scheduler's memory. Raises `FencedError`, `ConflictError`, or redis-py's connection errors,
        after which the very same decisions may be committed again: it goes on where it was, and all is stored once.
        """
        if self._lead != lead:
            self._lead, self._chain = lead, f"{lead.epoch}/{new_nonce()}"
            self._latest = _Commit(Decisions(), 1, [])
        if self._latest.decisions is not decisions:
            following = self._latest.first + len(self._latest.parts)
            self._latest = _Commit(decisions, following, in_parts(decisions))
        work = self._latest
        while work.at < len(work.parts):
            for reply in await self._send(work, inputs, lead, now):
                if not await self._settle(work, reply):
                    break
        return work.known

    async def _send(self, work: _Commit, inputs: Inputs, lead: Lead, now: int) -> list[Any]:
        """Make the calls of all parts whose outcome is not known; return their replies, errors among them."""
        decisions, last = work.decisions, len(work.parts) - 1
        async with in_flight(self._redis) as flight:
            for n, part in enumerate(work.parts[work.at :], work.at):
                call = self._render(part, decisions if n == last else None, inputs if n == last else None, lead, now)
                if n == 0:  # starts without their rate would let others start in their place
                    call.add_notes(note for note in decisions.notes if note.kind is NoteKind.RATE)
                arguments = call.arguments(lead, now, self._chain, work.first + n)
                script = ("EVALSHA", COMMIT.sha) if self._in_server else ("EVAL", COMMIT.source)
                await flight.send(*script, len(call.keys), *call.keys, *arguments)
                self._in_server = True
            return [await flight.reply() for _ in range(flight.pending)]

    async def _settle(self, work: _Commit, reply: Any) -> bool:  # noqa: ANN401 - what the script answers, or an error
        """Note what came of the part at which `work` is; return whether the next one is worth looking at."""
        if isinstance(reply, NoScriptError):
            self._in_server = False
            return False
        if isinstance(reply, Exception):
            raise reply
        part, (status, *told) = work.parts[work.at], reply
        match status:
            case b"OK":
                work.at += 1
                return True
            case b"KNOWN":
                found = {part.changes[position - 1].task_id for position in told}
                work.known += found
                part.drop(found)
                return False
            case b"FENCED":
                raise FencedError(told[0].decode())
            case b"BROKEN":
                msg = f"the ledger's latest call is {told[0].decode() or 'none'}, this one is {work.first + work.at}"
                raise ConflictError(msg)
            case _:
                msg = f"task {told[0].decode()}: the ledger has {told[1].decode() or 'no record'}"
                raise ConflictError(msg)

    def _render(self, part: _Part, rest: Decisions | None, inputs: Inputs | None, lead: Lead, now: int) -> CommitCall:
        """Make the call that stores `part` of a pass; the last one has the `rest` and the `inputs`, too."""
        call = CommitCall(self._names, self._limits, part.changes)
        for queue in queue_changes(part.changes, part.void):
            call.add_queue(queue)
        outputs = {c.task_id: c.output for c in part.changes if c.output is not None and len(c.output) > LARGE_OUTPUT}
        call.add_answers(part.answers, outputs)
        if rest is not None:
            call.add_instructions(rest.instructions)
            call.add_replies(rest.replies)
            call.add_agents(rest.agents, now)
            call.add_notes(note for note in rest.notes if note.kind is not NoteKind.RATE)
            for queue in rest.queues:
                call.add_queue(queue)
        if inputs is not None:
            call.add_inputs(inputs)
        agents = [] if rest is None else rest.agent_transitions
        if part.transitions or agents:
            call.events = b'{"v":%d,"at":%d,"epoch":%d,"tasks":%b,"agents":%b}' % (
                *(VERSION, now, lead.epoch),
                _TASKS.dump_json(part.transitions, exclude_none=True),
                _AGENTS.dump_json(agents, exclude_none=True),
            )
        return call

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
