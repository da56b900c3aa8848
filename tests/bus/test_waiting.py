"""Waiting for results, whatever the server, the leader or a record says; the leader is played by hand, or real."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import date, timedelta
from time import monotonic
from typing import Any, Self

import pytest
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis

from agent_runtime import Agent, capability
from bus import Client, ClientClosedError, TaskHandle, TaskStatus, UnknownTaskError, UnreadableTaskError
from bus.ids import check_pool, new_task_id
from bus.messages import Command, Outcome, Reply, TaskError, TaskResult, WatchTasks
from bus.names import PoolNames
from bus.records import Run
from bus.states import TaskPriority
from bus.waiter import Waiter, Waiters
from bus.waiting import READ_COUNT, Outcomes, outcome_of
from tests.support.bus import WireAgent, running_dispatcher, wire_agent
from tests.support.waiting import eventually


class Ledger:
    """What a leader writes, by hand."""

    def __init__(self, redis: Redis, pool: str, client: Client) -> None:
        self.redis = redis
        self.names = PoolNames(check_pool(pool))
        self.stream = self.names.replies(client._link.client_id)

    async def reply(self, *handles: TaskHandle[Any], output: Any = None) -> None:
        outcomes = tuple(Outcome(task_id=h.id, status=TaskStatus.COMPLETED, output=output) for h in handles)
        await self.raw(Reply(outcomes=outcomes).model_dump_json())

    async def raw(self, body: str | bytes) -> None:
        await self.redis.xadd(self.stream, {"__data__": body})

    async def record(self, task_id: str, state: str, **run: Any) -> None:
        fields: dict[Any, Any] = {"state": state, "run": Run(**run).model_dump_json(), "result": b'"stored"'}
        await self.redis.hset(self.names.task(task_id), mapping=fields)

    def new(self) -> str:
        return new_task_id(self.names.pool)


@pytest.fixture
async def client(redis_url: str, pool: str) -> AsyncIterator[Client]:
    async with Client(redis_url, pool=pool) as made:
        yield made


@pytest.fixture
def ledger(redis: Redis, pool: str, client: Client) -> Ledger:
    return Ledger(redis, pool, client)


async def test_who_waits_for_a_task_that_was_lost_and_stored_anew_is_told_of_the_new_one(
    client: Client, ledger: Ledger
) -> None:
    handle = await client.submit("a.b", key="k")
    waiting = asyncio.create_task(handle.result())
    await eventually(lambda: handle.waiter.waited_for)
    async for key in ledger.redis.scan_iter(f"{ledger.names.root}*"):
        await ledger.redis.delete(key)  # the server loses everything
    again = await client.submit("a.b", key="k")
    assert again.id == handle.id
    del again
    await ledger.reply(handle, output="told")
    assert await asyncio.wait_for(waiting, 10) == "told"


# --- replies and records that cannot be read


@pytest.mark.parametrize(
    "body",
    ["{", "[]", "7", "{}", '{"outcomes":7}', '{"v":2,"results":[]}', '{"v":"x","outcomes":[]}', "[" * 300],
)
async def test_a_reply_that_cannot_be_read_is_left_out(
    body: str, client: Client, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    handle = await client.submit("a.b")
    waiting = asyncio.create_task(handle.result())
    await ledger.raw(body)
    await ledger.redis.xadd(ledger.stream, {"other": "field"})
    await eventually(lambda: caplog.text.count("cannot understand reply") == 2)
    await ledger.reply(handle, output="told")
    assert await waiting == "told"


async def test_of_a_reply_every_outcome_that_can_be_read_is_taken(client: Client, ledger: Ledger) -> None:
    handles = [await client.submit("a.b", n) for n in range(3)]
    waiting = [asyncio.create_task(handle.result()) for handle in handles]
    await ledger.record(handles[1].id, "COMPLETED/1//", finished_at=1)
    first, second, third = (handle.id for handle in handles)
    good = '{"task_id":"%s","status":"COMPLETED","output":%d}'
    bad = f'{{"task_id":"{second}","status":"PAUSED"}},{{}},7,{{"task_id":{{}}}}'
    await ledger.raw(f'{{"outcomes":[{good % (first, 1)},{bad},{good % (third, 3)}]}}')
    assert await asyncio.gather(*waiting) == [1, "stored", 3]


async def test_a_record_that_cannot_be_read_is_told_to_whoever_waits_for_it(client: Client, ledger: Ledger) -> None:
    states = {ledger.new(): state for state in ("PAUSED/1//", "COMPLETED", "COMPLETED/1//", "\xff")}
    for task_id, state in states.items():
        await ledger.record(task_id, state)
    broken = next(task_id for task_id, state in states.items() if state == "COMPLETED/1//")
    await ledger.redis.hset(ledger.names.task(broken), "run", "no JSON")
    text = ledger.new()
    await ledger.redis.set(ledger.names.task(text), "of a wrong type")
    good = ledger.new()
    await ledger.record(good, "COMPLETED/1//", finished_at=1)
    handles = [client.handle(task_id) for task_id in (*states, text)]
    others = client.handle(good)
    told = await asyncio.gather(*(handle.result(timeout=30) for handle in handles), return_exceptions=True)
    assert [type(error) for error in told] == [UnreadableTaskError] * 5
    assert "PAUSED" in str(told[0])
    assert "WRONGTYPE" in str(told[4]) or "wrong kind" in str(told[4])
    assert await others.result(timeout=30) == "stored"
    # Once it can be read, a new handle has it.
    await ledger.record(broken, "COMPLETED/1//", finished_at=1)
    assert await client.handle(broken).result(timeout=30) == "stored"


# --- a server that refuses


async def test_waiting_goes_on_after_a_server_without_replicas_has_refused(own: Redis, own_url: str) -> None:
    """As after a failover with `min-replicas-to-write`: the reply is read, and removing it is refused."""
    async with Client(own_url) as client:
        ledger = Ledger(own, "default", client)
        first, second = await client.submit("a.b"), await client.submit("a.b")
        await ledger.reply(first, output=1)
        await own.config_set("min-replicas-to-write", 1)
        assert await first.result(timeout=30) == 1
        await own.config_set("min-replicas-to-write", 0)
        waiting = asyncio.create_task(second.result())
        await ledger.reply(second, output=2)
        async with asyncio.timeout(30):
            assert await waiting == 2


async def test_waiting_goes_on_when_its_stream_is_not_one(
    client: Client, ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    await ledger.redis.set(ledger.stream, "of a wrong type")
    handle = await client.submit("a.b")
    waiting = asyncio.create_task(handle.result())
    await eventually(lambda: "could not read the replies" in caplog.text)
    await ledger.redis.delete(ledger.stream)
    await ledger.reply(handle, output="told")
    assert await waiting == "told"


async def test_waiting_goes_on_when_the_streams_cannot_be_counted(client: Client, ledger: Ledger) -> None:
    await ledger.redis.set(ledger.names.submissions(TaskPriority.LOW), "of a wrong type")
    task_id = ledger.new()
    await ledger.record(task_id, "COMPLETED/1//", finished_at=1)
    assert await client.handle(task_id).result(timeout=30) == "stored"


# --- a task that is accepted while it is looked up


class Interleaved:
    """A server on which something happens before the n-th command of a pipeline; the look-up's only seam."""

    def __init__(self, redis: Redis, moment: int, happens: Callable[[], Awaitable[object]]) -> None:
        self._redis = redis
        self._moment = moment
        self._happens = happens
        self.commands: list[Callable[[], Awaitable[Any]]] = []

    def pipeline(self, *, transaction: bool) -> "Interleaved":
        assert not transaction, "a transaction has no moments in between: nothing to test"
        return self

    async def __aenter__(self) -> Self:
        self.commands = []
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def xlen(self, key: str) -> None:
        self.commands.append(lambda: self._redis.xlen(key))

    def hmget(self, key: str, fields: list[str]) -> None:
        self.commands.append(lambda: self._redis.hmget(key, fields))

    async def execute(self, *, raise_on_error: bool = True) -> list[Any]:
        assert raise_on_error in {True, False}
        found = []
        for number, command in enumerate(self.commands):
            if number == self._moment:
                await self._happens()
            found.append(await command())
        return found


