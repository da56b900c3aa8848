"""What is urgent does not wait behind what nobody has read yet."""

import pytest
from redis.asyncio import Redis

from bus import Client, TaskCreate, TaskPriority
from bus.ids import check_pool
from bus.names import PoolNames
from tests.support.bus import running_dispatcher, wire_agent

SUBMISSIONS = 100_000


@pytest.mark.timeout(120)
async def test_an_urgent_task_behind_a_hundred_thousand_unread_low_ones_is_the_next_to_be_placed(
    redis: Redis, redis_url: str, pool: str
) -> None:
    names = PoolNames(check_pool(pool))
    async with Client(redis_url, pool=pool) as bus:
        low = [TaskCreate(capability="t.none", priority=TaskPriority.LOW)] * SUBMISSIONS
        await bus.submit_many(low)
        urgent = await bus.submit("t.echo", priority=TaskPriority.URGENT)
        low_of_the_same = await bus.submit("t.echo", priority=TaskPriority.LOW)
        async with running_dispatcher(redis_url, pool), wire_agent(redis, pool, "t.echo", slots=1) as agent:
            assert (await agent.next()).task_id == urgent.id
            assert await redis.xlen(names.submissions(TaskPriority.LOW)) > SUBMISSIONS // 2, "they are still unread"
            assert low_of_the_same.id not in agent.held
    async for key in redis.scan_iter(f"{names.root}*", count=5000):
        await redis.unlink(key)
