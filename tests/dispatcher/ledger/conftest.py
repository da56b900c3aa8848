"""A pool with a leader, and ways to see all that the ledger holds."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from bus.ids import check_pool
from bus.names import PoolNames
from dispatcher.commit_call import Inputs
from dispatcher.core.decisions import Decisions, Handover, Place, TaskChange
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import Ledger

NOW = 1_800_000_000_000

Dump = Callable[[], Awaitable[dict[str, Any]]]


@pytest.fixture
def names(pool: str) -> PoolNames:
    return PoolNames(check_pool(pool))


@pytest.fixture
async def leadership(redis: Redis, names: PoolNames) -> Leadership:
    return Leadership(redis, names, "one", lease_ms=60_000)


@pytest.fixture
async def lead(leadership: Leadership) -> Lead:
    won = await leadership.acquire()
    assert won is not None
    return won


@pytest.fixture
def ledger(redis: Redis, names: PoolNames) -> Ledger:
    return Ledger(redis, names)


@pytest.fixture
def dump(redis: Redis, names: PoolNames) -> Dump:
    """Provide a function that returns everything the pool's keys hold."""

    async def everything() -> dict[str, Any]:
        found: dict[str, Any] = {}
        async for raw in redis.scan_iter(f"{names.root}*"):
            key = raw.decode()
            found[key.removeprefix(names.root)] = await contents(redis, key)
        return found

    return everything


async def contents(redis: Any, key: str) -> Any:
    """Return the value of a key of any type."""
    match (await redis.type(key)).decode():
        case "string":
            return await redis.get(key)
        case "hash":
            return await redis.hgetall(key)
        case "zset":
            return await redis.zrange(key, 0, -1, withscores=True)
        case "stream":
            groups = await redis.xinfo_groups(key)
            return await redis.xrange(key), [(group["name"], group["pending"]) for group in groups]
        case "none":
            return None
        case other:
            raise AssertionError(other)


def change(
    names: PoolNames,
    local: str = "a",
    before: str = "",
    after: str = "PENDING/0//",
    place: Place = Place.WAITING,
    *,
    score: int = 7,
    spec: bytes | None = None,
    output: bytes | None = None,
    release: str | None = None,
    to: str | None = None,
) -> TaskChange:
    """Return one change of a task; `to` hands it to an agent."""
    attempt = int(after.split("/")[1])
    return TaskChange(
        task_id=f"{names.pool}.{local}",
        before=before,
        after=after,
        place=place,
        place_score=score,
        run=b'{"enqueued_at":1}',
        spec=spec if spec is not None else (b'{"capability":"c","payload": {"x":1.0}}' if not before else None),
        output=output,
        release=release,
        handover=None if to is None else Handover(to, "s1", attempt, score, NOW),
    )


def decisions(*changes: TaskChange) -> Decisions:
    """Return the decisions of one pass."""
    return Decisions(changes=list(changes))


NOTHING = Inputs()