@pytest.mark.parametrize("moment", range(6))
async def test_a_task_that_is_accepted_while_it_is_looked_up_is_not_unknown(
    moment: int, client: Client, ledger: Ledger
) -> None:
    handle = await client.submit("a.b")

    async def accepted() -> None:
        async with ledger.redis.pipeline(transaction=True) as pipe:
            pipe.delete(ledger.names.submissions(TaskPriority.MEDIUM))
            pipe.hset(ledger.names.task(handle.id), "state", "PENDING/0//")
            await pipe.execute()

    server: Any = Interleaved(ledger.redis, moment, accepted)
    outcomes = Outcomes(server, ledger.names, client._link.client_id)
    waiter = outcomes.waiter(handle.id)
    waiter.added -= 3600
    await outcomes._look_up([waiter])
    assert not waiter.outcome.done()


async def test_a_task_that_never_was_is_unknown_though_not_while_submissions_are_unread(
    client: Client, ledger: Ledger
) -> None:
    outcomes = Outcomes(client._link.redis, ledger.names, client._link.client_id)
    waiter = outcomes.waiter(check_task(ledger.new()))
    waiter.added -= 3600
    await client.submit("a.b")
    await outcomes._look_up([waiter])
    assert not waiter.outcome.done()
    await ledger.redis.delete(ledger.names.submissions(TaskPriority.MEDIUM))
    await outcomes._look_up([waiter])
    assert isinstance(waiter.outcome.exception(), UnknownTaskError)


