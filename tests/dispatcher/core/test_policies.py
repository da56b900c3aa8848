"""What a task, its capability and its agent say of retries, timeouts and priorities, and what becomes of poison."""

from typing import Any

import pytest
from pydantic_core import from_json

from bus.messages import CapabilitySpec, Command, Reprioritise, TaskError
from bus.retries import RetryPolicy
from bus.states import AgentHealth, FailureReason, TaskPriority, TaskStatus
from dispatcher.core.decisions import Place
from dispatcher.core.events import Commanded
from tests.dispatcher.core.test_take_over import successor
from tests.dispatcher.core.world import World, placed, stops, task_id

FIXED = RetryPolicy(base=10, factor=3, cap=60, jitter=False)


def wait_after_failures(world: World, **fields: Any) -> list[int]:
    """Let task 1 fail as often as it is tried; return how long each wait was."""
    waits: list[int] = []
    while world.status(1) is not TaskStatus.FAILED:
        world.step(world.failed(1, **fields))
        task = world.scheduler.board.tasks.get(task_id(1))
        if task is not None:
            waits.append(task.not_before - world.now)
            world.step(after=waits[-1])
    return waits


def test_a_task_says_how_it_is_repeated() -> None:
    world = World()
    world.step(world.sign_in(lease=3_600), world.task(retry=FIXED.model_dump(), max_attempts=5))
    assert wait_after_failures(world) == [10_000, 30_000, 60_000, 60_000]


def test_a_capability_says_it_for_tasks_that_do_not() -> None:
    world = World()
    offer = CapabilitySpec(name="do", retry=FIXED)
    world.step(world.sign_in("a", offer, lease=3_600), world.task())
    assert wait_after_failures(world) == [10_000, 30_000]


@pytest.mark.parametrize(("kind", "tried"), [("ValueError", 1), ("my.app.Refused", 1), ("KeyError", 2)])
def test_errors_of_some_types_are_not_worth_another_try(kind: str, tried: int) -> None:
    world = World()
    policy = {"never_for": ["ValueError", "Refused"]}
    world.step(world.sign_in(lease=600), world.task(retry=policy, max_attempts=2))
    error = TaskError(type=kind, message="no")
    while world.status(1) is not TaskStatus.FAILED:
        world.step(world.failed(1, error=error))
        world.step(after=5_000)
    assert world.guard(1).attempt == tried


def test_an_agent_may_say_when_to_try_again() -> None:
    world = World()
    world.step(world.sign_in(lease=3_600), world.task())
    assert wait_after_failures(world, retry_after=90) == [90_000, 90_000]


def test_the_record_of_every_attempt_keeps_its_error() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task(run_timeout=1, max_attempts=2))
    world.step(world.started(1))
    world.horizon(after=6_000)
    world.step(after=2_000)
    decisions = world.step(world.failed(1))
    errors = [attempt["error"]["type"] for attempt in from_json(decisions.changes[0].run)["attempts"]]
    assert errors == ["RunTimeout", "ValueError"]


def test_a_run_timeout_can_be_extended_from_within() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task(run_timeout=10, max_attempts=1))
    world.step(world.started(1))
    world.step(world.started(1, extend=30), after=5_000)
    world.horizon(after=35_000)
    assert world.status(1) is TaskStatus.RUNNING
    world.horizon(after=10_000)
    assert world.status(1) is TaskStatus.FAILED


def test_an_attempt_that_says_nothing_for_too_long_is_given_up() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task(progress_timeout=10, max_attempts=1))
    world.step(world.started(1))
    for _ in range(5):
        world.step(world.started(1, progress=0.5), after=9_000)
        world.horizon()
    assert world.status(1) is TaskStatus.RUNNING
    assert stops(world.horizon(after=10_000)) == [("a", task_id(1), 1)]
    assert world.status(1) is TaskStatus.RUNNING, "its agent has a grace to stop it"
    decisions = world.horizon(after=6_000)
    assert decisions.transitions[-1].reason == FailureReason.TIMEOUT
    assert from_json(decisions.changes[0].run)["error"]["type"] == "ProgressTimeout"


