"""Reading what the checks need, a page at a time. Never writes."""

from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

from bus.connection import Redis
from bus.names import DATA_FIELD, PoolNames
from bus.script import Script
from dispatcher.audit.checks import INDEXES, EndedRange, TaskFacts

FACTS: Final = Script("dispatcher.scripts", "facts")
KINDS: Final = Script("dispatcher.scripts", "kinds")
PAGE: Final = 100
"""Tasks that one transaction reads: it holds the server for less than a millisecond."""


class KeyFacts(NamedTuple):
    """A key, its type, and its time to live."""

    key: str
    type: str
    ttl_ms: int


class Sight:
    """The eyes of an audit: reads of one pool. Raises what redis-py raises."""

    def __init__(self, redis: Redis, names: PoolNames) -> None:
        self.redis = redis
        self.names = names

    def index(self, name: str) -> str:
        """Return the key of an index in which tasks stand."""
        found: str = getattr(self.names, name)
        return found

    async def now(self) -> int:
        """Return the server's time, in milliseconds."""
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def ended(self) -> EndedRange:
        """Return how far the list of ended tasks goes back."""
        oldest: Any = await self.redis.zrange(self.names.finished, 0, 0, withscores=True)
        return EndedRange(oldest[0][1] if oldest else None, await self.now())

    async def tasks(self, task_ids: Sequence[str]) -> list[TaskFacts]:
        """Return all that is stored of some tasks, as of one instant."""
        names = self.names
        keys = [*map(self.index, INDEXES), *map(names.task, task_ids)]
        rows: list[Any] = await FACTS.run(self.redis, keys, task_ids)
        found: list[TaskFacts] = []
        for task_id, row in zip(task_ids, rows, strict=True):
            if row is None:
                continue  # a key of another type, which is found as that
            state, spec, run, ttl, *scores = row
            places = {name: float(score) for name, score in zip(INDEXES, scores, strict=True) if score is not None}
            found.append(TaskFacts(task_id, state, spec, run, ttl, places))
        return found

    async def listed_agents(self, agent_ids: Iterable[str]) -> dict[str, bool]:
        """Tell of each agent whether it is in the list of agents."""
        ids = list(agent_ids)
        if not ids:
            return {}
        async with self.redis.pipeline(transaction=False) as pipe:
            for agent_id in ids:
                pipe.zscore(self.names.agents, agent_id)
            scores = await pipe.execute()
        return {agent_id: score is not None for agent_id, score in zip(ids, scores, strict=True)}

    async def agent(self, agent_id: str) -> tuple[bytes | None, bool]:
        """Return an agent's record, and whether it is listed, as of one instant."""
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.hget(self.names.agent(agent_id), "record")
            pipe.zscore(self.names.agents, agent_id)
            record, score = await pipe.execute(raise_on_error=False)
        return (record if isinstance(record, bytes) else None), score is not None

    async def keys(self, keys: Sequence[str]) -> list[KeyFacts]:
        """Return the types and times to live of some keys, as of one instant."""
        rows: list[Any] = await KINDS.run(self.redis, keys, [])
        return [KeyFacts(key, type_.decode(), ttl) for key, type_, ttl in zip(keys, rows[::2], rows[1::2], strict=True)]

    async def missing(self, task_ids: Sequence[str]) -> list[str]:
        """Return those tasks that have no record."""
        kinds = await self.keys([self.names.task(task_id) for task_id in task_ids])
        return [task_id for task_id, one in zip(task_ids, kinds, strict=True) if one.type == "none"]

    async def states(self, task_ids: Sequence[str], *more: str) -> list[list[bytes | None]]:
        """Return the states of some tasks, with `more` fields of their records."""
        async with self.redis.pipeline(transaction=True) as pipe:
            for task_id in task_ids:
                pipe.hmget(self.names.task(task_id), ["state", *more])
            rows: list[Any] = await pipe.execute(raise_on_error=False)
        return [[None] * (1 + len(more)) if isinstance(row, Exception) else row for row in rows]

    async def bounds(self) -> set[str]:
        """Return the scopes of the bounds that are in force."""
        scopes: Any = await self.redis.hkeys(self.names.bounds)
        return {raw.decode() for raw in scopes}

    async def body(self, stream: str, entry: str) -> bytes | None:
        """Return the body of one entry of a stream."""
        found: Any = await self.redis.xrange(stream, min=entry, max=entry, count=1)
        body: bytes | None = found[0][1].get(DATA_FIELD.encode()) if found else None
        return body
