"""Messages that nobody should send, among others: none of them stops a pool, or takes its neighbours along."""

from datetime import timedelta
from time import monotonic
from typing import Any

import pytest
from pydantic_core import from_json
from redis.asyncio import Redis

from bus import Client, TaskCreate, TaskFailedError
from bus.ids import check_pool
from bus.messages import CancelTasks, Heartbeat
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskPriority
from bus.waiting import LOOK_EVERY_S
from dispatcher.observer import Silent
from tests.support.bus import running_dispatcher, wire_agent
from tests.support.waiting import eventually

DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.fixture
def names(pool: str) -> PoolNames:
    return PoolNames(check_pool(pool))


async def publish(redis: Redis, stream: str, *bodies: bytes | str) -> None:
    """Write several messages so that one read finds them all."""
    async with redis.pipeline(transaction=True) as pipe:
        for body in bodies:
            pipe.xadd(stream, {DATA_FIELD: body})
        await pipe.execute()


class Passes(Silent):
    """Notes the size of each pass, and each lead."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.epochs: list[int] = []

    def decided(self, decisions: int, seconds: float) -> None:
        self.sizes.append(decisions)

    def leading(self, epoch: int) -> None:
        if epoch:
            self.epochs.append(epoch)


async def test_a_submission_of_nothing_but_brackets_keeps_nobody_waiting(
    redis: Redis, redis_url: str, names: PoolNames
) -> None:
    good = '{"capability":"t.none"}'
    async with running_dispatcher(redis_url, names.pool), Client(redis_url, pool=names.pool) as bus:
        await publish(redis, names.submissions(TaskPriority.LOW), good, b"[" * 100_000, good)

        async def taken() -> bool:
            return (await bus.queue_status()).waiting == 2 and await redis.xlen(names.rejected) == 1

        await eventually(taken)
        assert await redis.xlen(names.submissions(TaskPriority.LOW)) == 0


async def test_whoever_submits_too_deep_a_payload_is_told(redis: Redis, redis_url: str, names: PoolNames) -> None:
    async with running_dispatcher(redis_url, names.pool), Client(redis_url, pool=names.pool) as bus:
        task_id = f"{names.pool}.deep"
        body = b'{"id":"%b","capability":"t.x","payload":%b}' % (task_id.encode(), DEEP)
        await publish(redis, names.submissions(TaskPriority.LOW), body)
        with pytest.raises(TaskFailedError, match="not valid"):
            await bus.handle(task_id).result(timeout=30)


async def test_one_unreadable_result_does_not_take_its_neighbours_along(
    redis: Redis, redis_url: str, names: PoolNames
) -> None:
    async with (
        running_dispatcher(redis_url, names.pool),
        Client(redis_url, pool=names.pool) as bus,
        wire_agent(redis, names.pool, "t.x") as agent,
    ):
        handles = await bus.submit_many(TaskCreate(capability="t.x", payload=n, max_attempts=3) for n in range(3))
        given = [await agent.next() for _ in handles]
        results = [
            b'{"task_id":"%b","attempt":1,"status":"COMPLETED","output":%b}'
            % (one.task_id.encode(), DEEP if n == 1 else b"%d" % n)
            for n, one in enumerate(given)
        ]
        agent.held.clear()
        head = b'{"v":1,"agent_id":"wire","session":"s1","results":'
        await publish(redis, names.results, head + b"[" + b",".join(results) + b"]}")
        assert await bus.handle(given[0].task_id).result(timeout=30) == 0
        assert await bus.handle(given[2].task_id).result(timeout=30) == 2
        with pytest.raises(TaskFailedError, match="InvalidReport"):
            await bus.handle(given[1].task_id).result(timeout=30)
        assert [(await handle.get()).attempt for handle in handles] == [1, 1, 1]
        rejected: Any = await redis.xrange(names.rejected)
        assert len(rejected) == 1
        assert given[1].task_id in from_json(rejected[0][1][DATA_FIELD.encode()])["raw"]


async def test_however_many_tasks_commands_speak_of_the_passes_stay_small(
    redis: Redis, redis_url: str, names: PoolNames
) -> None:
    commands = [
        CancelTasks(task_ids=tuple(f"{names.pool}.t{m}-{n}" for n in range(1000))).model_dump_json() for m in range(20)
    ]
    passes = Passes()
    await publish(redis, names.commands, *commands)
    async with running_dispatcher(redis_url, names.pool, observer=passes):

        async def all_buried() -> bool:
            return not await redis.xlen(names.commands)

        await eventually(all_buried)
        assert await redis.hlen(names.notes("tombstones")) == 20_000
        assert max(passes.sizes) < 1_000
        assert len(passes.epochs) == 1


async def test_a_backlog_of_heartbeats_is_answered_for_its_last_ones_only(
    redis: Redis, redis_url: str, names: PoolNames
) -> None:
    beats = [Heartbeat(agent_id="a", session="s", seq=n).model_dump_json() for n in range(5_000)]
    await publish(redis, names.heartbeats, *beats)
    async with running_dispatcher(redis_url, names.pool):

        async def read() -> bool:
            return not await redis.xlen(names.heartbeats)

        await eventually(read)
        assert 0 < await redis.xlen(names.control("a")) < 100


async def test_a_keyed_task_may_be_submitted_again_as_soon_as_its_record_is_gone(
    redis: Redis, redis_url: str, names: PoolNames
) -> None:
    async with (
        running_dispatcher(redis_url, names.pool, retention=timedelta(milliseconds=50)),
        Client(redis_url, pool=names.pool) as bus,
        wire_agent(redis, names.pool, "t.x") as agent,
    ):
        for n in range(2):
            handle = await bus.submit("t.x", n, key="order-7")
            given = await agent.next()
            assert given.task.payload == n
            assert not await redis.exists(names.submitted(handle.id))
            await agent.complete(given, n)

            async def gone(task_id: str = handle.id) -> bool:
                return not await redis.exists(names.task(task_id))

            await eventually(gone)


@pytest.mark.alone
async def test_a_large_output_is_read_from_the_ledger_and_not_repeated_in_a_reply(
    redis: Redis, redis_url: str, names: PoolNames
) -> None:
    output: Any = ["ä" * 1000] * 40
    async with (
        running_dispatcher(redis_url, names.pool),
        Client(redis_url, pool=names.pool) as bus,
        wire_agent(redis, names.pool, "t.x") as agent,
    ):
        handle = await bus.submit("t.x")
        given = await agent.next()
        await agent.complete(given, output)
        stream = names.replies(str(given.task.reply_to))
        replies: Any = await eventually(lambda: redis.xrange(stream))
        [outcome] = from_json(replies[0][1][DATA_FIELD.encode()])["outcomes"]
        assert outcome["output_in_ledger"] is True
        assert "output" not in outcome
        began = monotonic()
        assert await handle.result(timeout=30) == output
        assert monotonic() - began < LOOK_EVERY_S / 2, "it need not wait for its turn to look"