def check_task(task_id: str) -> Any:
    return task_id


# --- asking to be told


async def test_a_callers_timeout_holds_while_the_server_accepts_no_writes(own: Redis, own_url: str) -> None:
    async with Client(own_url) as client:
        foreign = client.handle(new_task_id(check_pool("default")))
        await own.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")  # type: ignore[no-untyped-call]
        began = monotonic()
        with pytest.raises(Exception, match="it goes on"):
            await foreign.result(timeout=0.05)
        assert monotonic() - began < 30
        await own.execute_command("CLIENT", "UNPAUSE")  # type: ignore[no-untyped-call]


async def test_what_is_watched_is_asked_for_in_few_messages(client: Client, ledger: Ledger) -> None:
    handles = [client.handle(ledger.new()) for _ in range(2500)]
    ending: Any = client.as_completed(handles)
    first = asyncio.create_task(anext(ending))

    async def asked() -> list[int]:
        entries: Any = await ledger.redis.xrange(ledger.names.commands)
        watches = [Command.model_validate_json(fields[b"__data__"]).root for _, fields in entries]
        return [len(watch.task_ids) for watch in watches if isinstance(watch, WatchTasks)]

    async def all_asked() -> bool:
        return sum(await asked()) == 2500

    await eventually(all_asked)
    assert await asked() == [1000, 1000, 500]
    await ledger.reply(handles[7])
    assert await first is handles[7]
    await ending.aclose()


# --- what the ledger says is what the leader says


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)

    day: date


class Typed(Agent):
    @capability("t.strict")
    async def strict(self, task: Strict) -> Strict:
        return task


async def test_a_typed_result_is_validated_as_the_json_it_came_as(client: Client, ledger: Ledger) -> None:
    handle = await client.submit(Typed.strict, {"day": "2026-01-02"})
    assert handle._output is Typed.capabilities["t.strict 1.0"][1].output
    await ledger.reply(handle, output={"day": "2026-01-02"})
    assert await handle.result(timeout=30) == Strict(day=date(2026, 1, 2))


async def _completed(agent: WireAgent, _: TaskHandle[Any]) -> None:
    await agent.complete(await agent.next(), {"n": 1})


async def _failed(agent: WireAgent, _: TaskHandle[Any], *, retryable: bool = False) -> None:
    given = await agent.next()
    error = TaskError(type="E", message="m", details=[1])
    result = TaskResult(
        task_id=given.task_id, attempt=given.attempt, status=TaskStatus.FAILED, error=error, retryable=retryable
    )
    agent.held.clear()
    await agent.report(results=(result,))


async def _cancelled(agent: WireAgent, handle: TaskHandle[Any]) -> None:
    await agent.next()
    await handle.cancel("while assigned")


async def _cancelled_while_pending(_: WireAgent, handle: TaskHandle[Any]) -> None:
    await handle.cancel("while delayed")


async def _cancelled_between_attempts(agent: WireAgent, handle: TaskHandle[Any]) -> None:
    await _failed(agent, handle, retryable=True)

    async def waits_again() -> bool:
        record = await handle.get()
        return record.status is TaskStatus.PENDING and record.attempt == 1

    await eventually(waits_again)
    await handle.cancel("between two attempts")


_ENDS: list[tuple[Callable[[WireAgent, TaskHandle[Any]], Awaitable[None]], dict[str, Any]]] = [
    (_completed, {}),
    (_failed, {}),
    (_cancelled, {}),
    (_cancelled_while_pending, {"delay": 60}),
    (_cancelled_between_attempts, {}),
    (_cancelled_while_pending, {"capability": "t.nobody"}),
]


