"""One term of leadership: what the engine does between the inbox and the ledger."""

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from bus.connection import CONNECTION_ERRORS, connect
from bus.embedded import EmbeddedServer
from bus.ids import TaskId, check_pool
from bus.messages import CancelTasks, CapabilitySpec, Register, Report, TaskHeader, TaskResult
from bus.names import DATA_FIELD, DISPATCHERS_GROUP, PoolNames
from bus.states import TaskStatus
from dispatcher import engine as engine_module
from dispatcher.commit_call import Inputs
from dispatcher.core.decisions import Decisions
from dispatcher.core.events import Blind, Commanded, Event, Reported, SignedIn, Submitted
from dispatcher.core.scheduler import Scheduler
from dispatcher.engine import DefectError, Engine, LeadLostError, gravest
from dispatcher.inbox import PASS_SIZE, Arrival, Inbox, Portion
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import Ledger
from dispatcher.observer import SILENT
from tests.support.waiting import eventually


class Recorded(Ledger):
    """Notes what each commit consumed."""

    def __init__(self, redis: Redis, names: PoolNames) -> None:
        super().__init__(redis, names)
        self.acks: list[dict[str, list[str]]] = []
        self.sizes: list[int] = []

    async def commit(self, lead: Lead, decisions: Decisions, inputs: Inputs, now: int) -> list[str]:
        self.acks.append(inputs.acks)
        self.sizes.append(len(decisions))
        return await super().commit(lead, decisions, inputs, now)


class Running:
    """An engine of a pool of its own."""

    def __init__(self, redis: Redis, pool: str, scheduler: Any = None) -> None:
        self.names = PoolNames(check_pool(pool))
        self.leadership = Leadership(redis, self.names, "one", lease_ms=60_000)
        self.ledger: Recorded = Recorded(redis, self.names)
        self.inbox = Inbox((self.names.commands,))
        self.consumed: list[str] = []
        self.redis = redis
        self.scheduler = scheduler or Scheduler()

    def _consumed(self, portion: Portion) -> None:
        self.consumed += portion.consumed

    async def make(self) -> Engine:
        lead = await self.leadership.acquire()
        assert lead is not None
        return Engine(
            redis=self.redis,
            names=self.names,
            leadership=self.leadership,
            lead=lead,
            ledger=self.ledger,
            scheduler=self.scheduler,
            inbox=self.inbox,
            consumed=self._consumed,
            observer=SILENT,
        )


async def test_a_command_that_takes_several_passes_is_consumed_by_the_last_of_them(redis: Redis, pool: str) -> None:
    running = Running(redis, pool)
    names = running.names
    engine = await running.make()
    await redis.xgroup_create(names.commands, DISPATCHERS_GROUP, id="0", mkstream=True)
    entry: Any = await redis.xadd(names.commands, {DATA_FIELD: "{}"})
    await redis.xreadgroup(DISPATCHERS_GROUP, "one", {names.commands: ">"})
    ids = tuple(f"{pool}.t{n}" for n in range(2 * PASS_SIZE))
    arrival = Arrival(names.commands)
    parts = [ids[n : n + 50] for n in range(0, len(ids), 50)]
    arrival.add(entry.decode(), [(Commanded(CancelTasks(task_ids=part), 0), 50) for part in parts])
    await running.inbox.put(arrival)
    serving = asyncio.create_task(engine.run())
    await eventually(lambda: running.consumed == [entry.decode()])
    serving.cancel()
    assert running.ledger.sizes[:2] == [PASS_SIZE, PASS_SIZE]
    assert [acks.get(names.commands) for acks in running.ledger.acks[:2]] == [[], [entry.decode()]]
    assert await redis.xlen(names.commands) == 0


class Deluded(Leadership):
    """Believes in its lead for ever, as one whose clock stands still."""

    @property
    def trusted(self) -> bool:
        return True

    async def renew(self) -> bool:
        return True


