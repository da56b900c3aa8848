"""The commit script on a real server: each guard, each place, each section of its arguments."""

from typing import Any

import pytest
from pydantic_core import from_json, to_json
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bus.messages import Assignment, Control, Registered
from bus.names import DISPATCHERS_GROUP, PoolNames
from bus.states import TaskStatus
from dispatcher import ledger as ledger_module
from dispatcher.commit_call import CommitCall, Inputs, LedgerLimits
from dispatcher.core.decisions import (
    AgentChange,
    Answer,
    Instruct,
    Note,
    NoteKind,
    Place,
    TaskTransition,
)
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import ConflictError, FencedError, Ledger
from tests.dispatcher.ledger.conftest import NOTHING, NOW, Dump, change, decisions
from tests.dispatcher.ledger.passes import LIFE, agent, indexes, lose
from tests.support.tapped import Tapped, let_pass

# --- the fence


@pytest.mark.parametrize("token", ["", "1|other|nonce"])
async def test_without_the_lease_nothing_is_written(
    redis: Redis, names: PoolNames, ledger: Ledger, lead: Lead, dump: Dump, token: str
) -> None:
    await redis.delete(names.leader)
    if token:
        await redis.set(names.leader, token)
    await redis.xgroup_create(names.results, DISPATCHERS_GROUP, id="0", mkstream=True)
    entry: Any = await redis.xadd(names.results, {"__data__": "{}"})
    await redis.xreadgroup(DISPATCHERS_GROUP, "one", {names.results: ">"})
    before = await dump()
    with pytest.raises(FencedError):
        await ledger.commit(
            lead, decisions(change(names)), Inputs(acks={names.results: [entry.decode()]}, rejected=[b"x"]), NOW
        )
    assert await dump() == before


async def test_a_former_leader_is_refused_for_good(
    redis: Redis, names: PoolNames, ledger: Ledger, lead: Lead, dump: Dump
) -> None:
    await redis.delete(names.leader)
    successor = await Leadership(redis, names, "two").acquire()
    assert successor is not None
    await ledger.commit(successor, decisions(change(names, "a")), NOTHING, NOW)
    before = await dump()
    with pytest.raises(FencedError):
        await ledger.commit(lead, decisions(change(names, "b")), NOTHING, NOW)
    assert await dump() == before


# --- guards


async def test_a_task_that_is_not_as_remembered_stops_the_whole_commit(
    ledger: Ledger, names: PoolNames, lead: Lead, dump: Dump
) -> None:
    await ledger.commit(lead, decisions(change(names, "a")), NOTHING, NOW)
    before = await dump()
    wrong = change(names, "a", "RUNNING/1/x/s1", "COMPLETED/1//", Place.DONE, output=b"1")
    with pytest.raises(ConflictError, match="PENDING/0//"):
        await ledger.commit(lead, decisions(change(names, "b"), wrong), NOTHING, NOW)
    assert await dump() == before


async def test_a_task_without_a_record_stops_the_whole_commit(
    ledger: Ledger, names: PoolNames, lead: Lead, dump: Dump
) -> None:
    before = await dump()
    gone = change(names, "a", "PENDING/0//", "CANCELLED/0//", Place.DONE)
    with pytest.raises(ConflictError, match="no record"):
        await ledger.commit(lead, decisions(gone), NOTHING, NOW)
    assert await dump() == before


@pytest.mark.parametrize("steps", range(1, len(LIFE) + 1))
async def test_a_commit_whose_reply_was_lost_may_be_sent_again_and_changes_nothing(
    redis: Redis, names: PoolNames, lead: Lead, dump: Dump, steps: int
) -> None:
    tapped: Any = Tapped(redis)
    ledger = Ledger(tapped, names)
    for before, after, place, how in LIFE[:steps]:
        last = decisions(change(names, "a", before, after, place, **how))
        last.transitions.append(TaskTransition("x", TaskStatus.PENDING, 0, None, None, None, None))
        last.answers.append(Answer("x", "c1", b"{}"))
        last.instructions.append(Instruct("w", Control(Registered(session="s1"))))
        if last.changes[0].after != LIFE[steps - 1][1]:
            await ledger.commit(lead, last, NOTHING, NOW)
    tapped.after = lose
    with pytest.raises(RedisConnectionError):
        await ledger.commit(lead, last, NOTHING, NOW)
    once = await dump()
    with pytest.raises(RedisConnectionError):
        await ledger.commit(lead, last, NOTHING, NOW)
    tapped.after = let_pass
    assert await ledger.commit(lead, last, NOTHING, NOW) == []
    assert await dump() == once


