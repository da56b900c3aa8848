"""The commit script on a real server: each guard, each place, each section of its arguments."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json, to_json
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bus.ids import is_keyed, keyed_task_id, new_task_id
from bus.messages import Assignment, CancelAttempt, Control, EventBatch, Instruction, Registered, Reply
from bus.names import DISPATCHERS_GROUP, PoolNames
from bus.records import AgentRecord
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher import ledger as ledger_module
from dispatcher.commit_call import CommitCall, Inputs, LedgerLimits
from dispatcher.core.decisions import (
    AgentChange,
    AgentTransition,
    Answer,
    Decisions,
    Instruct,
    Note,
    NoteKind,
    Place,
    TaskTransition,
)
from dispatcher.leadership import Lead, Leadership
from dispatcher.ledger import ConflictError, FencedError, Ledger
from dispatcher.loading import load_notes
from tests.dispatcher.ledger.conftest import NOTHING, NOW, Dump, change, contents, decisions
from tests.support.tapped import DiedError, Life, Tapped, let_pass

INDEXES = ("pending", "delayed", "leases", "finished", "dead")


def agent(agent_id: str) -> AgentRecord:
    """Return the record of an agent."""
    return AgentRecord(
        agent_id=agent_id,
        session="s1",
        status=AgentStatus.IDLE,
        health=AgentHealth.HEALTHY,
        slots=4,
        capabilities=(),
        registered_at=NOW,
    )


async def indexes(redis: Redis, names: PoolNames) -> dict[str, list[str]]:
    """Return the tasks in each index that has any."""
    found = {}
    for name in INDEXES:
        ids: Any = await redis.zrange(getattr(names, name), 0, -1)
        if ids:
            found[name] = [raw.decode() for raw in ids]
    return found


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


LIFE: tuple[tuple[str, str, Place, dict[str, Any]], ...] = (
    ("", "PENDING/0//", Place.WAITING, {}),
    ("PENDING/0//", "ASSIGNED/1/w/s1", Place.ACTIVE, {"to": "w"}),
    ("ASSIGNED/1/w/s1", "RUNNING/1/w/s1", Place.ACTIVE, {"release": "w"}),
    ("RUNNING/1/w/s1", "PENDING/1//", Place.DELAYED, {}),
    ("PENDING/1//", "ASSIGNED/2/v/s1", Place.ACTIVE, {"to": "v"}),
    ("ASSIGNED/2/v/s1", "COMPLETED/2//", Place.DONE, {"release": "v", "output": b'{"n": 1.50}'}),
)


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


def lose(_args: tuple[Any, ...]) -> None:
    """Lose a reply."""
    raise RedisConnectionError("the reply is lost")


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


# --- a leader that dies between two calls of one pass


def eventful(names: PoolNames, number: int) -> Decisions:
    """Return a pass that frees an agent's tasks, stores the agent as lost, and says all that can be said."""
    said = decisions(*(change(names, f"t{n}", after="CANCELLED/0//", place=Place.DONE) for n in range(number)))
    for one in said.changes:
        said.transitions.append(TaskTransition(one.task_id, TaskStatus.CANCELLED, 0, None, None, None, None))
        said.answers.append(Answer(one.task_id, "c1", to_json({"task_id": one.task_id})))
    said.answers.append(Answer(f"{names.pool}.elsewhere", "c1", to_json({"task_id": f"{names.pool}.elsewhere"})))
    said.agents.append(AgentChange("w", agent("w")))
    said.agent_transitions.append(AgentTransition("w", AgentStatus.ERROR, AgentHealth.LOST, None))
    said.instructions.append(Instruct("w", Control(Registered(session="s1"))))
    said.notes.append(Note(NoteKind.TOMBSTONE, f"{names.pool}.x", b"{}"))
    return said


async def said_of(redis: Redis, stream: str, field: str) -> list[str]:
    """Return the ids of the tasks that the entries of a stream speak of."""
    entries: Any = await redis.xrange(stream)
    return [item["task_id"] for _, fields in entries for item in from_json(fields[b"__data__"])[field]]


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


# --- messages, agents, events


