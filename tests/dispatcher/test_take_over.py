"""Two dispatchers, one pool: who leads, and what becomes of the work when the leader goes."""

from datetime import timedelta

from redis.asyncio import Redis

from bus import Client, TaskCreate
from bus.messages import TaskUpdate
from bus.names import PoolNames
from dispatcher.observer import Silent
from tests.support.bus import WireAgent, running_dispatcher, wire_agent
from tests.support.waiting import eventually


class Watching(Silent):
    """Notes when its dispatcher leads."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def leading(self, epoch: int) -> None:
        self.epochs.append(epoch)


async def test_a_second_dispatcher_stands_by_and_leads_at_once_when_the_first_stops(
    redis: Redis, redis_url: str, pool: str
) -> None:
    first, second = Watching(), Watching()
    agent = WireAgent(redis, pool)
    async with Client(redis_url, pool=pool) as bus:
        async with running_dispatcher(redis_url, pool, observer=first, dispatcher_id="one"):
            await agent.register("t.x", slots=1)
            handles = await bus.submit_many(TaskCreate(capability="t.x", payload=n) for n in range(50))
            given = await agent.next()
            await agent.report(updates=(TaskUpdate(task_id=given.task_id, attempt=1),))
            standing_by = running_dispatcher(redis_url, pool, observer=second, dispatcher_id="two")
            await standing_by.__aenter__()
            assert second.epochs == []
        await eventually(lambda: second.epochs)
        assert second.epochs[0] > first.epochs[0]
        await agent.complete(given, "from before")
        for handle in handles[1:]:
            given = await agent.next()
            await agent.complete(given, handle.id)
        for handle in handles:
            await handle.result(timeout=30)
        await standing_by.__aexit__(None, None, None)
    await agent.fall_silent()


async def test_an_emptied_server_does_not_stop_a_dispatcher(redis: Redis, redis_url: str, pool: str) -> None:
    watching = Watching()
    names = PoolNames(pool)  # type: ignore[arg-type]
    async with (
        running_dispatcher(redis_url, pool, observer=watching, leader_lease=timedelta(seconds=2)),
        Client(redis_url, pool=pool) as bus,
    ):
        keys = await redis.keys(f"{names.root}*")
        await redis.delete(*keys)
        await eventually(lambda: len([epoch for epoch in watching.epochs if epoch]) == 2)
        leads = [epoch for epoch in watching.epochs if epoch]
        assert leads[1] > leads[0]
        async with wire_agent(redis, pool, "t.x") as agent:
            handle = await bus.submit("t.x")
            await agent.complete(await agent.next(), "well again")
            assert await handle.result(timeout=30) == "well again"
