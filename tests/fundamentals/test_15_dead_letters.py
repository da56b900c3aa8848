"""A task that has failed for good is a dead letter: kept with all that befell it, until it is requeued or purged."""

import asyncio
from typing import Unpack

import pytest
from redis.asyncio import Redis

from agent_runtime import Agent, Reject, capability
from bus import (
    Client,
    FailureReason,
    NotDeadError,
    TaskCancelledError,
    TaskFailedError,
    TaskFilter,
    TaskPriority,
    TaskStatus,
    UnknownTaskError,
)
from bus.client import TaskOptions
from bus.ids import check_pool
from bus.names import DATA_FIELD, PoolNames
from tests.fundamentals.conftest import RunAgent, running_agent
from tests.support.bus import wire_agent
from tests.support.waiting import eventually


class Fragile(Agent):
    slots = 100

    def __init__(self) -> None:
        self.broken = True

    @capability("work")
    async def work(self, task: str) -> str:
        if self.broken:
            raise ValueError(f"cannot {task}")
        return f"did {task}"

    @capability("refuse")
    async def refuse(self, task: str) -> None:
        raise Reject(f"never {task}")

    @capability("dawdle")
    async def dawdle(self, task: float) -> None:
        await asyncio.sleep(task)


async def failed(
    bus: Client, capability: str = "work", payload: object = "this", **options: Unpack[TaskOptions]
) -> str:
    """Let a task fail; return its id."""
    handle = await bus.submit(capability, payload, **options)
    with pytest.raises((TaskFailedError, TimeoutError)):
        await handle.result(timeout=30)
    return str(handle.id)


async def test_every_attempt_is_kept_with_its_error_its_agent_and_its_times(bus: Client, run_agent: RunAgent) -> None:
    worker = await run_agent(Fragile())
    task_id = await failed(bus, max_attempts=3)
    letter = await bus.dead.get(task_id)
    assert [one.attempt for one in letter.attempts] == [1, 2, 3]
    for attempt in letter.attempts:
        assert (attempt.agent_id, attempt.outcome) == (worker.agent_id, FailureReason.ERROR)
        assert attempt.started_at is not None
        assert letter.enqueued_at <= attempt.assigned_at <= attempt.started_at <= attempt.ended_at
        assert attempt.error is not None
        assert (attempt.error.type, attempt.error.message) == ("ValueError", "cannot this")
        assert "raise ValueError" in (attempt.error.traceback or "")


async def test_a_rejected_task_is_one_after_its_first_attempt(bus: Client, run_agent: RunAgent) -> None:
    worker = await run_agent(Fragile())
    letter = await bus.dead.get(await failed(bus, "refuse"))
    (attempt,) = letter.attempts
    assert (letter.reason, attempt.outcome, attempt.agent_id) == ("rejected", "rejected", worker.agent_id)
    assert attempt.error is not None
    assert attempt.error.message == "never this"


async def test_so_is_one_with_a_payload_that_its_capability_does_not_take(bus: Client, run_agent: RunAgent) -> None:
    worker = await run_agent(Fragile())
    letter = await bus.dead.get(await failed(bus, "work", {"no": "string"}))
    (attempt,) = letter.attempts
    assert (letter.reason, attempt.outcome, attempt.agent_id) == ("rejected", "rejected", worker.agent_id)
    assert attempt.error is not None


async def test_one_that_ran_too_long_or_found_no_agent_says_so(bus: Client, run_agent: RunAgent) -> None:
    worker = await run_agent(Fragile())
    slow = await bus.submit("dawdle", 60, run_timeout=0.05, max_attempts=1)
    nobody = await bus.submit("nobody", None, queue_timeout=0.05)
    for handle in (slow, nobody):
        with pytest.raises(Exception, match="failed"):
            await handle.result(timeout=30)
    letter = await bus.dead.get(slow.id)
    assert [(one.agent_id, one.outcome) for one in letter.attempts] == [(worker.agent_id, "timeout")]
    letter = await bus.dead.get(nobody.id)
    assert (letter.reason, letter.attempts) == ("expired", ())
    assert letter.error is not None
    assert "nobody" in letter.error.message


async def test_poison_names_the_agents_that_it_killed(bus: Client, redis: Redis) -> None:
    handle = await bus.submit("kill", None, max_attempts=10)
    for name in ("one", "two", "three"):
        async with wire_agent(redis, bus.pool, "kill", agent_id=name, lease=1.5) as agent:
            assignment = await agent.next()
            started = {"task_id": assignment.task_id, "attempt": assignment.attempt}
            await agent.report(updates=(started,))
    with pytest.raises(TaskFailedError):
        await handle.result(timeout=30)
    letter = await bus.dead.get(handle.id)
    assert letter.reason == FailureReason.POISON
    assert [(one.agent_id, one.outcome) for one in letter.attempts] == [
        (name, FailureReason.AGENT_LOST) for name in ("one", "two", "three")
    ]
    assert letter.error is not None
    assert "one (attempt 1), two (attempt 2), three (attempt 3)" in letter.error.message