@pytest.mark.parametrize(("end", "options"), _ENDS)
async def test_an_outcome_from_the_ledger_is_the_one_that_the_leader_told(
    end: Callable[[WireAgent, TaskHandle[Any]], Awaitable[None]],
    options: dict[str, Any],
    client: Client,
    redis: Redis,
    redis_url: str,
    pool: str,
) -> None:
    hour = timedelta(hours=1)
    async with (
        running_dispatcher(redis_url, pool, retry_base=hour, retry_cap=hour),
        wire_agent(redis, pool, "t.x") as agent,
    ):
        handle = await client.submit(**{"capability": "t.x", **options})
        client._wait_for(handle.waiter)
        await end(agent, handle)
        async with asyncio.timeout(30):
            told = await asyncio.shield(handle.waiter.outcome)
        key = PoolNames(check_pool(pool)).task(handle.id)
        row = await redis.hmget(key, ["state", "run", "result"])
        assert outcome_of(handle.id, row) == told


async def test_a_result_of_a_closed_client_says_so(redis_url: str, pool: str) -> None:
    async with running_dispatcher(redis_url, pool), Client(redis_url, pool=pool) as client:
        handle = await client.submit("t.nobody")
        waiting = asyncio.create_task(handle.result())
        await eventually(lambda: handle.waiter.waited_for)
    for result in (waiting, handle.result()):
        with pytest.raises(ClientClosedError, match="inside of `async with Client"):
            await result


# --- who waits


async def test_a_caller_that_is_cancelled_gives_up_only_its_own_waiting(client: Client, ledger: Ledger) -> None:
    handle = await client.submit("a.b")
    first, second = asyncio.create_task(handle.result()), asyncio.create_task(client.handle(handle.id).result())
    await eventually(lambda: handle.waiter.waited_for)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await ledger.reply(handle, output="told")
    assert await second == "told"
    assert await handle.result() == "told"


async def test_a_caller_that_is_cancelled_as_the_outcome_comes_harms_nobody() -> None:
    waiter = Waiter(new_task_id(check_pool("p")))
    calls = [asyncio.create_task(waiter.ended()) for _ in range(3)]
    await asyncio.sleep(0)
    calls[0].cancel()
    waiter.tell(found := Outcome(task_id=waiter.task_id, status=TaskStatus.COMPLETED))
    calls[1].cancel()
    told = await asyncio.gather(*calls, return_exceptions=True)
    assert [type(one) for one in told] == [asyncio.CancelledError, asyncio.CancelledError, Outcome]
    assert await waiter.outcome == found


async def test_what_is_told_first_counts() -> None:
    waiter = Waiter(new_task_id(check_pool("p")))
    waiter.tell(ClientClosedError(waiter.task_id))
    waiter.tell(Outcome(task_id=waiter.task_id, status=TaskStatus.COMPLETED))
    with pytest.raises(ClientClosedError):
        await waiter.ended()


def test_a_waiter_is_known_as_long_as_somebody_holds_it_and_not_longer() -> None:
    waiters, task_id = Waiters(), new_task_id(check_pool("p"))
    held = waiters.of(task_id)
    assert waiters.of(task_id) is held
    newer = waiters.new(task_id)
    del held  # the end of the older one is not the end of the newer one
    gc.collect()
    assert waiters.get(task_id) is newer
    del newer
    gc.collect()
    assert (len(waiters), waiters.get(task_id), waiters.all()) == (0, None, [])


async def test_replies_that_were_read_do_not_stay_in_their_stream(client: Client, ledger: Ledger) -> None:
    for _ in range(3):
        handle = await client.submit("a.b")
        waiting = asyncio.create_task(handle.result())
        await ledger.reply(handle, output=1)
        assert await waiting == 1
    left = 3
    async with asyncio.timeout(10):
        while left > 1:  # the last one tells where the next read begins
            left = await ledger.redis.xlen(ledger.stream)
    many = [await client.submit("a.b") for _ in range(2 * READ_COUNT)]
    waiting_all = asyncio.gather(*(handle.result() for handle in many))
    for handle in many:
        await ledger.reply(handle)
    await waiting_all
    assert await ledger.redis.xlen(ledger.stream) <= 2 * READ_COUNT
