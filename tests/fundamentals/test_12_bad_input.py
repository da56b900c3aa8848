"""What cannot be understood is set aside with its reason; it stops nobody, and never vanishes."""

from typing import Any

import pytest
from pydantic_core import from_json
from redis.asyncio import Redis

from agent_runtime import Agent, capability
from bus import Client, FailureReason, TaskFailedError, TaskPriority
from bus.ids import check_pool
from bus.names import DATA_FIELD, PoolNames
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually


class Echo(Agent):
    @capability("echo")
    async def echo(self, task: object) -> object:
        return task


async def test_garbage_goes_to_the_rejected_stream_and_the_next_task_is_done(
    bus: Client, run_agent: RunAgent, redis: Redis
) -> None:
    names = PoolNames(check_pool(bus.pool))
    await run_agent(Echo())
    bodies = [b"not json", b'{"v":1}', b'{"capability":"a b"}', b"\xff\xfe", b"[]"]
    for body in bodies:
        await redis.xadd(names.submissions(TaskPriority.MEDIUM), {DATA_FIELD: body})
    await redis.xadd(names.heartbeats, {"something": "else"})
    await redis.xadd(names.results, {DATA_FIELD: b'{"agent_id":"../etc/passwd"}'})

    async def all_rejected() -> bool:
        return int(await redis.xlen(names.rejected)) == len(bodies) + 2

    await eventually(all_rejected)
    assert await (await bus.submit("echo", "still here")).result(timeout=30) == "still here"
    entries: Any = await redis.xrange(names.rejected)
    first = from_json(entries[0][1][DATA_FIELD.encode()])
    assert first["raw"] == "not json"
    assert first["reason"]
    assert first["topic"] == "tasks:medium"


async def test_a_task_that_names_itself_but_is_wrong_fails_as_rejected(bus: Client, redis: Redis) -> None:
    names = PoolNames(check_pool(bus.pool))
    task_id = f"{bus.pool}.by-hand"
    body = f'{{"id":"{task_id}","capability":"echo","max_attempts":0}}'
    await redis.xadd(names.submissions(TaskPriority.LOW), {DATA_FIELD: body})
    with pytest.raises(TaskFailedError, match="max_attempts") as caught:
        await bus.handle(task_id).result(timeout=30)
    assert caught.value.reason == FailureReason.REJECTED


async def test_a_task_over_the_limit_fails_as_rejected_however_it_was_sent(bus: Client, redis: Redis) -> None:
    names = PoolNames(check_pool(bus.pool))
    task_id = f"{bus.pool}.huge"
    body = f'{{"id":"{task_id}","capability":"echo","payload":"{"x" * 5_000_000}"}}'
    await redis.xadd(names.submissions(TaskPriority.LOW), {DATA_FIELD: body})
    with pytest.raises(TaskFailedError, match="the limit is") as caught:
        await bus.handle(task_id).result(timeout=30)
    assert caught.value.reason == FailureReason.REJECTED


async def test_any_language_can_submit_with_one_xadd(bus: Client, run_agent: RunAgent, redis: Redis) -> None:
    names = PoolNames(check_pool(bus.pool))
    await run_agent(Echo())
    entry = await redis.xadd(
        names.submissions(TaskPriority.HIGH), {DATA_FIELD: '{"capability":"echo","payload":"by hand"}'}
    )
    task_id = f"{bus.pool}.ehigh-{entry.decode()}"  # type: ignore[union-attr]
    assert await bus.handle(task_id).result(timeout=30) == "by hand"
