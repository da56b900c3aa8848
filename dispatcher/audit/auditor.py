"""An audit of one pool: every key, every list, every stream, page by page; and a second look at what is suspected.

Memory does not grow with the pool: keys come by SCAN, lists by ZSCAN, and of each page only what looks wrong is kept,
`SUSPECTS` at most. What looks wrong is looked at again after a moment, twice; only what is wrong in the same way each
time is a finding. A pool under load shows none: facts that belong together are read in one transaction, and the others
change within that moment.

The leader audits its own pool as well, slowly (`rest_s` between pages), and lets its memory be compared, `Memory`.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from bus.connection import Redis
from bus.names import DATA_FIELD, KnownKey, PoolNames
from dispatcher.audit import checks
from dispatcher.audit.bound_sets import of_bounds, of_sets
from dispatcher.audit.findings import Finding, Kind
from dispatcher.audit.looking import PAGE, Sight
from dispatcher.audit.streams import Patience, of_streams

SUSPECTS: Final = 10_000
"""Suspects that are looked at again; an audit that has more goes on to the next page without them."""
LOOKS: Final = 3
ASSIGNMENTS_PAGE: Final = 500

_TASK_KINDS: Final = frozenset(
    {
        *(Kind.NO_RECORD, Kind.MISPLACED, Kind.UNREADABLE_TASK, Kind.TASK_EXPIRES, Kind.TASK_STAYS, Kind.NO_AGENT),
        Kind.NOT_IN_MEMORY,
    }
)
_AGENT_KINDS: Final = frozenset({Kind.UNREADABLE_AGENT, Kind.AGENT_WITHOUT_RECORD, Kind.AGENT_NOT_LISTED})
_KEY_KINDS: Final = frozenset(
    {Kind.NO_EXPIRY, Kind.EXPIRES, Kind.WRONG_TYPE, Kind.UNKNOWN_KEY, Kind.BOUND_LEFT},
)
_BOUND_KINDS: Final = frozenset({Kind.BOUND_STRAY, Kind.BOUND_MISSING})
_STREAM_KINDS: Final = frozenset(
    {
        *(Kind.NOT_CONSUMED, Kind.NEWER_MESSAGE, Kind.DELETED_PENDING, Kind.NO_OWNER, Kind.NO_GROUP),
        *(Kind.FOREIGN_GROUP, Kind.LEFT_CONSUMER, Kind.NO_LEADER),
    }
)


class Memory(Protocol):
    """What a leader remembers, to be compared with the ledger."""

    def unknown(self, facts: Iterable[checks.TaskFacts]) -> list[Finding]:
        """Return a finding for each live task of the ledger that the leader does not know."""

    def pages(self) -> Iterable[Sequence[str]]:
        """Yield the ids of all tasks that the ledger should have, in pages; may be iterated while they change."""

    def still(self, task_id: str) -> bool:
        """Tell whether the ledger should have a live task."""

    def slots(self) -> list[Finding]:
        """Return a finding for each agent whose used slots are not what its tasks take."""


class Auditor:
    """One audit. `run` may be called again."""

    def __init__(
        self,
        redis: Redis,
        names: PoolNames,
        *,
        memory: Memory | None = None,
        pause_s: float = 1.0,
        rest_s: float = 0.0,
        page: int = PAGE,
        patience: Patience | None = None,
    ) -> None:
        self._sight = Sight(redis, names)
        self._names = names
        self._memory = memory
        self._pause_s = pause_s
        self._rest_s = rest_s
        self._page = page
        self._patience = patience or Patience()
        self.looked_at = 0
        """Keys that the latest audit has looked at."""

    async def run(self) -> list[Finding]:
        """Return what is wrong, sorted. Raises redis-py's errors when the server does not serve meanwhile."""
        self.looked_at = 0
        suspects: dict[Finding, None] = {}
        async for found in self._suspects():
            if len(suspects) < SUSPECTS:
                suspects[found] = None
        left = list(suspects)
        for _ in range(LOOKS - 1):
            if not left:
                break
            await asyncio.sleep(self._pause_s)
            again = {found async for found in self._again(left)}
            left = [one for one in left if one in again]
        return sorted(left, key=lambda one: (one.kind, one.subject, one.detail))

    # --- the first look

    async def _suspects(self) -> AsyncIterator[Finding]:
        parts = (
            self._in_keys(),
            self._in_lists(),
            of_streams(self._sight, self._patience),
            of_bounds(self._sight, self._rest_s),
            self._in_memory(),
        )
        for part in parts:
            async for found in part:
                yield found

    async def _in_keys(self) -> AsyncIterator[Finding]:
        async for keys in self._pages():
            for found in await self._of_keys(keys):
                yield found
            await self._rest()

    async def _in_lists(self) -> AsyncIterator[Finding]:
        """Look for names without a record: those that have one are found by it."""
        for index in checks.INDEXES:
            async for members in self._members(index):
                for found in await self._of_tasks(await self._sight.missing(members)):
                    yield found
                await self._rest()
        async for agent_ids in self._members("agents"):
            for found in await self._of_agents(agent_ids):
                yield found
            await self._rest()

    async def _in_memory(self) -> AsyncIterator[Finding]:
        memory = self._memory
        if memory is None:
            return
        for ids in memory.pages():
            for found in await self._of_memory(memory, ids):
                yield found
            await self._rest()
        for found in memory.slots():
            yield found

    async def _rest(self) -> None:
        await asyncio.sleep(self._rest_s)

    async def _pages(self) -> AsyncIterator[list[str]]:
        """Yield all keys of the pool, in pages; SCAN may name one twice."""
        cursor = 0
        while True:
            read: Any = await self._sight.redis.scan(cursor, match=self._names.everything, count=10 * self._page)
            cursor, keys = int(read[0]), [key.decode(errors="replace") for key in read[1]]
            for start in range(0, len(keys), self._page):
                yield keys[start : start + self._page]
            if not cursor:
                return
            await asyncio.sleep(self._rest_s)

    async def _members(self, index: str) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            read: Any = await self._sight.redis.zscan(self._sight.index(index), cursor, count=PAGE)
            cursor, found = int(read[0]), read[1]
            if found:
                yield [raw.decode(errors="replace") for raw, _ in found]
            if not cursor:
                return

    async def _of_keys(self, keys: Sequence[str]) -> list[Finding]:
        self.looked_at += len(keys)
        known = {key: self._names.known(key) for key in keys}
        found: list[Finding] = []
        facts = await self._sight.keys(keys)
        for one in facts:
            found += checks.of_key(one.key, known[one.key], one.type, one.ttl_ms)
        wrong = {one.key for one in found if one.kind is Kind.WRONG_TYPE}

        def of_family(name: str) -> list[KnownKey]:
            return [one for key, one in known.items() if one and one.family.name == name and key not in wrong]

        found += await self._of_tasks([one.which for one in of_family("task")])
        found += await self._of_agents([one.which for one in of_family("agent")])
        for one_key in of_family("assignments"):
            found += await self._of_assignments(one_key.which)
        found += await self._of_children([one.which for one in of_family("children")])
        found += await of_sets(self._sight, {one.which for one in of_family("queue")})
        return found

    async def _of_tasks(self, task_ids: Sequence[str]) -> list[Finding]:
        if not task_ids:
            return []
        ended = await self._sight.ended()
        facts = await self._sight.tasks(task_ids)
        found = [one for task in facts for one in checks.of_task(task, ended)]
        holders = {task.task_id: holder for task in facts if (holder := checks.holder_of(task)) is not None}
        listed = await self._sight.listed_agents(set(holders.values()))
        found += [
            Finding(Kind.NO_AGENT, task_id, f"in the hands of {agent_id}")
            for task_id, agent_id in holders.items()
            if not listed[agent_id]
        ]
        if self._memory is not None:
            found += self._memory.unknown(facts)
        return found

    async def _of_agents(self, agent_ids: Sequence[str]) -> list[Finding]:
        found: list[Finding] = []
        for agent_id in agent_ids:
            record, listed = await self._sight.agent(agent_id)
            found += checks.of_agent(agent_id, record, listed=listed)
        return found

    async def _of_assignments(self, agent_id: str) -> list[Finding]:
        """Look at all entries of an agent's stream: it has a few, those that it has not begun."""
        key = self._names.assignments(agent_id)
        found: list[Finding] = []
        start = "-"
        while True:
            entries: Any = await self._sight.redis.xrange(key, min=start, count=ASSIGNMENTS_PAGE)
            pairs = [(entry.decode(), _task_of(fields)) for entry, fields in entries]
            states = await self._sight.states([task_id for _, task_id in pairs], "entry")
            for (entry, task_id), (state, current) in zip(pairs, states, strict=True):
                found += checks.of_assignment(agent_id, key, entry, task_id, state, current)
            if len(entries) < ASSIGNMENTS_PAGE:
                return found
            start = f"({entries[-1][0].decode()}"

    async def _of_children(self, task_ids: Sequence[str]) -> list[Finding]:
        if not task_ids:
            return []
        keys = [self._names.children(task_id) for task_id in task_ids]
        states = await self._sight.states(task_ids)
        facts = await self._sight.keys(keys)
        return [
            found
            for one, (state,) in zip(facts, states, strict=True)
            for found in checks.of_children(one.key, state, one.ttl_ms)
        ]

    async def _of_memory(self, memory: Memory, task_ids: Sequence[str]) -> list[Finding]:
        states = await self._sight.states(task_ids)
        missing = [task_id for task_id, (state,) in zip(task_ids, states, strict=True) if state is None]
        return [Finding(Kind.NOT_IN_LEDGER, task_id) for task_id in missing if memory.still(task_id)]

    # --- the later looks

    async def _again(self, suspects: Sequence[Finding]) -> AsyncIterator[Finding]:
        """Look again at what is suspected, and at not much else."""
        for kinds, check in ((_TASK_KINDS, self._of_tasks), (_AGENT_KINDS, self._of_agents)):
            for found in await self._each(suspects, kinds, check):
                yield found
        for found in await self._each(suspects, _KEY_KINDS, self._of_keys, lambda one: one.key):
            yield found
        for known in {self._names.known(one.key) for one in suspects if one.kind is Kind.LEFT_ASSIGNMENT}:
            for found in await self._of_assignments(known.which) if known is not None else ():
                yield found
        for part in self._parts_again(suspects):
            async for found in part:
                yield found

    def _parts_again(self, suspects: Sequence[Finding]) -> Iterator[AsyncIterator[Finding]]:
        kinds = {one.kind for one in suspects}
        if kinds & _STREAM_KINDS:
            yield of_streams(self._sight, self._patience)
        if kinds & _BOUND_KINDS:
            yield of_bounds(self._sight, self._rest_s)
        yield self._memory_again([one.subject for one in suspects if one.kind is Kind.NOT_IN_LEDGER])

    async def _memory_again(self, lost: Sequence[str]) -> AsyncIterator[Finding]:
        memory = self._memory
        if memory is None:
            return
        for found in await self._of_memory(memory, lost) if lost else ():
            yield found
        for found in memory.slots():
            yield found

    async def _each(
        self,
        suspects: Sequence[Finding],
        kinds: frozenset[Kind],
        check: Callable[[Sequence[str]], Any],
        subject: Callable[[Finding], str] = lambda one: one.subject,
    ) -> list[Finding]:
        subjects = list(dict.fromkeys(subject(one) for one in suspects if one.kind in kinds))
        found: list[Finding] = []
        for start in range(0, len(subjects), PAGE):
            found += await check(subjects[start : start + PAGE])
        return found


def _task_of(fields: dict[bytes, bytes]) -> str:
    """Return the id of the task that an assignment is about; empty if it does not say."""
    head = (fields.get(DATA_FIELD.encode()) or b"").partition(b'"task_id":"')[2]
    return head.partition(b'"')[0].decode(errors="replace")