async def test_of_two_engines_that_both_believe_to_lead_one_writes_and_the_other_ends(redis: Redis, pool: str) -> None:
    first, second = Running(redis, pool), Running(redis, pool)
    first.leadership = Deluded(redis, first.names, "one", lease_ms=60_000)
    deluded = await first.make()
    await redis.delete(first.names.leader)  # its lease is over
    leads = await second.make()
    names = first.names
    await redis.xgroup_create(names.commands, DISPATCHERS_GROUP, id="0", mkstream=True)
    entry: Any = await redis.xadd(names.commands, {DATA_FIELD: "{}"})
    await redis.xreadgroup(DISPATCHERS_GROUP, "one", {names.commands: ">"})
    serving = asyncio.create_task(leads.run())
    event = Submitted(TaskId(f"{pool}.a"), TaskHeader(capability="c"), b'{"capability":"c"}', 0)
    for running in (first, second):  # both have read the very same
        arrival = Arrival(names.commands)
        arrival.add(entry.decode(), [(event, 1)])
        await running.inbox.put(arrival)
    with pytest.raises(LeadLostError, match="another leader"):
        await deluded.run()
    await eventually(lambda: second.consumed == [entry.decode()])
    serving.cancel()
    assert first.consumed == []
    assert await redis.hget(names.task(TaskId(f"{pool}.a")), "state") == b"PENDING/0//"
    told: Any = await redis.xrange(names.events)
    assert len(told) == 1


class NeverDone:
    """A scheduler that leaves, after each long pass, something that is due for the next."""

    next_due = 0
    loading = False

    def __init__(self) -> None:
        self.passes = 0

    def step(self, events: Sequence[Event], now: int) -> Decisions:
        del events, now
        self.passes += 1
        until = time.perf_counter() + 0.005
        while time.perf_counter() < until:
            pass
        return Decisions()


async def test_the_lease_is_renewed_however_much_is_due(
    redis: Redis, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "RENEW_EVERY_S", 0.02)
    scheduler = NeverDone()
    running = Running(redis, pool, scheduler)
    engine = await running.make()
    renewals = 0
    renew = running.leadership.renew

    async def counted() -> bool:
        nonlocal renewals
        renewals += 1
        return await renew()

    monkeypatch.setattr(running.leadership, "renew", counted)
    serving = asyncio.create_task(engine.run())
    await eventually(lambda: renewals >= 5 and scheduler.passes >= 20)
    serving.cancel()


async def test_the_horizon_of_empty_streams_is_before_the_present_millisecond(redis: Redis, pool: str) -> None:
    """The next entry may still be written in this millisecond, and would lie behind the horizon."""
    engine = await Running(redis, pool).make()
    horizon, now = await engine.read_horizon()
    assert horizon == now - 1


async def test_there_is_no_horizon_while_agents_cannot_write(tmp_path: Path) -> None:
    """Nobody's silence means anything while the server takes no word of anybody, though it answers the leader."""
    async with EmbeddedServer(data_dir=tmp_path, persistence="none") as server, connect(server.url, name="t") as own:
        engine = await Running(own, "own").make()
        key = PoolNames(check_pool("own")).leader
        lease = await own.get(key)
        for name in ("min-replicas-to-write", "maxmemory"):
            await own.config_set(name, 1)
            with pytest.raises(CONNECTION_ERRORS):
                await engine.read_horizon()
            await own.config_set(name, 0)
            assert await engine.read_horizon()
        assert await own.get(key) == lease


