"""What a commit stores beside tasks, and says: agents, notes, markers, answers, events; and the bounds of all that."""

from dataclasses import replace
from typing import Any

import pytest
from pydantic_core import from_json, to_json
from redis.asyncio import Redis

from bus.ids import is_keyed, keyed_task_id, new_task_id
from bus.messages import Assignment, CancelAttempt, Control, EventBatch, Instruction, Registered, Reply
from bus.names import PoolNames
from bus.records import AgentRecord
from bus.states import TaskStatus
from dispatcher.commit_call import Inputs, LedgerLimits
from dispatcher.core.decisions import (
    AgentChange,
    Answer,
    Decisions,
    Instruct,
    Note,
    NoteKind,
    Place,
    TaskTransition,
)
from dispatcher.leadership import Lead
from dispatcher.ledger import Ledger
from dispatcher.loading import load_notes
from tests.dispatcher.ledger.conftest import NOTHING, NOW, change, decisions
from tests.dispatcher.ledger.passes import agent, eventful
from tests.support.tapped import DiedError, Life, Tapped


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
