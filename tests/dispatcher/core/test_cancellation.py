"""Cancelling as a protocol that is seen: requested, delivered, acknowledged, finished or given up; why and by whom."""

from typing import Any

import pytest
from pydantic_core import from_json

from bus.records import Cancellation, CancelOutcome, Run
from bus.states import TaskStatus
from dispatcher.core.decisions import Decisions
from tests.dispatcher.core.world import World, placed, stops, task_id

GRACE_S = 5


def running(**fields: Any) -> World:
    world = World(seed=1)
    world.step(world.sign_in(slots=2, lease=600), world.task(**fields))
    world.step(world.started(1))
    return world


def record(decisions: Decisions) -> Cancellation:
    """Return what the ledger is to have of the cancel of the only task that changes."""
    (change,) = decisions.changes
    found = Run.model_validate_json(change.run).cancellation
    assert found is not None
    return found


def outcome(decisions: Decisions) -> dict[str, object]:
    (answer,) = decisions.answers
    said: dict[str, object] = from_json(answer.outcome)
    return said


def test_each_step_is_in_the_record_and_told() -> None:
    world = running(reply_to="me")
    asked = world.step(world.cancel(1, reason="no need", by="alice"), after=10)
    requested = record(asked)
    assert (requested.reason, requested.by, requested.requested_at) == ("no need", "alice", world.now)
    assert stops(asked) == [("a", task_id(1), 1)]
    assert world.status(1) is TaskStatus.RUNNING
    assert asked.transitions[0].reason == "cancel requested by alice: no need"

    world.pass_time(3)
    delivered = world.step(world.started(1, cancel="delivered"))
    assert (record(delivered).delivered_at, record(delivered).acknowledged_at) == (world.now, None)
    assert delivered.transitions[0].reason == "cancel delivered"
    world.pass_time(4)
    acknowledged = world.step(world.started(1, cancel="acknowledged"))
    assert (record(acknowledged).delivered_at, record(acknowledged).acknowledged_at) == (world.now - 4, world.now)

    ended = world.step(world.stopped(1), after=5)
    assert (world.status(1), record(ended).outcome) == (TaskStatus.CANCELLED, CancelOutcome.FINISHED)
    assert outcome(ended) | {"error": None} == {
        "task_id": task_id(1),
        "status": "CANCELLED",
        "attempt": 1,
        "agent_id": "a",
        "reason": "no need",
        "by": "alice",
        "given_up": False,
        "error": None,
    }


@pytest.mark.parametrize("delay", [0, 60])
def test_what_no_agent_has_is_cancelled_at_once(delay: int) -> None:
    world = World()
    world.step(world.task(delay=delay))
    ended = world.step(world.cancel(1, reason="no need", by="alice"))
    assert world.status(1) is TaskStatus.CANCELLED
    assert (record(ended).by, record(ended).outcome) == ("alice", CancelOutcome.FINISHED)


def test_an_early_cancel_says_who_and_why() -> None:
    world = World()
    world.step(world.cancel(1, reason="early", by="alice"))
    ended = world.step(world.task(number=1))
    assert (record(ended).reason, record(ended).by) == ("early", "alice")


def test_what_does_not_stop_within_the_grace_is_given_up_and_fenced_off() -> None:
    world = running(reply_to="me")
    world.step(world.cancel(1))
    world.horizon(after=GRACE_S * 1000)
    assert world.status(1) is TaskStatus.RUNNING, "the agent's own word is waited for a little longer"
    late = world.ended(1)
    ended = world.horizon(after=1_001)
    assert world.status(1) is TaskStatus.CANCELLED
    assert (record(ended).outcome, outcome(ended)["given_up"]) == (CancelOutcome.GIVEN_UP, True)
    assert ended.cancels == ["given_up"]
    assert world.step(late).stale == ["result"]


def test_an_agent_that_gives_up_itself_says_so() -> None:
    world = running()
    world.step(world.cancel(1))
    assert record(world.step(world.stopped(1, abandoned=True))).outcome is CancelOutcome.GIVEN_UP


def test_the_grace_is_over_only_when_all_reports_are_read() -> None:
    world = running()
    world.step(world.cancel(1))
    world.pass_time(5_500)
    stopped = world.stopped(1)
    world.step(after=60_000)
    assert world.status(1) is TaskStatus.RUNNING
    world.step(stopped)
    assert world.scheduler.board.tasks == {}


def test_a_result_that_was_on_its_way_counts_and_the_cancel_came_too_late() -> None:
    world = running()
    world.step(world.cancel(1))
    ended = world.step(world.ended(1))
    assert (world.status(1), record(ended).outcome) == (TaskStatus.COMPLETED, CancelOutcome.TOO_LATE)


