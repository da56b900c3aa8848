"""The client against a real dispatcher, and an agent that only knows the wire."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis

from bus import (
    AgentStatus,
    BusUnavailableError,
    Client,
    PayloadTooLargeError,
    SubmissionError,
    TaskCancelledError,
    TaskCreate,
    TaskFailedError,
    TaskPriority,
    TaskStatus,
    TaskTimeoutError,
    UnknownAgentError,
    UnknownTaskError,
)
from bus.messages import CancelAttempt, TaskError, TaskResult, TaskUpdate
from bus.states import FailureReason
from tests.support.bus import WireAgent, running_dispatcher, wire_agent
from tests.support.waiting import eventually


class Text(BaseModel):
    text: str


@pytest.fixture
async def bus(redis_url: str, pool: str) -> AsyncIterator[Client]:
    async with running_dispatcher(redis_url, pool), Client(redis_url, pool=pool) as client:
        yield client


@pytest.fixture
async def agent(redis: Redis, bus: Client) -> AsyncIterator[WireAgent]:
    async with wire_agent(redis, bus.pool, "t.echo", "t.other") as running:
        yield running


async def test_a_result_comes_back_to_whoever_submitted_the_task(bus: Client, agent: WireAgent) -> None:
    handle = await bus.submit("t.echo", Text(text="ä"), priority=TaskPriority.HIGH, metadata={"a": 1}, tags=["x"])
    given = await agent.next()
    assert given.task.payload == {"text": "ä"}
    assert given.task.metadata == {"a": 1}
    await agent.complete(given, {"n": 1.5})
    assert await handle.result(timeout=30) == {"n": 1.5}
    record = await handle.get()
    assert (record.status, record.output, record.agent_id) == (TaskStatus.COMPLETED, {"n": 1.5}, "wire")
    assert record.tags == ("x",)


async def test_many_tasks_are_awaited_by_one_read_and_come_in_the_order_of_their_ends(
    bus: Client, agent: WireAgent
) -> None:
    handles = await bus.submit_many(TaskCreate(capability="t.echo", payload=n) for n in range(3))
    assignments = {a.task_id: a for a in [await agent.next() for _ in range(3)]}
    order = [handles[1], handles[2], handles[0]]
    seen = []
    ending = bus.as_completed(handles)
    for handle in order:
        await agent.complete(assignments[handle.id], handle.id)
        ended = await anext(ending)
        assert await ended.result(timeout=0.1) == handle.id
        seen.append(ended)
    assert seen == order


async def test_thousands_in_one_call_keep_their_order(bus: Client) -> None:
    handles = await bus.submit_many(
        TaskCreate(capability="t.nobody", payload=n, priority=list(TaskPriority)[n % 4]) for n in range(2500)
    )
    assert len({handle.id for handle in handles}) == 2500

    async def all_pending() -> bool:
        return (await bus.queue_status()).waiting == 2500

    await eventually(all_pending)
    records = [await handles[n].get() for n in (0, 1249, 2499)]
    assert [record.spec.payload for record in records] == [0, 1249, 2499]


async def test_a_failure_tells_reason_and_error(bus: Client, agent: WireAgent) -> None:
    handle = await bus.submit("t.echo", max_attempts=1)
    given = await agent.next()
    error = TaskError(type="ValueError", message="no such colour")
    failed = TaskResult(task_id=given.task_id, attempt=1, status=TaskStatus.FAILED, error=error)
    await agent.report(results=(failed,))
    with pytest.raises(TaskFailedError, match="failed \\(error\\): ValueError: no such colour") as caught:
        await handle.result(timeout=30)
    assert caught.value.reason == FailureReason.ERROR
    assert caught.value.error == error


async def test_a_cancelled_task_tells_its_reason_and_its_agent(bus: Client, agent: WireAgent) -> None:
    handle = await bus.submit("t.echo")
    given = await agent.next()
    await agent.report(updates=(TaskUpdate(task_id=given.task_id, attempt=1),))
    await handle.cancel("changed my mind", by="alice", grace=60)
    async with asyncio.timeout(30):
        told = (await agent.control.get()).root
    assert isinstance(told, CancelAttempt)
    assert told.confirm
    assert (await bus.get(handle.id)).status is TaskStatus.RUNNING, "its agent has not stopped it yet"
    await agent.report(results=(TaskResult(task_id=given.task_id, attempt=1, status=TaskStatus.CANCELLED),))
    with pytest.raises(TaskCancelledError, match="changed my mind") as caught:
        await handle.result(timeout=30)
    assert (caught.value.by, caught.value.given_up) == ("alice", False)


async def test_a_cancel_that_is_waited_for_says_what_has_come_of_each(bus: Client, agent: WireAgent) -> None:
    handles = [await bus.submit("t.echo", n) for n in range(4)]
    given = [await agent.next() for _ in range(2)]
    await agent.complete(given[0], "done")
    assert await handles[0].result(timeout=30) == "done"
    waiting = await bus.submit("nobody.can")
    asked = asyncio.create_task(
        bus.cancel_and_wait([h.id for h in handles[:2]] + [waiting.id, f"{bus.pool}.nothing"], grace=60, timeout=1)
    )
    async with asyncio.timeout(30):
        assert (await agent.control.get()).root.type == "cancel"
    report = await asked
    assert report.cancelled == (waiting.id,)
    assert report.over == {handles[0].id: TaskStatus.COMPLETED}
    assert (report.unknown, report.under_way) == ((f"{bus.pool}.nothing",), (handles[1].id,))


async def test_the_callers_own_timeout_gives_up_only_the_waiting(bus: Client, agent: WireAgent) -> None:
    handle = await bus.submit("t.echo")
    with pytest.raises(TaskTimeoutError, match="it goes on") as caught:
        await handle.result(timeout=0.01)
    assert caught.value.reason is None
    await agent.complete(await agent.next(), "late")
    assert await handle.result(timeout=30) == "late"


async def test_a_task_that_nobody_takes_in_time_expires_and_says_why(bus: Client) -> None:
    handle = await bus.submit("t.nobody", queue_timeout=0.05)
    with pytest.raises(TaskTimeoutError, match=r"no agent offers") as caught:
        await handle.result(timeout=30)
    assert caught.value.reason == FailureReason.EXPIRED


async def test_a_waiting_task_says_why_it_waits(bus: Client) -> None:
    unknown = await bus.submit("t.nobody", requires=["gpu >= 16"])
    delayed = await bus.submit("t.nobody", delay=60)

    async def why() -> str | None:
        return (await unknown.get()).waiting_because

    assert "no agent offers" in (await eventually(why) or "")
    assert "may not start" in ((await delayed.get()).waiting_because or "")


async def test_the_same_key_is_the_same_task_for_every_client(
    bus: Client, agent: WireAgent, redis_url: str, pool: str
) -> None:
    first = await bus.submit("t.echo", 1, key="invoice 7")
    await agent.complete(await agent.next(), "once")
    async with Client(redis_url, pool=pool) as other:
        again = await other.submit("t.echo", 1, key="invoice 7")
        assert again.id == first.id
        assert await again.result(timeout=30) == "once"
    assert await first.result(timeout=30) == "once"
    assert agent.assignments.empty()


async def test_two_clients_wait_for_one_keyed_task_that_still_runs(
    bus: Client, agent: WireAgent, redis_url: str, pool: str
) -> None:
    first = await bus.submit("t.echo", key="k")
    given = await agent.next()
    async with Client(redis_url, pool=pool) as other:
        second = await other.submit("t.echo", key="k")
        waiting = asyncio.create_task(second.result(timeout=30))
        await agent.complete(given, 5)
        assert await waiting == 5
    assert await first.result(timeout=30) == 5


async def test_a_handle_made_from_an_id_waits_and_sees_as_any_other(
    bus: Client, agent: WireAgent, redis_url: str, pool: str
) -> None:
    handle = await bus.submit("t.echo")
    given = await agent.next()
    async with Client(redis_url) as other:
        foreign = other.handle(handle.id)
        assert foreign.pool == pool
        waiting = asyncio.create_task(foreign.result(timeout=30))
        await agent.complete(given, "seen")
        assert await waiting == "seen"


async def test_waiting_for_a_task_that_never_was_says_so(bus: Client, pool: str) -> None:
    with pytest.raises(UnknownTaskError, match="never submitted"):
        await bus.handle(f"{pool}.nonesuch").result(timeout=30)
    with pytest.raises(UnknownTaskError):
        await bus.get(f"{pool}.nonesuch")
    with pytest.raises(ValueError, match="not a task id"):
        bus.handle("nonesuch")


async def test_replies_that_were_lost_are_found_in_the_ledger(
    bus: Client, agent: WireAgent, redis: Redis, pool: str
) -> None:
    handle = await bus.submit("t.echo")
    given = await agent.next()
    await agent.complete(given, "kept")

    async def stored() -> bool:
        return (await handle.status()).terminal

    await eventually(stored)
    for key in await redis.keys(f"*{pool}*:replies"):
        await redis.delete(key)
    assert await handle.result(timeout=30) == "kept"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"capability": "has space"}, "capability"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"delay": -1}, "delay"),
        ({"delay": float("inf")}, "delay"),
        ({"requires": ["gpu is big"]}, "not a condition"),
        (
            {"capability": "t.echo[gpu is big]"},
            r"^capability: 't.echo\[gpu \^is big\]' is not a .* column 12",
        ),
        ({"capability": "t.echo>=2", "version": "<3"}, "given twice"),
        ({"pool": "No Pool"}, "pool"),
        ({"payload": {"f": test_a_waiting_task_says_why_it_waits}}, "not JSON"),
        ({"wat": 1}, "wat"),
    ],
)
async def test_a_task_that_cannot_be_right_is_refused_where_it_is_made(
    bus: Client, options: dict[str, object], words: str
) -> None:
    given = {"capability": "t.echo", **options}
    with pytest.raises(SubmissionError, match=words):
        await bus.submit(**given)  # type: ignore[call-overload]


async def test_a_task_that_is_too_large_is_refused_with_the_remedy(bus: Client) -> None:
    with pytest.raises(PayloadTooLargeError, match="pass a reference"):
        await bus.submit("t.echo", "x" * 5_000_000)


async def test_lists_and_numbers_show_what_is_there(bus: Client, agent: WireAgent) -> None:
    done = await bus.submit("t.echo")
    await agent.complete(await agent.next())
    await done.result(timeout=30)
    running = await bus.submit("t.echo")
    await agent.next()
    waiting = await bus.submit("t.nobody")

    async def counted() -> bool:
        status = await bus.queue_status()
        return (status.active, status.waiting, status.unread) == (1, 1, 0)

    await eventually(counted)
    assert [task.id for task in await bus.list_tasks()] == [running.id, waiting.id, done.id]
    assert [task.id for task in await bus.list_tasks(TaskStatus.PENDING)] == [waiting.id]
    assert [task.id for task in await bus.list_tasks(TaskStatus.COMPLETED)] == [done.id]
    assert await bus.list_tasks(TaskStatus.FAILED) == []
    assert len(await bus.list_tasks(limit=2)) == 2


@pytest.mark.usefixtures("agent")
async def test_agents_are_shown_with_their_workload_and_can_be_drained(bus: Client) -> None:
    async def seen() -> bool:
        return (await bus.agent("wire")).workload is not None

    await eventually(seen)
    [info] = await bus.agents()
    assert info.workload is not None
    assert (info.status, info.slots, info.workload.running) == (AgentStatus.IDLE, 8, 0)
    await bus.drain_agent("wire", "maintenance")

    async def draining() -> bool:
        return (await bus.agent("wire")).status is AgentStatus.DRAINING

    await eventually(draining)
    with pytest.raises(UnknownAgentError, match="nobody"):
        await bus.restart_agent("nobody")


async def test_without_a_server_it_says_at_once_what_to_do() -> None:
    with pytest.raises(BusUnavailableError, match="callboard up"):
        async with Client("redis://127.0.0.1:1/0"):
            pass


async def test_closing_leaves_nothing_of_the_client_behind(redis_url: str, redis: Redis, pool: str) -> None:
    async with running_dispatcher(redis_url, pool), wire_agent(redis, pool, "t.echo") as agent:
        async with Client(redis_url, pool=pool) as bus:
            handle = await bus.submit("t.echo")
            await agent.complete(await agent.next())
            await handle.result(timeout=30)
        assert await redis.keys(f"*{pool}*:replies") == []


async def test_any_number_of_coroutines_may_use_one_client_at_once(bus: Client, agent: WireAgent) -> None:
    handles = await asyncio.gather(*(bus.submit("t.echo", n) for n in range(300)))
    waiting = asyncio.gather(*(handle.result(timeout=30) for handle in handles))
    for _ in handles:
        given = await agent.next()
        await agent.complete(given, given.task.payload)
    assert sorted(await waiting) == list(range(300))
    records = await asyncio.gather(*(handle.get() for handle in handles))
    assert {record.status for record in records} == {TaskStatus.COMPLETED}
