"""Tasks that are to fail at once when no agent that is known could ever run them."""

from typing import Any

import pytest
from pydantic_core import from_json

from bus.messages import CapabilitySpec
from bus.states import FailureReason, TaskStatus
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.world import World, placed, task_id

GRACE = 10_000


def settled() -> World:
    """Return a world whose leader is no longer new."""
    world = World(fail_fast_grace_ms=GRACE)
    world.step()
    world.step(after=GRACE)
    return world


def fate(world: World, number: int) -> tuple[TaskStatus, str]:
    """Return a task's status and the message of its error."""
    change = next(c for d in reversed(world.decided) for c in d.changes if c.task_id == task_id(number))
    run: Any = from_json(change.run)
    assert run.get("reason") in (None, FailureReason.IMPOSSIBLE)
    return world.status(number), run.get("error", {}).get("message", "")


def test_it_fails_at_once_and_says_who_comes_nearest() -> None:
    world = settled()
    world.step(world.sign_in("a", attributes={"zone": "eu"}), world.sign_in("b", "other"))
    world.step(world.task(requires=["gpu exists"], fail_fast=True), world.task(requires=["gpu exists"]))
    assert fate(world, 1) == (
        TaskStatus.FAILED,
        "no registered agent could ever run this (2 agents known): nearest is a, which lacks gpu exists",
    )
    assert world.status(2) is TaskStatus.PENDING
    assert "no registered agent could ever run this" in world.why()


@pytest.mark.parametrize("state", ["busy", "lost", "draining", "shut off"])
def test_an_agent_that_may_come_round_counts(state: str) -> None:
    world = World(fail_fast_grace_ms=GRACE, breaker_failures=1)
    world.step(world.sign_in("a", lease=1))
    world.step(world.beat(), after=GRACE)
    if state == "lost":
        world.horizon(after=2_000)
        world.horizon()
    elif state == "draining":
        world.step(world.command("drain"))
    else:
        world.step(world.task(max_attempts=1))
        if state == "shut off":
            world.step(world.failed(1))
    task = world.task(fail_fast=True)
    world.step(task)
    world.step(after=GRACE - 5_000)
    assert not world.stored[task.task_id].startswith("FAILED")


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"slots": 2}, "has only 1 of 2 slots"),
        ({"resources": {"gpu": 1}}, "has no gpu"),
        ({"version": ">=2"}, "is of version 1.0, not >=2"),
        ({"fairness_key": "batch"}, "accepts only fairness_key != batch"),
    ],
)
def test_slots_resources_versions_and_what_agents_accept_decide_it(fields: dict[str, Any], why: str) -> None:
    world = settled()
    world.step(world.sign_in(accepts=["fairness_key != batch"]))
    world.step(world.task(fail_fast=True, **fields))
    status, message = fate(world, 1)
    assert status is TaskStatus.FAILED
    assert message.endswith(f"nearest is a, which {why}")


def test_nothing_fails_while_the_leader_is_new_but_what_is_impossible_then_does() -> None:
    world = World(fail_fast_grace_ms=GRACE)
    world.step(world.task("do", fail_fast=True), world.task("never", fail_fast=True))
    assert placed(world.step(world.sign_in(), after=GRACE // 2)) == [(1, "a")]
    world.step(after=GRACE // 2)
    assert world.status(2) is TaskStatus.FAILED


def test_those_that_wait_fail_when_the_last_agent_has_left_for_good() -> None:
    world = settled()
    world.step(world.sign_in("a"), world.task(), *(world.task(fail_fast=True) for _ in range(3)))
    world.step(world.sign_out("a"), world.task(fail_fast=True))
    world.step(after=GRACE - 1)
    assert {world.status(n) for n in (2, 3, 4, 5)} == {TaskStatus.PENDING}, "it may be restarting"
    world.step(after=1)
    world.step()
    assert {world.status(n) for n in (2, 3, 4, 5)} == {TaskStatus.FAILED}
    assert "which has signed out" in fate(world, 2)[1]


def test_they_are_looked_at_so_many_per_pass() -> None:
    world = World(fail_fast_grace_ms=GRACE, timers_per_pass=10)
    world.step(*(world.task(fail_fast=True) for _ in range(25)))
    failed = [len(world.step(after=GRACE).ended), len(world.step().ended), len(world.step().ended)]
    assert failed == [10, 10, 5]


def test_a_new_leader_looks_after_them_too() -> None:
    world = World(fail_fast_grace_ms=GRACE)
    fail_fast = world.task(fail_fast=True)
    stored = {}
    for change in world.step(fail_fast).changes:
        stored[change.task_id] = change
    from bus.records import Guard, Run  # noqa: PLC0415
    from dispatcher.core.record import StoredTask  # noqa: PLC0415

    (change,) = stored.values()
    successor = Scheduler(world.config)
    successor.load(
        (),
        [StoredTask(change.task_id, Guard.parse(change.after), fail_fast.header, Run.model_validate_json(change.run))],
        world.now,
    )
    assert not successor.step([], world.now + GRACE - 1).ended
    assert [one.reason for one in successor.step([], world.now + GRACE).ended] == ["impossible"]


def test_a_capability_that_is_taken_back_is_looked_at_again() -> None:
    world = settled()
    world.step(world.sign_in("a", "do", slots=1), world.task(), world.task(fail_fast=True))
    world.step(world.sign_in("a", CapabilitySpec(name="other")))
    world.step(after=GRACE)
    assert world.status(2) is TaskStatus.FAILED


def test_one_that_is_requeued_while_it_is_still_impossible_fails_again() -> None:
    world = World(fail_fast_grace_ms=1_000)
    world.step(world.sign_in(lease=3_600))
    world.step(world.task("other", fail_fast=True), after=5_000)
    assert world.status(1) is TaskStatus.FAILED
    world.step(world.requeue(1))
    world.step(after=1_001)
    assert world.status(1) is TaskStatus.FAILED
