"""What is left in the server of a pool that has nothing to do: nothing but records that expire, and names."""

import json
from collections.abc import AsyncIterator, Collection, Iterable
from typing import Any, Final

from bus.connection import Redis
from bus.names import DISPATCHERS_GROUP, PoolNames
from bus.states import TaskPriority

PAGE: Final = 1000
FOR_EVER: Final = -1
LASTING: Final = ("leader", "epoch", "committed", "agents", "finished", "dead", "events", "rejected")
"""Keys that stay, of a bounded size."""
EXPIRING: Final = ("task:", "client:", "submitted:", "offer:", "children:", "waiting", "load", "loops")
"""Keys that expire, by their beginning."""


def inbound(names: PoolNames) -> list[str]:
    """Return the streams that the leader reads."""
    levels = [names.submissions(level) for level in TaskPriority]
    return [*levels, names.commands, names.registrations, names.heartbeats, names.results]


async def residue(redis: Redis, names: PoolNames, dispatchers: Collection[str]) -> list[str]:
    """Return what should not be there, in words. Agents may be at work, tasks may not."""
    parts = (_of_indexes(redis, names), _of_groups(redis, names, dispatchers), _of_keys(redis, names))
    return [problem for part in parts async for problem in part]


async def _of_indexes(redis: Redis, names: PoolNames) -> AsyncIterator[str]:
    for key in (names.pending, names.delayed, names.leases):
        if members := await redis.zrange(key, 0, 4):
            yield f"{key} has {await redis.zcard(key)} tasks: {members}"
    for stream in inbound(names):
        if stream != names.heartbeats and (length := await redis.xlen(stream)):
            yield f"{stream} has {length} entries: {await redis.xrange(stream, count=3)}"
    for agent_id, told in _decoded(await redis.hgetall(names.load)):
        if told.get("used") or told.get("assigned") or told.get("running"):
            yield f"agent {agent_id} is said to be at work: {told}"


def _decoded(load: Any) -> Iterable[tuple[str, dict[str, Any]]]:
    return [(name.decode(), json.loads(told)) for name, told in load.items()]


async def _of_groups(redis: Redis, names: PoolNames, dispatchers: Collection[str]) -> AsyncIterator[str]:
    for stream in inbound(names):
        for group in await redis.xinfo_groups(stream):
            name = group["name"].decode()
            if name != DISPATCHERS_GROUP:
                yield f"{stream} has a group of the name {name}"
            if group["pending"] and stream != names.heartbeats:
                yield f"{stream} has {group['pending']} pending entries of {name}"
            for consumer in await redis.xinfo_consumers(stream, name):
                if consumer["name"].decode() not in dispatchers:
                    yield f"{stream} has a consumer of the name {consumer['name']}"


async def _of_keys(redis: Redis, names: PoolNames) -> AsyncIterator[str]:
    listed: Any = await redis.zrange(names.agents, 0, -1)
    agents = {raw.decode() for raw in listed}
    expiring: list[str] = []
    async for raw in redis.scan_iter(f"{names.root}*", count=1000):
        key = raw.decode()
        name = key.removeprefix(names.root)
        if key in inbound(names) or name in LASTING or name.startswith("notes:"):
            continue
        if name.startswith("agent:"):
            _, agent_id, *part = name.split(":")
            if agent_id not in agents:
                yield f"{key} is of no agent"
            expiring += [key] if part else []
            if part == ["assignments"] and (length := await redis.xlen(key)):
                yield f"{key} has {length} entries: {await redis.xrange(key, count=3)}"
        elif name.startswith(EXPIRING):
            expiring.append(key)
        else:
            yield f"{key} is of nobody"
    for key in await _lasting(redis, expiring):
        yield f"{key} has no expiry"


async def _lasting(redis: Redis, keys: list[str]) -> list[str]:
    """Return those of the keys that have no expiry."""
    found: list[str] = []
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        async with redis.pipeline(transaction=False) as pipe:
            for key in page:
                pipe.pttl(key)
            found += [key for key, left in zip(page, await pipe.execute(), strict=True) if left == FOR_EVER]
    return found
