"""A pass that is stored by several calls, and a leader that dies between two of them."""

from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bus.names import DISPATCHERS_GROUP, PoolNames
from dispatcher import ledger as ledger_module
from dispatcher.commit_call import Inputs
from dispatcher.core.decisions import (
    NoteKind,
)
from dispatcher.leadership import Lead
from dispatcher.ledger import ConflictError, Ledger
from tests.dispatcher.ledger.conftest import NOTHING, NOW, change, contents, decisions
from tests.dispatcher.ledger.passes import eventful, said_of
from tests.support.tapped import DiedError, Life, Tapped


async def test_a_hundred_and_one_tasks_take_two_calls_and_the_input_is_consumed_by_the_last(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    await redis.xgroup_create(names.commands, DISPATCHERS_GROUP, id="0", mkstream=True)
    entry: Any = await redis.xadd(names.commands, {"__data__": "{}"})
    await redis.xreadgroup(DISPATCHERS_GROUP, "one", {names.commands: ">"})
    many = [change(names, f"t{n}") for n in range(101)]
    broken = replace(many[100], before="RUNNING/9/x/y")
    with pytest.raises(ConflictError):
        await ledger.commit(lead, decisions(*many[:100], broken), Inputs(acks={names.commands: [entry.decode()]}), NOW)
    assert await redis.zcard(names.pending) == 100
    assert await redis.xlen(names.commands) == 1, "an input whose effect is not stored is not consumed"
    following = Ledger(redis, names)  # who has met a conflict loads the ledger anew
    await following.commit(lead, decisions(*many), Inputs(acks={names.commands: [entry.decode()]}), NOW)
    assert await redis.zcard(names.pending) == 101
    assert await contents(redis, names.commands) == ([], [(DISPATCHERS_GROUP.encode(), 0)])


@pytest.mark.parametrize("calls", [1, 2, 3])
async def test_each_call_of_a_pass_says_what_it_stores_and_the_last_stores_the_agents(
    redis: Redis, names: PoolNames, lead: Lead, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    monkeypatch.setattr(ledger_module, "BATCH", 2)
    dying: Any = Tapped(redis, before=Life(calls))
    whole = eventful(names, 5)
    if calls < 3:
        with pytest.raises(DiedError):
            await Ledger(dying, names).commit(lead, whole, NOTHING, NOW)
    else:
        await Ledger(dying, names).commit(lead, whole, NOTHING, NOW)
    stored = [one.task_id for one in whole.changes if await redis.exists(names.task(one.task_id))]
    assert len(stored) == min(5, 2 * calls)
    assert await said_of(redis, names.events, "tasks") == stored
    answered = await said_of(redis, names.replies("c1"), "outcomes")
    last = await redis.exists(names.agent("w"), names.agents, names.control("w"), names.notes(NoteKind.TOMBSTONE))
    if calls < 3:
        assert answered == stored
        assert last == 0
    else:
        assert answered == [*stored, f"{names.pool}.elsewhere"]
        assert last == 4


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_pass_of_several_calls_goes_on_where_the_reply_was_lost(
    redis: Redis, names: PoolNames, lead: Lead, monkeypatch: pytest.MonkeyPatch, lost: int
) -> None:
    monkeypatch.setattr(ledger_module, "BATCH", 2)
    calls = 0

    def losing(_args: tuple[Any, ...]) -> None:
        nonlocal calls
        calls += 1
        if calls == lost:
            raise RedisConnectionError("the reply is lost")

    tapped: Any = Tapped(redis, after=losing)
    ledger, whole = Ledger(tapped, names), eventful(names, 5)
    with pytest.raises(RedisConnectionError):
        await ledger.commit(lead, whole, NOTHING, NOW)
    assert await ledger.commit(lead, whole, NOTHING, NOW) == []
    ids = [one.task_id for one in whole.changes]
    assert await said_of(redis, names.events, "tasks") == ids
    assert await said_of(redis, names.replies("c1"), "outcomes") == [*ids, f"{names.pool}.elsewhere"]
    assert await redis.xlen(names.control("w")) == 1


async def test_of_what_a_dead_leader_stored_its_successor_says_nothing_again(
    redis: Redis, names: PoolNames, lead: Lead
) -> None:
    """A task that was accepted and ended in one call looks new to the successor, who decides the same of it."""
    await Ledger(redis, names).commit(lead, eventful(names, 1), NOTHING, NOW)
    again = eventful(names, 2)
    assert await Ledger(redis, names).commit(replace(lead, epoch=lead.epoch + 1), again, NOTHING, NOW) == [
        again.changes[0].task_id
    ]
    assert await said_of(redis, names.events, "tasks") == [one.task_id for one in again.changes]


async def test_a_pass_is_cut_by_bytes_as_well(redis: Redis, names: PoolNames, lead: Lead) -> None:
    sizes: list[int] = []
    tapped: Any = Tapped(
        redis, before=lambda args: sizes.append(sum(len(arg) for arg in args if isinstance(arg, bytes | str)))
    )
    spec = b'{"capability":"c","payload":"%b"}' % (b"x" * 500_000)
    large = decisions(*(change(names, f"t{n}", spec=spec) for n in range(12)), change(names, "u", spec=spec * 6))
    await Ledger(tapped, names).commit(lead, large, NOTHING, NOW)
    assert await redis.zcard(names.pending) == 13
    assert [round(size / 1_000_000) for size in sizes if size > 1000] == [2, 2, 2, 3]