async def test_a_requeued_task_is_the_same_task_and_has_another_chance(bus: Client, run_agent: RunAgent) -> None:
    agent = Fragile()
    await run_agent(agent)
    first = await bus.submit("work", "this", key="invoice 7", max_attempts=2)
    with pytest.raises(TaskFailedError):
        await first.result(timeout=30)
    agent.broken = False
    told = await bus.dead.requeue([first.id], reason="the bug is fixed", priority=TaskPriority.HIGH)
    assert told.done == (first.id,)
    again = await bus.submit("work", "this", key="invoice 7")
    assert (again.id, await again.result(timeout=30)) == (first.id, "did this")
    record = await again.get()
    assert [one.outcome for one in record.attempts] == ["error", "error", "completed"]
    (past,) = record.requeues
    assert (past.why, past.reason, past.attempt) == ("the bug is fixed", "error", 2)
    assert past.error is not None
    assert record.priority is TaskPriority.HIGH
    assert (await bus.queue_status()).dead == 0
    with pytest.raises(NotDeadError):
        await bus.dead.get(first.id)


async def test_a_handle_tells_one_end_and_a_new_one_waits_for_the_next(bus: Client, run_agent: RunAgent) -> None:
    agent = Fragile()
    await run_agent(agent)
    old = await bus.submit("work", "this", max_attempts=1)
    with pytest.raises(TaskFailedError):
        await old.result(timeout=30)
    agent.broken = False
    await bus.dead.requeue([old.id])
    assert await bus.handle(old.id).result(timeout=30) == "did this"
    with pytest.raises(TaskFailedError):
        await old.result()


async def test_many_are_meant_by_what_they_have_in_common(bus: Client, run_agent: RunAgent) -> None:
    agent = Fragile()
    await run_agent(agent)
    night = [await failed(bus, tags=["night", "eu"], max_attempts=1) for _ in range(3)]
    await failed(bus, tags=["day"], max_attempts=1)
    await failed(bus, "refuse", tags=["night"])
    assert {one.id for one in await bus.dead.list("tag=night tag=eu")} == set(night)
    assert len(await bus.dead.list("tag=night")) == 4
    assert await bus.dead.count("reason=rejected") == 1
    assert len(await bus.list_tasks(where="status=failed|cancelled tag=day")) == 1
    agent.broken = False
    told = await bus.dead.requeue(where="tag=night reason=error")
    assert set(told.done) == set(night)
    for task_id in night:
        assert await bus.handle(task_id).result(timeout=30) == "did this"
    assert (await bus.queue_status()).dead == 2
    told = await bus.dead.purge(where=TaskFilter())
    assert (len(told.done), await bus.dead.list()) == (2, [])


async def test_what_is_purged_is_as_if_it_had_never_been(bus: Client, run_agent: RunAgent, redis: Redis) -> None:
    agent = Fragile()
    await run_agent(agent)
    task_id = await failed(bus, key="k", max_attempts=1)
    assert (await bus.dead.purge([task_id])).done == (task_id,)
    assert not await redis.exists(PoolNames(check_pool(bus.pool)).task(task_id))
    with pytest.raises(UnknownTaskError):
        await bus.get(task_id)
    assert (await bus.dead.purge([task_id])).unknown == (task_id,)
    agent.broken = False
    assert await (await bus.submit("work", "this", key="k")).result(timeout=30) == "did this"


async def test_what_is_not_dead_is_told_apart(bus: Client, run_agent: RunAgent, redis: Redis) -> None:
    agent = Fragile()
    agent.broken = False
    await run_agent(agent)
    done = await bus.submit("work", "this")
    await done.result(timeout=30)
    waiting = await bus.submit("nobody", None)
    await waiting.get()
    refused = f"{bus.pool}.refused"
    body = f'{{"id":"{refused}","capability":"work","payload":"this","priority":"HUGE"}}'
    await redis.xadd(PoolNames(check_pool(bus.pool)).submissions(TaskPriority.LOW), {DATA_FIELD: body})
    with pytest.raises(TaskFailedError):
        await bus.handle(refused).result(timeout=30)
    told = await bus.dead.requeue([done.id, waiting.id, refused, f"{bus.pool}.never"])
    assert set(told.not_dead) == {done.id, waiting.id}
    assert (told.refused, told.unknown, told.done) == ((refused,), (f"{bus.pool}.never",), ())
    with pytest.raises(ValueError, match="say which"):
        await bus.dead.requeue()


async def test_all_live_tasks_of_a_kind_are_cancelled_even_those_that_nobody_has_read(bus: Client) -> None:
    handles = [await bus.submit("nobody", n, tags=["batch-7"]) for n in range(20)]
    other = await bus.submit("nobody", None, tags=["batch-8"])
    await bus.cancel_matching("tag=batch-7", "superseded")
    for handle in handles:
        with pytest.raises(TaskCancelledError, match="superseded"):
            await handle.result(timeout=30)
    assert await other.status() is TaskStatus.PENDING


async def test_a_requeued_task_is_kept_however_soon_it_would_have_expired(
    bus: Client, redis: Redis, run_agent: RunAgent
) -> None:
    agent = Fragile()
    async with running_agent(bus, agent):
        task_id = await failed(bus, max_attempts=1)
    record = PoolNames(check_pool(bus.pool)).task(task_id)
    await redis.pexpire(record, 300)
    await bus.dead.requeue([task_id])
    assert await redis.pttl(record) == -1
    await eventually(lambda: bus.explain(task_id))
    agent.broken = False
    await run_agent(agent)
    assert await bus.handle(task_id).result(timeout=30) == "did this"
