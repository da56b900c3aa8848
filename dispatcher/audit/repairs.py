"""Putting right what an audit has found, while a leader works.

No repair writes what a leader decides: the state of a task, the record of an agent. Lists, times to live and left-overs
are brought in line with the records by small scripts, each of which looks again before it writes. Where the leader may
remember what is wrong, too, it is fenced off once all is repaired: it throws its memory away and loads the ledger, as
after any take-over. That takes a moment, and costs no task.
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Final

from bus.connection import Redis
from bus.names import DISPATCHERS_GROUP, PoolNames
from bus.records import Guard, Run
from bus.script import Arg, Script
from bus.states import TaskPriority, TaskStatus
from dispatcher.audit.checks import INDEXES, TaskFacts
from dispatcher.audit.findings import UNREPAIRED, Finding, Kind
from dispatcher.audit.looking import Sight
from dispatcher.audit.streams import Patience
from dispatcher.commit_call import LedgerLimits
from dispatcher.ledger import STANDING_TTL_MS

TASK: Final = Script("dispatcher.scripts", "repair_task")
AGENT: Final = Script("dispatcher.scripts", "repair_agent")
CHILDREN: Final = Script("dispatcher.scripts", "repair_children")
ASSIGNMENT: Final = Script("dispatcher.scripts", "repair_assignment")
BOUND: Final = Script("dispatcher.scripts", "repair_bound")
SET: Final = Script("dispatcher.scripts", "repair_set")
PENDING: Final = Script("dispatcher.scripts", "repair_pending")
TIDY: Final = Script("dispatcher.scripts", "tidy_consumers")

LIMITS: Final = LedgerLimits()


class Repair(StrEnum):
    """What has become of a finding."""

    REPAIRED = "repaired"
    CHANGED = "changed meanwhile"
    BY_HAND = "for people to repair"


class Repairs:
    """Repairs one pool. Raises redis-py's errors."""

    def __init__(self, redis: Redis, names: PoolNames, *, patience: Patience | None = None) -> None:
        self._redis = redis
        self._names = names
        self._sight = Sight(redis, names)
        self._patience = patience or Patience()
        tasks = dict.fromkeys((Kind.NO_RECORD, Kind.MISPLACED, Kind.TASK_EXPIRES, Kind.TASK_STAYS), self._task)
        self._by_kind: dict[Kind, Callable[[Finding], Awaitable[bool]]] = {
            **tasks,
            Kind.AGENT_WITHOUT_RECORD: self._agent,
            Kind.AGENT_NOT_LISTED: self._agent,
            Kind.LEFT_ASSIGNMENT: self._assignment,
            Kind.NO_EXPIRY: self._expiry,
            Kind.EXPIRES: self._expiry,
            Kind.BOUND_STRAY: self._bound,
            Kind.BOUND_MISSING: self._bound,
            Kind.BOUND_LEFT: self._set,
            Kind.DELETED_PENDING: self._pending,
            Kind.FOREIGN_GROUP: self._group,
            Kind.LEFT_CONSUMER: self._consumer,
        }

    async def run(self, findings: Sequence[Finding]) -> list[Repair]:
        """Repair what can be; return what has become of each finding."""
        done: list[Repair] = []
        reload = False
        for one in findings:
            if one.kind in UNREPAIRED:
                done.append(Repair.BY_HAND)
                continue
            repair = self._by_kind.get(one.kind)
            well = repair is None or await repair(one)
            done.append(Repair.REPAIRED if well else Repair.CHANGED)
            reload = reload or (well and one.words.reload)
        if reload:
            await self._redis.delete(self._names.leader, self._names.audit)
        return done

    # --- tasks and agents

    async def _task(self, finding: Finding) -> bool:
        names, task_id = self._names, finding.subject
        (facts,) = await self._sight.tasks([task_id])
        keys = [names.task(task_id), *(self._sight.index(name) for name in INDEXES)]
        state = (facts.state or b"").decode()
        try:
            places, ttl = wanted(facts, await self._sight.now())
        except ValueError:
            return False
        args: list[Arg] = [task_id, state, *(places.get(name, "") for name in INDEXES), ttl]
        return await _ok(TASK.run(self._redis, keys, args))

    async def _agent(self, finding: Finding) -> bool:
        keys = [self._names.agent(finding.subject), self._names.agents]
        return await _ok(AGENT.run(self._redis, keys, [finding.subject, await self._sight.now()]))

    async def _assignment(self, finding: Finding) -> bool:
        known = self._names.known(finding.key)
        agent_id = "" if known is None else known.which
        keys = [self._names.task(finding.subject), finding.key]
        return await _ok(ASSIGNMENT.run(self._redis, keys, [agent_id, finding.detail]))

    # --- keys

    async def _expiry(self, finding: Finding) -> bool:
        known = self._names.known(finding.key)
        if known is None:
            return False
        if known.family.name == "children":
            keys = [finding.key, self._names.task(known.which)]
            return await _ok(CHILDREN.run(self._redis, keys, [LIMITS.retention_ms]))
        if finding.kind is Kind.EXPIRES:
            return bool(await self._redis.persist(finding.key))
        return bool(await self._redis.pexpire(finding.key, _TTL.get(known.family.name, STANDING_TTL_MS), nx=True))

    # --- bounds

    async def _bound(self, finding: Finding) -> bool:
        names = self._names
        known = names.known(finding.key)
        scope = "" if known is None else known.which
        streams = [names.submissions(level) for level in TaskPriority]
        keys = [finding.key, names.task(finding.subject), names.bounds, *streams]
        return await _ok(BOUND.run(self._redis, keys, [finding.subject, scope]))

    async def _set(self, finding: Finding) -> bool:
        seen = finding.detail.partition(" ")[0]
        return await _ok(SET.run(self._redis, [finding.key, self._names.bounds], [finding.subject, seen]))

    # --- streams

    async def _pending(self, finding: Finding) -> bool:
        entry = finding.detail.rpartition(" ")[2]
        return await _ok(PENDING.run(self._redis, [finding.key], [DISPATCHERS_GROUP, entry]))

    async def _consumer(self, finding: Finding) -> bool:
        args: list[Arg] = [DISPATCHERS_GROUP, self._patience.idle_ms, finding.detail, "0", ""]
        return bool(await TIDY.run(self._redis, [finding.key], args))

    async def _group(self, finding: Finding) -> bool:
        return bool(await TIDY.run(self._redis, [finding.key], [finding.detail, self._patience.idle_ms, "", "1", ""]))