async def test_a_call_whose_predecessor_was_not_made_is_refused(
    redis: Redis, names: PoolNames, lead: Lead, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a server that has come back without the last second of its data."""
    ledger = Ledger(redis, names)
    await ledger.commit(lead, decisions(change(names, "a")), NOTHING, NOW)
    await ledger.commit(lead, decisions(change(names, "b")), NOTHING, NOW)
    committed: Any = await redis.get(names.committed)
    await redis.set(names.committed, committed.replace(b"/2", b"/1"))
    before = await dump()
    with pytest.raises(ConflictError, match="/1, this one is 3"):
        await ledger.commit(lead, decisions(change(names, "c")), NOTHING, NOW)
    assert await dump() == before
    monkeypatch.setattr(ledger_module, "BATCH", 1)
    await redis.set(names.committed, "another/1")
    with pytest.raises(ConflictError):
        await ledger.commit(lead, decisions(change(names, "d"), change(names, "e")), NOTHING, NOW)
    assert await redis.exists(names.task(f"{names.pool}.d"), names.task(f"{names.pool}.e")) == 0


async def test_what_most_changes_are_is_stored_as_any_change_would_be(
    redis: Redis, names: PoolNames, lead: Lead, dump: Dump, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kinds that have a shorter form leave the same behind as the one that fits all."""
    seen: list[str] = []

    def kinds(args: tuple[Any, ...]) -> None:
        seen.append(args[3 + args[2] + 16])

    async def life() -> list[Any]:
        tapped: Any = Tapped(redis, before=kinds)
        ledger, stages = Ledger(tapped, names), []
        for local, steps in (("a", LIFE), ("b", SHORT_LIFE)):
            for before, after, place, how in steps:
                await ledger.commit(lead, decisions(change(names, local, before, after, place, **how)), NOTHING, NOW)
                stages.append(without_ids(await dump()))
        await redis.delete(
            *[key async for key in redis.scan_iter(f"{names.root}*") if key.decode() not in (names.leader, names.epoch)]
        )
        return stages

    short = await life()
    assert set(seen) == {"w", "a", "f", "g"}
    monkeypatch.setattr(CommitCall, "_add_task", CommitCall._add_general)
    seen.clear()
    assert await life() == short
    assert set(seen) == {"g"}


SHORT_LIFE: tuple[tuple[str, str, Place, dict[str, Any]], ...] = (
    ("", "ASSIGNED/1/w/s1", Place.ACTIVE, {"to": "w"}),
    ("ASSIGNED/1/w/s1", "RUNNING/1/w/s1", Place.ACTIVE, {"release": "w"}),
    ("RUNNING/1/w/s1", "COMPLETED/1//", Place.DONE, {"output": b"null"}),
)


def without_ids(everything: dict[str, Any]) -> dict[str, Any]:
    """Leave out what differs each time: the ids of entries, and the name of the chain."""
    return {
        key: [fields for _, fields in value[0]]
        if isinstance(value, tuple)
        else {name: item for name, item in value.items() if name != b"entry"}
        if isinstance(value, dict)
        else value
        for key, value in everything.items()
        if key != "committed"
    }


@pytest.mark.parametrize("others", [0, 1, 150])
async def test_of_a_task_that_is_to_be_new_and_exists_nothing_is_written_or_said_and_the_rest_is_stored(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead, others: int
) -> None:
    known = f"{names.pool}.a"
    await ledger.commit(lead, decisions(change(names, "a", after="FAILED/0//", place=Place.DEAD)), NOTHING, NOW)
    again = decisions(*(change(names, f"b{n}") for n in range(others)), change(names, "a"))
    again.instructions.append(Instruct("w", Control(Registered(session="s1"))))
    for one in again.changes:
        again.transitions.append(TaskTransition(one.task_id, TaskStatus.PENDING, 0, None, None, None, None))
        again.answers.append(Answer(one.task_id, "c1", to_json({"task_id": one.task_id})))
    assert await ledger.commit(lead, again, NOTHING, NOW) == [known]
    assert await redis.hget(names.task(known), "state") == b"FAILED/0//"
    assert await redis.zcard(names.pending) == others
    assert await redis.xlen(names.control("w")) == 1
    for stream, field in ((names.events, "tasks"), (names.replies("c1"), "outcomes")):
        said: Any = await redis.xrange(stream)
        ids = [item["task_id"] for _, fields in said for item in from_json(fields[b"__data__"])[field]]
        assert len(ids) == others
        assert known not in ids


# --- records, indexes, streams


async def test_a_life_leaves_the_right_index_and_the_right_entry_at_every_step(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    task_id, seen = f"{names.pool}.a", []
    for before, after, place, how in LIFE:
        await ledger.commit(lead, decisions(change(names, "a", before, after, place, **how)), NOTHING, NOW)
        entries = [await redis.xlen(names.assignments(agent)) for agent in ("w", "v")]
        seen.append((list(await indexes(redis, names)), entries))
        assert await redis.hget(names.task(task_id), "state") == after.encode()
    assert seen == [
        (["pending"], [0, 0]),
        (["leases"], [1, 0]),
        (["leases"], [0, 0]),
        (["delayed"], [0, 0]),
        (["leases"], [0, 1]),
        (["finished"], [0, 0]),
    ]


async def test_a_task_placed_in_the_pass_that_accepted_it_is_one_step(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    spec = b'{"capability":"c",  "payload": {"x":1.0, "k":"\xc3\xa4"}}'
    placed = change(names, "a", "", "ASSIGNED/1/w/s1", Place.ACTIVE, to="w", spec=spec)
    await ledger.commit(lead, decisions(placed), NOTHING, NOW)
    entries: Any = await redis.xrange(names.assignments("w"))
    [(entry, fields)] = entries
    assert spec in fields[b"__data__"], "the submission reaches the agent byte for byte"
    assignment = Assignment.model_validate_json(fields[b"__data__"])
    assert (assignment.task_id, assignment.attempt, assignment.session) == (placed.task_id, 1, "s1")
    assert (assignment.score, assignment.task.payload) == (7, {"x": 1.0, "k": "ä"})
    record: Any = await redis.hgetall(names.task(placed.task_id))
    assert record[b"spec"] == spec
    assert record[b"entry"] == entry
    assert await indexes(redis, names) == {"leases": [placed.task_id]}


@pytest.mark.parametrize(
    ("place", "after", "index"),
    [
        (Place.WAITING, "PENDING/0//", ["pending"]),
        (Place.DELAYED, "PENDING/0//", ["delayed"]),
        (Place.ACTIVE, "ASSIGNED/1/w/s1", ["leases"]),
        (Place.DONE, "CANCELLED/0//", ["finished"]),
        (Place.DEAD, "FAILED/0//", ["finished", "dead"]),
    ],
)
async def test_each_place_is_its_index_with_its_score(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead, place: Place, after: str, index: list[str]
) -> None:
    await ledger.commit(lead, decisions(change(names, "a", "", after, place, score=-42)), NOTHING, NOW)
    assert list(await indexes(redis, names)) == index
    assert await redis.zscore(getattr(names, index[0]), f"{names.pool}.a") == -42


async def test_only_finished_tasks_expire_after_their_retention(redis: Redis, names: PoolNames, lead: Lead) -> None:
    ledger = Ledger(redis, names, LedgerLimits(retention_ms=50_000))
    await ledger.commit(
        lead, decisions(change(names, "a"), change(names, "b", after="FAILED/0//", place=Place.DEAD)), NOTHING, NOW
    )
    assert await redis.pttl(names.task(f"{names.pool}.a")) == -1
    assert 40_000 < await redis.pttl(names.task(f"{names.pool}.b")) <= 50_000
    for before, after, place, how in LIFE:
        assert await redis.pttl(names.task(f"{names.pool}.c")) < 0
        await ledger.commit(lead, decisions(change(names, "c", before, after, place, **how)), NOTHING, NOW)
    assert 40_000 < await redis.pttl(names.task(f"{names.pool}.c")) <= 50_000
    assert await ledger.prune(NOW) == 2
    assert list(await indexes(redis, names)) == ["pending"]


async def test_every_key_that_is_touched_is_declared(redis: Redis, names: PoolNames, lead: Lead) -> None:
    """A slot that migrates in a cluster kills a script at its first undeclared key, maybe after its first write."""
    declared: set[str] = set()
    tapped: Any = Tapped(redis, before=lambda args: declared.update(args[3 : 3 + args[2]]))
    ledger = Ledger(tapped, names)
    await redis.xgroup_create(names.results, DISPATCHERS_GROUP, id="0", mkstream=True)
    for before, after, place, how in LIFE:
        full = decisions(change(names, "a", before, after, place, **how))
        full.answers.append(Answer("x", "c1", b"{}"))
        full.instructions.append(Instruct("w", Control(Registered(session="s1"))))
        full.transitions.append(TaskTransition("x", TaskStatus.PENDING, 0, None, None, None, None))
        full.agents.append(AgentChange("v", agent("v")))
        full.notes.append(Note(NoteKind.TOMBSTONE, "x", b"{}"))
        await ledger.commit(lead, full, Inputs(acks={names.results: ["1-1"]}, rejected=[b"x"]), NOW)
    touched = {raw.decode() async for raw in redis.scan_iter(f"{names.root}*")} - {names.epoch}
    assert touched <= declared


async def test_an_emptied_script_cache_is_filled_again(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    for local in ("a", "b"):
        await redis.script_flush()
        await ledger.commit(lead, decisions(change(names, local)), NOTHING, NOW)
    assert await redis.zcard(names.pending) == 2
