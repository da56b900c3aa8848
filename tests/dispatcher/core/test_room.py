"""Slots and resources: granted and returned exactly, and never more than there are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.dispatcher.core.world import World, placed


def test_a_task_may_take_several_slots() -> None:
    world = World()
    world.step(world.sign_in(slots=8))
    decisions = world.step(*(world.task(slots=3) for _ in range(4)), world.task())
    assert placed(decisions) == [(1, "a"), (2, "a"), (5, "a")]
    assert world.agent().free == 1
    assert placed(world.step(world.ended(1, duration=9))) == [(3, "a")]


def test_more_slots_than_anybody_has_are_never_given_and_it_is_said() -> None:
    world = World()
    world.step(world.sign_in(slots=8), world.task(slots=9))
    assert (
        world.why()
        == "no registered agent could ever run this: 1 agent offers 'do' in version 1.0, but none meets 9 slots"
    )


def test_resources_are_granted_and_returned() -> None:
    world = World()
    world.step(world.sign_in(slots=8, resources={"gpu": 2, "mem_gb": 12}))
    decisions = world.step(*(world.task(resources={"gpu": 1, "mem_gb": 5}) for _ in range(3)))
    assert len(placed(decisions)) == 2
    assert placed(world.step(world.task(resources={"mem_gb": 2.5}), world.task())) == [(5, "a")]
    assert sorted(placed(world.step(world.ended(1, duration=9)))) == [(3, "a")]
    assert sorted(placed(world.step(world.ended(2, duration=9)))) == [(4, "a")]


@pytest.mark.parametrize("resources", [{"gpu": 3}, {"tpu": 1}])
def test_resources_that_nobody_has_are_told(resources: dict[str, float]) -> None:
    world = World()
    world.step(world.sign_in(resources={"gpu": 2}), world.task(resources=resources))
    (name,) = resources
    assert world.why().endswith(f"none meets {resources[name]:g} {name}")


def test_of_agents_with_room_the_one_with_a_better_record_is_chosen() -> None:
    world = World()
    world.step(world.sign_in("a", slots=4, lease=600), world.sign_in("b", slots=4, lease=600))
    for number in range(1, 9):
        (where,) = placed(world.step(world.task(max_attempts=1)))
        ended = world.failed(number) if where[1] == "a" else world.ended(number, duration=9)
        world.step(ended)
    chosen = [agent for number in range(9, 13) for _, agent in placed(world.step(world.task()))]
    assert chosen[0] == "b", "both are empty, and b does not fail"


amounts = st.fixed_dictionaries(
    {}, optional={"gpu": st.sampled_from([0.1, 0.5, 1, 2]), "mem": st.sampled_from([0.3, 1.1, 7, 9])}
)


@given(
    st.lists(st.tuples(st.integers(1, 4), amounts), min_size=1, max_size=25),
    st.lists(st.integers(0, 30), max_size=40),
)
def test_room_is_never_exceeded_and_never_leaked(tasks: list[tuple[int, dict[str, Any]]], ends: list[int]) -> None:
    world = World(prefetch_ms=0)
    has = {"gpu": 2.0, "mem": 10.0}
    world.step(world.sign_in("a", slots=5, resources=has), world.sign_in("b", slots=3, resources=has))
    world.step(*(world.task(slots=slots, resources=resources) for slots, resources in tasks))
    for which in [*ends, *range(200)]:
        for name in ("a", "b"):
            agent = world.agent(name)
            held = list(agent.tasks.values())
            assert agent.used == sum(task.terms.requirement.slots for task in held) <= agent.slots
            for resource, most in has.items():
                granted = sum(dict(task.terms.requirement.resources).get(resource, 0) for task in held)
                assert agent.granted.get(resource, 0) == granted <= most * 1000
        running = sorted(int(t.id.partition(".")[2]) for n in "ab" for t in world.agent(n).tasks.values())
        if not running:
            break
        world.step(world.ended(running[which % len(running)], duration=0.001))
    assert world.scheduler.board.tasks == {}, "all were placed in the end: each fits an empty agent"
    assert world.agent("a").used == world.agent("b").used == 0
    assert set(world.agent("a").granted.values()) <= {0}