_TTL: Final = {
    "assignments": LIMITS.assignments_ttl_ms,
    "control": LIMITS.control_ttl_ms,
    "replies": LIMITS.replies_ttl_ms,
    "leader": 10_000,
}
"""How long keys may live that had to expire, by their family; others a minute."""


async def _ok(answer: Awaitable[bytes]) -> bool:
    return await answer == b"OK"


def wanted(facts: TaskFacts, now: int) -> tuple[dict[str, Arg], Arg]:
    """Return the score of a task in each list that must name it, and what its record is given to live, '' for ever."""
    if facts.state is None:
        return {}, ""
    guard, run = Guard.parse(facts.state.decode()), Run.model_validate_json(facts.run or b"{}")
    match guard.status:
        case TaskStatus.PENDING:
            undecided = ("pending" in facts.places) == ("delayed" in facts.places)
            if (run.not_before or 0) > now if undecided else "delayed" in facts.places:
                return {"delayed": run.not_before or now}, ""
            # A leader orders tasks by what it knows of them; this only says which it loads first.
            return {"pending": run.enqueued_at}, ""
        case TaskStatus.ASSIGNED | TaskStatus.RUNNING:
            return {"leases": run.assigned_at or now}, ""
        case TaskStatus.FAILED:
            ended = run.finished_at or now
            return {"finished": ended, "dead": ended}, LIMITS.retention_ms
        case _:
            return {"finished": run.finished_at or now}, LIMITS.retention_ms