@pytest.mark.parametrize("end", ["failed", "returned", "lost", "timeout", "session", "gone"])
def test_a_cancelled_task_is_never_tried_again(end: str) -> None:
    world = World()
    world.step(world.sign_in(lease=5), world.task(max_attempts=9, run_timeout=1))
    if end != "returned":
        world.step(world.started(1))
    world.step(world.cancel(1, grace=600))
    match end:
        case "failed":
            world.step(world.failed(1))
        case "returned":
            world.step(world.returned(1))
        case "lost":
            world.horizon(after=5_001)
        case "timeout":
            world.step(world.beat(), after=4_000)
            world.horizon(after=2_500)
        case "session":
            world.step(world.sign_in(session="a2"))
            world.horizon(after=10)
        case _:
            world.step(world.sign_out())
            world.horizon(after=10)
    assert world.status(1) is TaskStatus.CANCELLED
    world.step(world.sign_in("b"), after=600_000)
    assert world.status(1) is TaskStatus.CANCELLED


def test_of_a_lost_agent_nobody_knows_whether_it_stopped() -> None:
    world = World()
    world.step(world.sign_in(lease=5), world.task())
    world.step(world.started(1))
    world.step(world.cancel(1, grace=60))
    decisions = world.horizon(after=5_001)
    (change,) = decisions.changes
    said = Run.model_validate_json(change.run).cancellation
    assert said is not None
    assert said.outcome is CancelOutcome.GIVEN_UP


def test_the_first_who_asks_counts_and_a_later_one_may_only_shorten_the_grace() -> None:
    world = running()
    world.step(world.cancel(1, reason="first", by="alice", grace=30))
    assert stops(world.step(world.cancel(1, reason="second", by="bob", grace=60))) == []
    shortened = world.step(world.cancel(1, by="carol", grace=1))
    assert (record(shortened).by, record(shortened).grace_ms, len(stops(shortened))) == ("alice", 1_000, 1)
    world.horizon(after=2_001)
    assert world.status(1) is TaskStatus.CANCELLED


def test_an_agent_that_was_not_told_is_told_again_by_its_heartbeats() -> None:
    world = running()
    world.step(world.cancel(1))
    world.pass_time(500)
    assert stops(world.step(world.beat())) == [], "it may be on its way"
    world.pass_time(600)
    assert stops(world.step(world.beat())) == [("a", task_id(1), 1)]
    world.step(world.started(1, cancel="delivered"))
    world.pass_time(1_000)
    assert stops(world.step(world.beat())) == []


def test_a_recall_that_is_answered_first_ends_it_too() -> None:
    world = World(prefetch_ms=0)
    world.step(world.sign_in(), world.task(), world.task())
    world.step(world.cancel(1))
    ended = world.step(world.returned(1))
    assert world.status(1) is TaskStatus.CANCELLED
    assert placed(ended) == [(2, "a")]


def test_the_slot_is_free_when_it_has_ended_and_not_before() -> None:
    world = World(prefetch_ms=0)
    world.step(world.sign_in(), world.task(), world.task())
    world.step(world.started(1))
    assert placed(world.step(world.cancel(1))) == []
    assert placed(world.step(world.stopped(1))) == [(2, "a")]


def test_it_is_explained_how_far_it_is() -> None:
    world = running()
    world.step(world.cancel(1, reason="no need", by="alice"))
    world.step(world.started(1, cancel="delivered"), after=1_200)
    from dispatcher.core.explain import explain  # noqa: PLC0415 - only here

    text = explain(world.scheduler.board, world.scheduler.board.tasks[task_id(1)]).text
    assert text.endswith("cancel requested 1.2 s ago by alice: no need; delivered; given up in 3.8 s")


def test_who_asks_is_told_at_once_what_has_come_of_it() -> None:
    world = running()
    world.step(world.task("nobody"), world.task())
    (reply,) = world.step(world.cancel(1, 2, 99, reply_to="me")).replies
    assert from_json(reply.body)["cancel"] == {
        "ended": [task_id(2)],
        "under_way": [task_id(1)],
        "not_live": [task_id(99)],
    }


@pytest.mark.parametrize("who", ["leader", "agent"])
def test_the_slot_of_what_was_given_up_is_not_given_away_until_the_agent_says_that_it_is_free(who: str) -> None:
    world = World(prefetch_ms=0)
    world.step(world.sign_in(lease=600), world.task(), world.task())
    world.step(world.started(1))
    world.step(world.cancel(1))
    ended = world.horizon(after=6_001) if who == "leader" else world.step(world.stopped(1, abandoned=True))
    assert world.status(1) is TaskStatus.CANCELLED
    assert placed(ended) == []
    assert placed(world.step(world.beat(occupied=1))) == []
    assert placed(world.step(world.beat(occupied=0))) == [(2, "a")]
