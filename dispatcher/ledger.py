"""The ledger: every write of a leader, and what a new leader reads.

Decisions become calls of `commit.lua`, at most `BATCH` tasks each, in order; input entries are acknowledged by the
last call of their pass, when all of their effects are stored. A call whose reply was lost is sent again: the script
recognises its own effect. Any other doubt (a fence, a conflict) is answered by loading the ledger anew, never by
guessing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic_core import to_json

from bus.connection import Redis
from bus.messages import VERSION
from bus.names import DISPATCHERS_GROUP, PoolNames
from bus.script import Arg, Script
from dispatcher.core.decisions import AgentChange, Decisions, TaskChange
from dispatcher.leadership import Lead

COMMIT: Final = Script("dispatcher.scripts", "commit")
BATCH: Final = 100
"""Tasks per call: a hundred block the server for about 0.6 ms."""

STANDING_TTL_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class LedgerLimits:
    """How long and how much is kept. Durations are milliseconds, caps are entries."""

    retention_ms: int = 24 * 3_600_000
    events_cap: int = 100_000
    rejected_cap: int = 10_000
    replies_cap: int = 10_000
    replies_ttl_ms: int = 3_600_000
    control_ttl_ms: int = 24 * 3_600_000


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


class _Call:
    """One call of the commit script, under construction: interned keys, and the arguments' sections."""

    __slots__ = (
        "_index",
        "acks",
        "agents",
        "events",
        "keys",
        "messages",
        "n_acks",
        "n_agents",
        "n_messages",
        "n_tasks",
        "tasks",
    )

    def __init__(self, fixed: Sequence[str]) -> None:
        self.keys = list(fixed)
        self._index = {key: n for n, key in enumerate(self.keys, 1)}
        self.tasks: list[Arg] = []
        self.acks: list[Arg] = []
        self.messages: list[Arg] = []
        self.agents: list[Arg] = []
        self.n_tasks = self.n_acks = self.n_messages = self.n_agents = 0
        self.events: bytes = b""

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
        self._fixed = [n.leader, n.pending, n.delayed, n.leases, n.finished, n.dead, n.events, n.agents]

    async def commit(self, lead: Lead, decisions: Decisions, inputs: Inputs, now: int) -> list[str]:
        """Store `decisions` and consume `inputs`; return the ids of tasks that were to be new but exist.

        Nothing is written or said of those: a submission that is read a second time, after its task has ended, is
        news only to the scheduler's memory. Raises `FencedError`, `ConflictError`, or redis-py's connection errors,
        after which the same call may be repeated: what was stored stays stored once.
        """
        known: list[str] = []
        stored = 0
        while True:
            part = decisions.changes[stored : stored + BATCH]
            last = stored + len(part) == len(decisions.changes)
            call = self._render(part, decisions, first=not stored, inputs=inputs if last else None, lead=lead, now=now)
            status, *told = await COMMIT.run(self._redis, call.keys, self._arguments(call, lead, now))
            if status == b"FENCED":
                raise FencedError(told[0].decode())
            if status == b"CONFLICT":
                msg = f"task {told[0].decode()}: the ledger has {told[1].decode() or 'no record'}"
                raise ConflictError(msg)
            if status == b"KNOWN":
                found = {part[position - 1].task_id for position in told}
                known += found
                decisions = decisions.without(found)
                continue
            stored += len(part)
            if last:
                return known

    def _arguments(self, call: _Call, lead: Lead, now: int) -> list[Arg]:
        limits = self._limits
        return [
            lead.token,
            DISPATCHERS_GROUP,
            now,
            limits.retention_ms,
            call.events,
            limits.events_cap,
            call.n_tasks,
            call.n_acks,
            call.n_messages,
            call.n_agents,
            *call.tasks,
            *call.acks,
            *call.messages,
            *call.agents,
        ]

    def _render(
        self,
        part: Sequence[TaskChange],
        decisions: Decisions,
        *,
        first: bool,
        inputs: Inputs | None,
        lead: Lead,
        now: int,
    ) -> _Call:
        """Make the call that stores `part` of a pass; agents and instructions go first, acks and answers last.

        `inputs` are given with the last part only.
        """
        call = _Call(self._fixed)
        for change in part:
            self._task(call, change)
        if first:
            self._agents(call, decisions.agents, now)
            for instruction in decisions.instructions:
                body = instruction.message.model_dump_json().encode()
                self._message(call, self._names.control(instruction.agent_id), self._limits.control_ttl_ms, 1000, body)
        if inputs is None:
            return call
        self._answers(call, decisions)
        for body in inputs.rejected:
            self._message(call, self._names.rejected, 0, self._limits.rejected_cap, body)
        for stream, ids in inputs.acks.items():
            if ids:
                call.n_acks += 1
                call.acks += [call.key(stream), len(ids), *ids]
        if decisions.transitions or decisions.agent_transitions:
            call.events = to_json(
                {
                    "v": VERSION,
                    "at": now,
                    "epoch": lead.epoch,
                    "tasks": decisions.transitions,
                    "agents": decisions.agent_transitions,
                },
                exclude_none=True,
            )
        return call

    def _task(self, call: _Call, change: TaskChange) -> None:
        names = self._names
        handover = change.handover
        if handover is None:
            target, head = 0, ""
        else:
            target = call.key(names.assignments(handover.agent_id))
            head = (
                f'{{"v":{VERSION},"task_id":"{change.task_id}","attempt":{handover.attempt},'
                f'"session":"{handover.session}","score":{handover.score},"assigned_at":{handover.at},"task":'
            )
        release = 0 if change.release is None else call.key(names.assignments(change.release))
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
        )

    def _agents(self, call: _Call, agents: Sequence[AgentChange], now: int) -> None:
        for change in agents:
            record = b"" if change.record is None else change.record.__pydantic_serializer__.to_json(change.record)
            score = now if change.record is None else change.record.registered_at
            call.n_agents += 1
            call.agents += (call.key(self._names.agent(change.agent_id)), change.agent_id, record, score)

    def _answers(self, call: _Call, decisions: Decisions) -> None:
        by_client: dict[str, list[bytes]] = {}
        for answer in decisions.answers:
            by_client.setdefault(answer.client_id, []).append(answer.outcome)
        limits = self._limits
        for client, outcomes in by_client.items():
            body = b'{"v":%d,"outcomes":[%b]}' % (VERSION, b",".join(outcomes))
            self._message(call, self._names.replies(client), limits.replies_ttl_ms, limits.replies_cap, body)

    @staticmethod
    def _message(call: _Call, stream: str, ttl_ms: int, cap: int, body: bytes) -> None:
        call.n_messages += 1
        call.messages += (call.key(stream), ttl_ms, cap, body)

    async def prune(self, now: int) -> int:
        """Drop index entries of finished tasks whose records have expired; return how many. Safe from any process."""
        horizon = now - self._limits.retention_ms
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.zremrangebyscore(self._names.finished, "-inf", horizon)
            pipe.zremrangebyscore(self._names.dead, "-inf", horizon)
            removed = await pipe.execute()
        return int(removed[0])

    async def publish(self, key: str, fields: Mapping[Any, Any]) -> None:
        """Replace a hash of words for people (why tasks wait, agents' load); short-lived and not fenced."""
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(key)
            if fields:
                pipe.hset(key, mapping=fields)
                pipe.pexpire(key, STANDING_TTL_MS)
            await pipe.execute()