async def test_a_server_that_was_away_for_a_moment_has_made_everybody_blind_for_so_long(
    redis: Redis, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several such moments may be as long as a lease, and no single one of them as long as a second."""
    engine: Any = await Running(redis, pool).make()
    answers: list[Any] = [(0, 1_000), OSError("refused"), (0, 1_400), (0, 1_650)]
    engine._last_contact = 900
    asked = asyncio.Event()

    async def look() -> tuple[int, int]:
        if not answers:
            asked.set()
            await asyncio.Event().wait()
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer  # type: ignore[no-any-return]

    engine.read_horizon = look
    monkeypatch.setattr(engine_module, "HORIZON_EVERY_S", 0.001)
    watching = asyncio.create_task(engine._watch_horizon())
    async with asyncio.timeout(10):
        await asked.wait()
    watching.cancel()
    assert [event for event in engine._extra if isinstance(event, Blind)] == [Blind(400)]


async def test_of_several_errors_in_one_tick_one_is_raised_and_it_is_the_gravest(redis: Redis, pool: str) -> None:
    lost, away, defect = LeadLostError("fenced"), ResponseError("READONLY"), ValueError("never expected")
    for errors, expected in (((away, lost), lost), ((lost, away, defect), defect), ((away, away), away)):
        engine: Any = await Running(redis, pool).make()

        async def failing(error: Exception) -> None:
            raise error

        loops = ["_decide", "_commit", "_renew"]
        for loop, error in zip(loops, errors, strict=False):
            setattr(engine, loop, lambda error=error: failing(error))
        with pytest.raises(type(expected)) as caught:
            await engine.run()
        assert caught.value is expected
        await engine._leadership.release()


def test_the_gravest_is_found_in_groups_of_groups() -> None:
    defect = DefectError(frozenset(), certain=False)
    group = ExceptionGroup("", [OSError(), ExceptionGroup("", [LeadLostError(), defect])])
    assert gravest(group) is defect


class Gated(Recorded):
    """Stores nothing while `gate` is closed."""

    def __init__(self, redis: Redis, names: PoolNames) -> None:
        super().__init__(redis, names)
        self.gate = asyncio.Event()
        self.gate.set()

    async def commit(self, lead: Lead, decisions: Decisions, inputs: Inputs, now: int) -> list[str]:
        await self.gate.wait()
        return await super().commit(lead, decisions, inputs, now)


async def test_a_submission_that_is_read_again_is_no_conflict_for_the_passes_decided_before_that_is_known(
    redis: Redis, pool: str
) -> None:
    running = Running(redis, pool)
    names, scheduler = running.names, running.scheduler
    running.ledger = ledger = Gated(redis, names)
    await redis.xgroup_create(names.commands, DISPATCHERS_GROUP, id="0", mkstream=True)
    numbers = iter(range(1, 100))

    async def take(*events: Event) -> str:
        entry = f"{next(numbers)}-0"
        arrival = Arrival(names.commands)
        arrival.add(entry, [(event, 1) for event in events])
        await running.inbox.put(arrival)
        return entry

    async def taken(*events: Event) -> None:
        entry = await take(*events)
        await eventually(lambda: entry in running.consumed)

    def submitted(local: str) -> Submitted:
        task_id = TaskId(f"{pool}.{local}")
        return Submitted(task_id, TaskHeader(id=task_id, capability="do"), b'{"payload":1}', 0)

    def ended(local: str) -> Reported:
        result = TaskResult(task_id=f"{pool}.{local}", attempt=1, status=TaskStatus.COMPLETED, duration=5.0)
        return Reported(Report(agent_id="a", session="s", results=(result,)), 0)

    signed = Register(agent_id="a", session="s", capabilities=(CapabilitySpec(name="do"),), lease=3_600)
    serving = asyncio.create_task((await running.make()).run())
    await taken(SignedIn(signed, 0), submitted("one"))
    await taken(ended("one"))
    await taken(submitted("two"))
    ledger.gate.clear()
    await take(submitted("one"))  # its client got no reply, and sent it again
    await eventually(lambda: f"{pool}.one" in scheduler.board.tasks)
    last = await take(ended("two"))
    await eventually(lambda: scheduler.board.tasks[f"{pool}.one"].status is TaskStatus.ASSIGNED)
    ledger.gate.set()
    await eventually(lambda: last in running.consumed)
    await eventually(lambda: f"{pool}.one" not in scheduler.board.tasks)
    await taken(submitted("three"))
    assert not serving.done()
    states = [await redis.hget(names.task(f"{pool}.{one}"), "state") for one in ("one", "two", "three")]
    assert states == [b"COMPLETED/1//", b"COMPLETED/1//", b"ASSIGNED/1/a/s"]
    serving.cancel()
