"""From messages to the pieces of work that passes are made of."""

from typing import Any

from pydantic_core import from_json

from bus.ids import check_pool
from bus.messages import (
    CancelTasks,
    CapabilitySpec,
    Explain,
    HandBack,
    Heartbeat,
    PurgeDead,
    Register,
    Report,
    Reprioritise,
    RequeueDead,
    TaskHeader,
    TaskResult,
    TaskUpdate,
    WatchTasks,
)
from bus.names import PoolNames
from bus.states import TaskPriority, TaskStatus
from dispatcher.core.events import Beat, Commanded, Event, Refused, Reported, SignedIn, Submitted
from dispatcher.decoding import Batch, decode
from dispatcher.inbox import PASS_SIZE, Arrival
from dispatcher.pool import topics
from dispatcher.translate import ITEMS_PER_PIECE, ITEMS_PER_SIGNING, arrival_of, pieces

POOL = check_pool("p")
TOPICS = {topic.name: topic for topic in topics(PoolNames(POOL))}
IDS = tuple(f"p.t{n}" for n in range(120))


def arrived(topic: str, *bodies: bytes | str, culprits: dict[str, str] | None = None) -> Arrival:
    entries = [{b"__data__": body.encode() if isinstance(body, str) else body} for body in bodies]
    batch: Batch[Any] = decode(TOPICS[topic], [b"%d-0" % n for n in range(len(entries))], entries)
    return arrival_of(POOL, batch, culprits or {})


def events(arrival: Arrival) -> list[Event | None]:
    return [piece.event for piece in arrival.pieces]


def test_a_command_of_many_tasks_is_taken_in_parts() -> None:
    for command in (
        CancelTasks(task_ids=IDS, reason="r", by="b"),
        WatchTasks(task_ids=IDS, reply_to="c"),
        Reprioritise(task_ids=IDS, priority=TaskPriority.LOW),
        RequeueDead(task_ids=IDS, reply_to="c"),
        PurgeDead(task_ids=IDS, reply_to="c"),
    ):
        arrival = arrived("commands", command.model_dump_json())
        assert [piece.weight for piece in arrival.pieces] == [50, 50, 20]
        assert [piece.last for piece in arrival.pieces] == [False, False, True]
        told: list[str] = []
        for event in events(arrival):
            assert isinstance(event, Commanded)
            assert isinstance(event.command, CancelTasks | WatchTasks | Reprioritise | RequeueDead | PurgeDead)
            told += event.command.task_ids
            assert event.command.model_copy(update={"task_ids": IDS}) == command
        assert tuple(told) == IDS


def test_a_report_on_many_tasks_is_taken_in_parts_and_in_its_order() -> None:
    report = Report(
        agent_id="a",
        session="s",
        updates=tuple(TaskUpdate(task_id=one, attempt=1) for one in IDS),
        results=tuple(TaskResult(task_id=one, attempt=1, status=TaskStatus.FAILED) for one in IDS),
        returned=tuple(HandBack(task_id=one, attempt=1) for one in IDS),
    )
    arrival = arrived("results", report.model_dump_json())
    parts = [event.message for event in events(arrival) if isinstance(event, Reported)]
    assert sum((part.updates for part in parts), ()) == report.updates
    assert sum((part.results for part in parts), ()) == report.results
    assert sum((part.returned for part in parts), ()) == report.returned
    kinds = [[kind for kind in ("updates", "results", "returned") if getattr(part, kind)] for part in parts]
    assert kinds == sorted(kinds, key=[["updates"], ["results"], ["returned"]].index)
    assert all(piece.weight == ITEMS_PER_PIECE for piece in arrival.pieces)
    assert [piece.last for piece in arrival.pieces].count(True) == 1
    assert arrival.pieces[-1].last


def test_what_is_large_weighs_more() -> None:
    small, large = arrived(
        "tasks:low", '{"capability":"c"}', '{"capability":"c","payload":"%s"}' % ("x" * 80_000)
    ).pieces
    assert (small.weight, large.weight) == (1, 10)
    busy = Heartbeat(agent_id="a", session="s", holding=tuple((one, 1) for one in IDS))
    assert arrived("heartbeats", busy.model_dump_json()).pieces[0].weight > 1


def test_of_a_backlog_of_heartbeats_each_sessions_last_is_taken_and_all_are_consumed() -> None:
    beats = [Heartbeat(agent_id=f"a{n % 2}", session=f"s{n % 4}", seq=n) for n in range(40)]
    arrival = arrived("heartbeats", *(beat.model_dump_json() for beat in beats))
    assert [e.message.seq for e in events(arrival) if isinstance(e, Beat)] == [36, 37, 38, 39]
    assert [piece.entry_id for piece in arrival.pieces if piece.last] == [f"{n}-0" for n in range(40)]


def test_a_submission_that_names_itself_is_refused_however_deep_its_payload_is() -> None:
    body = b'{"id":"p.deep","capability":"c","reply_to":"me","payload":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    [piece] = arrived("tasks:low", body).pieces
    assert isinstance(piece.event, Refused)
    assert (piece.event.task_id, piece.event.reply_to) == ("p.deep", "me")
    assert len(piece.rejected) == 1


def test_a_submission_that_is_nothing_but_brackets_is_rejected() -> None:
    [piece] = arrived("tasks:low", b"[" * 100_000).pieces
    assert piece.event is None
    assert "recursion" in from_json(piece.rejected[0])["reason"]


def test_the_bad_part_of_a_report_is_rejected_and_the_rest_is_taken() -> None:
    body = (
        b'{"agent_id":"a","session":"s","results":[{"task_id":"p.a","attempt":1,"status":"COMPLETED"},'
        b'{"task_id":"p.b","attempt":1,"status":"?"}]}'
    )
    [piece] = arrived("results", body).pieces
    assert isinstance(piece.event, Reported)
    assert [r.status for r in piece.event.message.results] == [TaskStatus.COMPLETED, TaskStatus.FAILED]
    [rejected] = [from_json(one) for one in piece.rejected]
    assert rejected["entry_id"] == "0-0"
    assert "p.b" in rejected["raw"]
    assert "p.a" not in rejected["raw"]


def test_an_entry_that_is_known_as_a_culprit_goes_to_rejected_and_its_neighbours_are_taken() -> None:
    arrival = arrived("tasks:low", '{"capability":"c"}', '{"capability":"d"}', culprits={"0-0": "it fails"})
    guilty, innocent = arrival.pieces
    assert guilty.event is None
    assert from_json(guilty.rejected[0])["reason"] == "it fails"
    assert isinstance(innocent.event, Submitted)
    assert innocent.event.header == TaskHeader(capability="d")


def test_agents_that_sign_in_together_do_so_in_several_passes() -> None:
    """Each is matched with every kind of requirement that waits: 500 in a pass would outlast the leader's lease."""
    signed = SignedIn(Register(agent_id="a", session="s", capabilities=(CapabilitySpec(name="do"),)), 0)
    ((_, weight),) = pieces(signed, 100)
    assert weight == ITEMS_PER_SIGNING


def test_a_question_is_answered_in_a_pass_of_its_own() -> None:
    """It looks at every agent, for 20 ms and more in a large fleet."""
    asked = Explain(task_id="default.a", reply_to="c")
    ((_, weight),) = pieces(Commanded(asked, 0), 100)
    assert weight == PASS_SIZE