def test_an_attempt_that_is_stopped_for_saying_nothing_is_tried_again_and_not_before() -> None:
    world = World(prefetch_ms=0)
    world.step(world.sign_in(slots=2, lease=600), world.task(progress_timeout=10))
    world.step(world.started(1))
    world.horizon(after=10_000)
    assert world.status(1) is TaskStatus.RUNNING
    decisions = world.step(world.stopped(1))
    assert (world.status(1), decisions.transitions[-1].reason) == (TaskStatus.PENDING, FailureReason.TIMEOUT)
    assert from_json(decisions.changes[0].run)["attempts"][0]["error"]["type"] == "ProgressTimeout"


@pytest.mark.parametrize("max_attempts", [3, 10])
@pytest.mark.parametrize("said", ["abc", "bc"])
def test_a_task_that_kills_three_agents_is_poison_and_says_whom_it_killed(max_attempts: int, said: str) -> None:
    """The first may die before it has said that it has begun."""
    world = World()
    world.step(world.task(max_attempts=max_attempts))
    for name in "abc":
        world.step(world.sign_in(name, lease=5))
        world.step(*([world.started(1)] if name in said else []))
        decisions = world.horizon(after=6_000)
    assert (world.status(1), world.places[task_id(1)]) == (TaskStatus.FAILED, Place.DEAD)
    assert decisions.transitions[-1].reason == FailureReason.POISON
    error = from_json(decisions.changes[0].run)["error"]
    assert [item["agent_id"] for item in error["details"]] == ["a", "b", "c"]


def test_a_task_whose_agents_are_lost_before_it_begins_is_no_poison() -> None:
    world = World()
    world.step(world.task(max_attempts=2))
    for name in "abcdef":
        world.step(world.sign_in(name, lease=5))
        world.horizon(after=6_000)
    assert world.status(1) is TaskStatus.PENDING


def test_a_task_that_had_begun_at_only_one_of_the_lost_agents_is_no_poison() -> None:
    world = World()
    world.step(world.task(max_attempts=5))
    for name in "abc":
        world.step(world.sign_in(name, lease=5))
        world.step(*([world.started(1)] if name == "c" else []))
        world.horizon(after=6_000)
    assert world.status(1) is TaskStatus.PENDING


@pytest.mark.parametrize("how", ["beats", "signs in again"])
def test_a_task_whose_agents_were_silent_and_came_back_is_no_poison(how: str) -> None:
    """They had no network, say, or were stopped; the task did nothing to them."""
    world = World()
    world.step(world.task(max_attempts=10))
    for name in "abc":
        world.step(world.sign_in(name, lease=5))
        world.step(world.started(1), world.command("pause", name))
        world.horizon(after=6_000)
        assert world.standing(name)[1] is AgentHealth.LOST
        world.step(world.beat(name, holding=()) if how == "beats" else world.sign_in(name, lease=5))
    past = world.run(1).attempts
    assert (world.status(1), [attempt.outcome for attempt in past]) == (TaskStatus.PENDING, ["agent_lost"] * 3)
    assert all("came back" in str(attempt.error) for attempt in past)


def reprioritised(world: World, number: int, priority: TaskPriority) -> Commanded:
    return Commanded(Command(Reprioritise(task_ids=(task_id(number),), priority=priority)).root, world.now)


def test_a_waiting_task_may_be_given_another_priority() -> None:
    world = World()
    world.step(*(world.task() for _ in range(3)))
    decisions = world.step(reprioritised(world, 3, TaskPriority.URGENT))
    (change,) = decisions.changes
    assert (change.before, change.after, change.place_score) == ("PENDING/0//", "PENDING/0//", world.now - 3_600_000)
    assert [n for n, _ in placed(world.step(world.sign_in()))] == [3]


def test_another_priority_is_known_to_the_next_leader() -> None:
    world = World()
    world.step(*(world.task() for _ in range(3)))
    world.step(reprioritised(world, 3, TaskPriority.URGENT))
    assert [n for n, _ in placed(successor(world).step(world.sign_in()))] == [3]


def test_what_has_ended_keeps_its_priority() -> None:
    world = World()
    world.step(world.task())
    world.step(world.cancel(1))
    assert world.step(reprioritised(world, 1, TaskPriority.URGENT)).changes == []
