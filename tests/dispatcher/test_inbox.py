"""What one pass takes of what has arrived: so much and no more, of every topic something, of a large entry a part."""

import asyncio

import pytest

from dispatcher.core.events import Duplicate
from dispatcher.inbox import PASS_SIZE, Arrival, Inbox, Portion

TOPICS = ("results", "heartbeats", "registrations", "commands", "urgent", "high", "medium", "low")


def arrival(topic: str, entries: int, *, parts: int = 1, weight: int = 1) -> Arrival:
    found = Arrival(topic)
    for n in range(entries):
        found.add(f"{topic}-{n}", [(Duplicate(f"{topic}-{n}.{part}"), weight) for part in range(parts)])
    return found


def weight_of(portions: list[Portion]) -> int:
    return sum(piece.weight for portion in portions for piece in portion.pieces)


async def test_a_pass_is_bounded_by_items_whatever_they_came_in() -> None:
    inbox = Inbox(TOPICS)
    for topic in TOPICS:
        await inbox.put(arrival(topic, 100, parts=20, weight=50))
    taken = []
    while portions := inbox.take():
        assert weight_of(portions) <= PASS_SIZE + len(TOPICS) * 50
        taken += [piece.event for portion in portions for piece in portion.pieces]
    assert len(taken) == len(TOPICS) * 100 * 20


async def test_an_entry_is_consumed_with_its_last_part() -> None:
    inbox = Inbox(("commands",), pass_size=100)
    await inbox.put(arrival("commands", 2, parts=5, weight=40))
    passes = [inbox.take()[0] for _ in range(4)]
    assert [len(portion.pieces) for portion in passes] == [3, 3, 3, 1]
    assert [portion.consumed for portion in passes] == [[], ["commands-0"], [], ["commands-1"]]
    told = [piece.event for portion in passes for piece in portion.pieces]
    assert told == [Duplicate(f"commands-{n}.{part}") for n in range(2) for part in range(5)]


async def test_a_backlog_without_end_of_one_topic_keeps_none_of_the_others_waiting() -> None:
    inbox = Inbox(TOPICS)
    await inbox.put(arrival("commands", 10))
    await inbox.put(arrival("low", 40))
    for topic in ("results", "heartbeats"):
        await inbox.put(arrival(topic, 5_000))
    consumed: list[str] = []
    for _ in range(2):
        portions = inbox.take()
        assert [portion.stream for portion in portions] == [t for t in TOPICS if t in {p.stream for p in portions}]
        consumed += [e for p in portions if p.stream in ("commands", "low") for e in p.consumed]
    assert consumed == [*(f"commands-{n}" for n in range(10)), *(f"low-{n}" for n in range(40))]


async def test_half_of_a_pass_is_shared_by_the_topics_that_have_something_and_the_rest_goes_to_the_first() -> None:
    inbox = Inbox(TOPICS)
    await inbox.put(arrival("urgent", 450))
    await inbox.put(arrival("low", 450))
    sizes = {portion.stream: len(portion.pieces) for portion in inbox.take()}
    assert sizes == {"urgent": 3 * PASS_SIZE // 4, "low": PASS_SIZE // 4}


async def test_a_topic_whose_queue_is_full_keeps_its_reader_waiting_and_no_other() -> None:
    inbox = Inbox(TOPICS)
    await inbox.put(arrival("results", PASS_SIZE))
    waiting = asyncio.create_task(inbox.put(arrival("results", 1)))
    await inbox.put(arrival("commands", 1))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.shield(waiting), 0.01)
    inbox.take()
    await waiting