async def test_what_a_pass_says_is_written_once_to_whom_it_concerns(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    said = Decisions(
        changes=[change(names, "a", after="CANCELLED/0//", place=Place.DONE)],
        instructions=[Instruct("w", Control(Registered(session="s1")))],
        answers=[
            Answer("x", "c1", b'{"task_id":"x"}'),
            Answer("x", "c2", b'{"task_id":"x"}'),
            Answer("y", "c1", b'{"task_id":"y"}'),
        ],
        transitions=[TaskTransition("x", TaskStatus.CANCELLED, 0, None, "why", None, None)],
    )
    await ledger.commit(lead, said, Inputs(rejected=[b'{"reason":"bad"}']), NOW)
    control: Any = await redis.xrange(names.control("w"))
    assert Control.model_validate_json(control[0][1][b"__data__"]).root == Registered(session="s1")
    assert await redis.pttl(names.control("w")) > 0
    replies: Any = await redis.xrange(names.replies("c1"))
    assert from_json(replies[0][1][b"__data__"]) == {"v": 1, "outcomes": [{"task_id": "x"}, {"task_id": "y"}]}
    assert await redis.pttl(names.replies("c1")) > 0
    assert await redis.xlen(names.replies("c2")) == 1
    assert await redis.xlen(names.rejected) == 1
    events: Any = await redis.xrange(names.events)
    batch = EventBatch.model_validate_json(events[0][1][b"__data__"])
    assert (batch.at, batch.epoch) == (NOW, lead.epoch)
    assert [(t.task_id, t.status, t.reason) for t in batch.tasks] == [("x", TaskStatus.CANCELLED, "why")]


async def test_an_agent_is_remembered_and_forgotten(redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead) -> None:
    record = agent("w")
    await ledger.commit(lead, Decisions(agents=[AgentChange("w", record)]), NOTHING, NOW)
    raw: Any = await redis.hget(names.agent("w"), "record")
    assert AgentRecord.model_validate_json(raw) == record
    assert await redis.zscore(names.agents, "w") == NOW
    await ledger.commit(lead, Decisions(agents=[AgentChange("w", None)]), NOTHING, NOW)
    assert await redis.exists(names.agent("w"), names.agents) == 0


async def test_a_forgotten_agents_streams_go_with_it_and_they_expire_otherwise(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    given = decisions(change(names, "a", "", "ASSIGNED/1/w/s1", Place.ACTIVE, to="w"))
    given.agents.append(AgentChange("w", agent("w")))
    given.instructions.append(Instruct("w", Control(Registered(session="s1"))))
    await ledger.commit(lead, given, NOTHING, NOW)
    week = 7 * 24 * 3_600_000
    assert week - 60_000 < await redis.pttl(names.assignments("w")) <= week
    assert await redis.pttl(names.control("w")) > 0
    await redis.pexpire(names.assignments("w"), 60_000)
    await ledger.commit(lead, decisions(change(names, "b", "", "ASSIGNED/1/w/s1", Place.ACTIVE, to="w")), NOTHING, NOW)
    assert await redis.pttl(names.assignments("w")) > 60_000, "each assignment counts anew"
    await ledger.commit(lead, Decisions(agents=[AgentChange("w", None)]), NOTHING, NOW)
    assert await redis.exists(names.agent("w"), names.agents, names.assignments("w"), names.control("w")) == 0


async def test_notes_are_kept_and_forgotten_and_found_by_the_next_leader(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    notes = [Note(NoteKind.TOMBSTONE, f"{names.pool}.{n}", b'{"n":%d}' % n) for n in range(3)]
    await ledger.commit(lead, Decisions(notes=notes), NOTHING, NOW)
    assert sorted(await load_notes(redis, names), key=lambda note: note.field) == notes
    await ledger.commit(lead, Decisions(notes=[replace(notes[1], value=None)]), NOTHING, NOW)
    assert {note.field for note in await load_notes(redis, names)} == {notes[0].field, notes[2].field}


async def test_the_marker_of_a_keyed_task_goes_when_the_task_is_accepted_and_no_other(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    keyed, unkeyed = keyed_task_id(names.pool, "order-7"), new_task_id(names.pool)
    assert (is_keyed(keyed), is_keyed(unkeyed)) == (True, False)
    for task_id in (keyed, unkeyed):
        await redis.set(names.submitted(task_id), "1")
    await ledger.commit(
        lead, decisions(*(change(names, task_id.partition(".")[2]) for task_id in (keyed, unkeyed))), NOTHING, NOW
    )
    assert [await redis.exists(names.submitted(task_id)) for task_id in (keyed, unkeyed)] == [0, 1]


async def test_events_are_dropped_by_age(redis: Redis, names: PoolNames, lead: Lead) -> None:
    ledger = Ledger(redis, names, LedgerLimits(events_retention_ms=60_000))
    seconds, _ = await redis.time()
    for n in range(300):  # whole nodes of about a hundred entries are dropped
        await redis.xadd(names.events, {"__data__": "{}"}, id=f"{(seconds - 3600) * 1000 + n}-0")
    await ledger.commit(lead, eventful(names, 1), NOTHING, NOW)
    assert await redis.xlen(names.events) < 150
    await ledger.prune(seconds * 1000 + 3_600_000)
    assert await redis.xlen(names.events) == 0


async def test_an_instruction_is_never_pushed_out_by_the_commit_that_writes_it(
    redis: Redis, names: PoolNames, lead: Lead
) -> None:
    ledger = Ledger(redis, names, LedgerLimits(control_cap=10))
    drain = Instruct("w", Control(Instruction(type="drain", session="s1")))
    cancels = [
        Instruct("w", Control(CancelAttempt(session="s1", task_id=f"{names.pool}.t{n}", attempt=1)))
        for n in range(1500)
    ]
    await ledger.commit(lead, Decisions(instructions=[drain, *cancels]), NOTHING, NOW)
    entries: Any = await redis.xrange(names.control("w"))
    assert len(entries) == 1501
    assert b"drain" in entries[0][1][b"__data__"]


async def test_a_large_output_is_not_repeated_in_the_reply(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    small, large = to_json("s" * 100), to_json("l" * 20_000)
    outputs = (("small", small), ("large", large))
    running = "RUNNING/1/w/s1"
    began = (change(names, local, after=running, place=Place.ACTIVE) for local, _ in outputs)
    await ledger.commit(lead, decisions(*began), NOTHING, NOW)
    said = decisions(
        *(change(names, local, running, "COMPLETED/1//", Place.DONE, output=output) for local, output in outputs)
    )
    for one in said.changes:
        outcome = b'{"task_id":"%b","status":"COMPLETED","output":%b}' % (one.task_id.encode(), one.output or b"")
        said.answers.append(Answer(one.task_id, "c1", outcome))
    await ledger.commit(lead, said, NOTHING, NOW)
    entries: Any = await redis.xrange(names.replies("c1"))
    first, second = Reply.model_validate_json(entries[0][1][b"__data__"]).outcomes
    assert (first.output, first.output_in_ledger) == ("s" * 100, False)
    assert (second.output, second.output_in_ledger) == (None, True)
    assert await redis.hget(names.task(f"{names.pool}.large"), "result") == large


async def test_the_replies_to_a_client_that_does_not_read_are_bounded_in_bytes(
    redis: Redis, names: PoolNames, lead: Lead
) -> None:
    ledger = Ledger(redis, names, LedgerLimits(replies_bytes=200_000))
    outcome = b'{"task_id":"x","status":"COMPLETED","output":"%b"}' % (b"x" * 15_000)
    for _ in range(4):
        answers = [Answer("x", "c1", outcome) for _ in range(100)]
        await ledger.commit(lead, Decisions(answers=answers), NOTHING, NOW)
    entries: Any = await redis.xrange(names.replies("c1"))
    assert 0 < sum(len(fields[b"__data__"]) for _, fields in entries) < 600_000


async def test_the_matched_version_is_told_to_the_agent(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    placed = change(names, "a", "", "ASSIGNED/1/w/s1", Place.ACTIVE, to="w")
    assert placed.handover is not None
    placed.handover.version = '2.0"'
    await ledger.commit(lead, decisions(placed), NOTHING, NOW)
    entries: Any = await redis.xrange(names.assignments("w"))
    assert Assignment.model_validate_json(entries[0][1][b"__data__"]).version == '2.0"'


async def test_the_events_and_the_rejected_are_capped(redis: Redis, names: PoolNames, lead: Lead) -> None:
    ledger = Ledger(redis, names, LedgerLimits(events_cap=10, rejected_cap=10))
    for n in range(400):
        pass_ = decisions()
        pass_.transitions.append(TaskTransition(f"t{n}", TaskStatus.PENDING, 0, None, None, None, None))
        await ledger.commit(lead, pass_, Inputs(rejected=[b"x"]), NOW)
    assert await redis.xlen(names.events) < 300
    assert await redis.xlen(names.rejected) < 300


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


async def test_rates_are_stored_with_the_first_tasks_that_used_them(redis: Redis, names: PoolNames, lead: Lead) -> None:
    tapped: Any = Tapped(redis, before=Life(1))
    made = decisions(*(change(names, f"t{n}") for n in range(150)))
    made.notes += [Note(NoteKind.RATE, "openai", b"42.0"), Note(NoteKind.BREAKER, "a do", b"{}")]
    with pytest.raises(DiedError):
        await Ledger(tapped, names).commit(lead, made, NOTHING, NOW)
    assert await redis.zcard(names.pending) == 100
    assert [(note.kind, note.field) for note in await load_notes(redis, names)] == [(NoteKind.RATE, "openai")]


async def test_the_list_of_children_of_a_task_that_is_given_a_new_life_is_kept(
    redis: Redis, ledger: Ledger, names: PoolNames, lead: Lead
) -> None:
    children = names.children(f"{names.pool}.a")
    await redis.zadd(children, {"child": 1})
    await ledger.commit(lead, decisions(change(names, after="FAILED/1//", place=Place.DEAD)), NOTHING, NOW)
    await redis.pexpire(children, 1_000)
    again = replace(change(names, before="FAILED/1//", after="PENDING/1//"), last_of_kin=True)
    await ledger.commit(lead, decisions(again), NOTHING, NOW)
    assert await redis.pttl(children) == -1
    over = replace(change(names, before="PENDING/1//", after="FAILED/1//", place=Place.DEAD), last_of_kin=True)
    await ledger.commit(lead, decisions(over), NOTHING, NOW)
    assert await redis.pttl(children) > 0
