"""The leader audits its own pool, counts what it finds, and leaves no consumers of others behind."""

from collections import Counter
from datetime import timedelta

import pytest
from redis.asyncio import Redis

from bus import Client
from bus.ids import check_pool
from bus.names import DISPATCHERS_GROUP, PoolNames
from dispatcher.audit.memory import LeaderMemory
from dispatcher.audit.watch import tidy
from dispatcher.engine import Engine
from dispatcher.leadership import Lead
from dispatcher.observer import Silent
from dispatcher.pool import PoolDispatcher
from tests.support.bus import running_dispatcher, wire_agent
from tests.support.waiting import eventually


class Counting(Silent):
    """Counts findings."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()

    def audited(self, kind: str, count: int) -> None:
        self.found[kind] += count


async def test_a_leader_counts_what_it_finds_and_publishes_it(redis: Redis, redis_url: str, pool: str) -> None:
    observer, names = Counting(), PoolNames(check_pool(pool))
    every = timedelta(milliseconds=50)
    async with (
        running_dispatcher(redis_url, pool, observer=observer, audit_every=every),
        Client(redis_url, pool=pool) as bus,
        wire_agent(redis, pool, "t.x") as agent,
    ):
        done = await bus.submit("t.x")
        await agent.complete(await agent.next())
        await done.result(timeout=30)
        await eventually(lambda: redis.exists(names.load))
        assert observer.found == {}
        await redis.set(f"{names.root}mine", "x")
        await eventually(lambda: observer.found)
        assert set(observer.found) == {"unknown_key"}
        await eventually(lambda: redis.hexists(names.audit, "unknown_key"))
        assert await redis.pttl(names.audit) > 0


async def test_a_leader_finds_what_it_believes_and_the_ledger_does_not(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slot that is lost in memory, a task that memory has lost, and one that only memory has."""
    engines: list[Engine] = []
    take_over = PoolDispatcher._take_over

    async def noting(self: PoolDispatcher, lead: Lead) -> Engine:
        engine = await take_over(self, lead)
        engines.append(engine)
        return engine

    monkeypatch.setattr(PoolDispatcher, "_take_over", noting)
    observer, names = Counting(), PoolNames(check_pool(pool))
    async with (
        running_dispatcher(redis_url, pool, observer=observer, audit_every=timedelta(milliseconds=50)),
        Client(redis_url, pool=pool) as bus,
        wire_agent(redis, pool, "t.x") as agent,
    ):
        await bus.submit("t.x")
        held = await agent.next()
        lost, ghost = (await bus.submit("t.nobody")).id, (await bus.submit("t.nobody")).id
        await eventually(lambda: redis.zscore(names.pending, ghost))
        board = engines[0].scheduler.board
        assert LeaderMemory(engines[0].scheduler).slots() == []
        board.fleet.agents[agent.id].used += 1
        board.order.leave(board.tasks[lost])
        del board.tasks[lost]
        await redis.delete(names.task(ghost))
        await redis.zrem(names.pending, ghost)
        expected = {"slots_do_not_add_up", "task_unknown_to_leader", "task_not_in_ledger"}
        await eventually(lambda: expected <= set(observer.found))
        assert held.task_id in board.tasks


async def test_consumers_of_dispatchers_that_are_gone_are_deleted_and_no_others(redis: Redis, pool: str) -> None:
    stream = PoolNames(check_pool(pool)).results
    await redis.xgroup_create(stream, DISPATCHERS_GROUP, id="0", mkstream=True)
    await redis.xadd(stream, {"a": "b"})
    for name in ("gone", "me"):
        await redis.xgroup_createconsumer(stream, DISPATCHERS_GROUP, name)
    await redis.xreadgroup(DISPATCHERS_GROUP, "busy", {stream: ">"})
    await tidy(redis, [stream, f"{stream}-none"], "me", gone_ms=0)
    left = {one["name"] for one in await redis.xinfo_consumers(stream, DISPATCHERS_GROUP)}
    assert left == {b"me", b"busy"}
    assert (await redis.xpending(stream, DISPATCHERS_GROUP))["pending"] == 1


async def test_a_process_that_was_restarted_many_times_leaves_no_consumers(
    redis: Redis, redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dispatcher.audit.watch.tidy.__defaults__", (0,))  # whoever is not here is gone
    monkeypatch.setattr("dispatcher.pool.PRUNE_EVERY_S", 1.0)
    names = PoolNames(check_pool(pool))
    for life in range(3):
        async with (
            running_dispatcher(redis_url, pool, dispatcher_id=f"life-{life}"),
            Client(redis_url, pool=pool) as bus,
        ):
            await (await bus.submit("t.x")).cancel()

    async def only_the_last() -> bool:
        consumers = await redis.xinfo_consumers(names.commands, DISPATCHERS_GROUP)
        return {one["name"] for one in consumers} <= {b"life-9"}

    async with running_dispatcher(redis_url, pool, dispatcher_id="life-9"):
        await eventually(only_the_last)
