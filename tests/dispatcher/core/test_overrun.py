"""A running attempt that is declared overdue ends as one that ran too long: tried again, or failed, by its policy."""

from typing import Any

import pytest
from pydantic_core import from_json

from bus.states import TaskStatus
from dispatcher.core.decisions import Decisions
from tests.dispatcher.core.world import World, placed, stops


def said(decisions: Decisions) -> Any:
    """Return the one answer to the operator."""
    (reply,) = (from_json(reply.body) for reply in decisions.replies if reply.client_id == "operator")
    return reply


def running(**fields: Any) -> World:
    world = World()
    world.step(world.sign_in(), world.task(**{"retry": {"base": 0}, **fields}))
    world.step(world.started(1))
    return world


def test_an_attempt_that_is_declared_overdue_is_stopped_and_its_task_tried_again() -> None:
    world = running()
    decisions = world.step(world.time_out(1, reason="it hangs", by="alice"))
    assert stops(decisions) == [("a", "default.0001", 1)]
    assert said(decisions)["timed_out"] == {"done": True, "status": "PENDING", "attempt": 1}
    assert placed(decisions) == [(1, "a")]
    (past,) = world.run(1).attempts
    assert (past.outcome, past.error and past.error.message) == ("timeout", "declared overdue by alice: it hangs")


def test_the_last_attempt_that_is_declared_overdue_fails_its_task() -> None:
    world = running(max_attempts=1)
    assert said(world.step(world.time_out(1)))["timed_out"] == {"done": True, "status": "FAILED", "attempt": 1}
    assert (world.status(1), world.run(1).reason) == (TaskStatus.FAILED, "timeout")


def test_a_command_on_an_attempt_that_is_over_does_not_hit_the_next() -> None:
    world = running()
    world.step(world.time_out(1, attempt=1))
    world.step(world.started(1))
    again = world.step(world.time_out(1, attempt=1))
    assert said(again)["timed_out"] == {"done": False, "status": "RUNNING", "attempt": 2}
    assert not stops(again)
    assert world.status(1) is TaskStatus.RUNNING


def test_what_the_agent_says_of_the_attempt_afterwards_changes_nothing() -> None:
    world = running(max_attempts=1)
    late = world.ended(1)
    world.step(world.time_out(1))
    assert world.step(late).stale == ["result"]
    assert world.status(1) is TaskStatus.FAILED


def test_a_task_that_does_not_run_is_left_as_it_is() -> None:
    world = World()
    world.step(world.sign_in(), world.task(), world.task("nobody"))
    for number, status in ((1, "ASSIGNED"), (2, "PENDING")):
        decisions = world.step(world.time_out(number))
        assert (said(decisions)["timed_out"]["done"], said(decisions)["timed_out"]["status"]) == (False, status)
        assert world.status(number) == status
    assert said(world.step(world.time_out(9)))["unknown"]


@pytest.mark.parametrize("cancelled", [True, False])
def test_one_whose_cancel_is_under_way_is_cancelled_by_it(cancelled: bool) -> None:
    world = running()
    if cancelled:
        world.step(world.cancel(1))
    decisions = world.step(world.time_out(1))
    assert said(decisions)["timed_out"]["status"] == ("CANCELLED" if cancelled else "PENDING")
