"""Rates and concurrency: never exceeded, never leaked, known to the next leader."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bus.limits import Limit, interval_ms
from bus.messages import CapabilitySpec
from bus.states import TaskStatus
from tests.dispatcher.core.test_take_over import successor
from tests.dispatcher.core.world import World, placed


def limited(**fields: Any) -> dict[str, Any]:
    return {"limits": [{"key": "openai", **fields}]}


def starts(world: World, ms: int, tick: int = 50) -> list[int]:
    """Let time pass in ticks; return how long after the start each placement came."""
    began = world.now
    found: list[int] = []
    for _ in range(0, ms, tick):
        new = placed(world.step(after=tick))
        found += [world.now - began] * len(new)
    return found


@pytest.mark.parametrize(
    ("rate", "ms"), [("600/min", 100), ("5/s", 200), ("1/10s", 10_000), ("0.5/s", 2_000), ("3 / hour", 1_200_000)]
)
def test_a_rate_is_a_number_per_time(rate: str, ms: float) -> None:
    assert interval_ms(rate) == ms


@pytest.mark.parametrize("rate", ["", "5", "5/fortnight", "0/s", "-1/s", "1/0s", "1e99/s", "fast"])
def test_what_is_no_rate_is_refused_with_the_rule(rate: str) -> None:
    with pytest.raises(ValidationError, match="write a number per time"):
        Limit(key="k", rate=rate)


def test_a_limit_that_limits_nothing_is_refused() -> None:
    with pytest.raises(ValidationError, match="limits nothing"):
        Limit(key="k")


def test_starts_are_spaced_by_the_rate() -> None:
    world = World()
    world.step(world.sign_in(slots=100, lease=600))
    decisions = world.step(*(world.task(**limited(rate="10/s")) for _ in range(30)))
    assert len(placed(decisions)) == 1
    assert starts(world, 1_000) == [100 * n for n in range(1, 11)]


def test_a_burst_starts_at_once_and_no_more() -> None:
    world = World()
    world.step(world.sign_in(slots=100, lease=600))
    decisions = world.step(*(world.task(**limited(rate="1/s", burst=5)) for _ in range(30)))
    assert len(placed(decisions)) == 5
    assert len(starts(world, 3_000)) == 3


def test_tasks_at_once_are_limited_across_agents_and_capabilities() -> None:
    world = World()
    world.step(world.sign_in("a", "do", slots=8, lease=600), world.sign_in("b", "make", slots=8, lease=600))
    for name in ("do", "make") * 5:
        world.step(world.task(name, **limited(concurrency=3)), after=1)
    hands = [number for number in range(1, 11) if world.status(number) is TaskStatus.ASSIGNED]
    assert hands == [1, 2, 3]
    assert [n for n, _ in placed(world.step(world.ended(2, duration=9)))] == [4]
    assert [n for n, _ in placed(world.step(world.cancel(1), world.stopped(1)))] == [5]
    assert [n for n, _ in placed(world.step(world.returned(3)))] == [3]


def test_of_tasks_that_state_different_bounds_each_goes_by_its_own_and_all_count() -> None:
    world = World()
    world.step(world.sign_in(slots=9, lease=600))
    wide, narrow = limited(concurrency=3), limited(concurrency=1)
    assert placed(world.step(world.task(**narrow), world.task(**narrow))) == [(1, "a")]
    assert [n for n, _ in placed(world.step(*(world.task(**wide) for _ in range(3))))] == [3, 4], "with the narrow one"
    assert placed(world.step(world.ended(1))) == [(5, "a")], "the narrow one waits until none of the key runs"
    assert placed(world.step(world.ended(3), world.ended(4))) == []
    assert placed(world.step(world.ended(5))) == [(2, "a")]


def test_of_tasks_that_state_different_rates_each_start_makes_room_by_its_own() -> None:
    world = World()
    world.step(world.sign_in(slots=9, lease=600))
    assert placed(world.step(world.task(**limited(rate="1/10s")), world.task(**limited(rate="1/s")))) == [(1, "a")]
    assert placed(world.step(after=9_999)) == []
    assert placed(world.step(world.task(**limited(rate="1/10s")), after=1)) == [(2, "a")]
    assert placed(world.step(after=1_000)) == [(3, "a")]


def test_a_limit_holds_nobody_else_up() -> None:
    world = World()
    world.step(world.sign_in(slots=8))
    decisions = world.step(*(world.task(**limited(concurrency=1)) for _ in range(3)), world.task())
    assert [number for number, _ in placed(decisions)] == [1, 4]


def test_a_capability_is_limited_as_strictly_as_any_agent_says() -> None:
    world = World()
    world.step(
        world.sign_in("a", CapabilitySpec(name="do", concurrency=4), slots=8),
        world.sign_in("b", CapabilitySpec(name="do", concurrency=2), slots=8),
    )
    assert len(placed(world.step(*(world.task() for _ in range(9))))) == 2
    world.step(world.sign_out("b"))
    world.horizon(after=1)
    world.step(after=world.config.forget_agent_ms)
    world.step(world.sign_in("a", CapabilitySpec(name="do", concurrency=4), slots=8))
    assert sum(world.status(n) is TaskStatus.ASSIGNED for n in range(1, 10)) == 4


def test_an_agent_is_given_no_more_than_its_own_rate() -> None:
    world = World()
    world.step(world.sign_in("a", slots=50, rate="2/s", lease=600), world.sign_in("b", slots=1, lease=600))
    first = placed(world.step(*(world.task() for _ in range(20))))
    assert sorted(agent for _, agent in first) == ["a", "b"]
    assert len(starts(world, 2_000)) == 4


def test_a_new_leader_goes_on_where_the_old_one_stopped() -> None:
    world = World()
    world.step(world.sign_in(slots=8, lease=600), world.task(**limited(rate="1/10s")))
    new = successor(world)
    assert placed(new.step(new.task(number=2, **limited(rate="1/10s")), after=5_000)) == []
    assert placed(new.step(after=5_000)) == [(2, "a")]


def test_rates_at_rest_are_forgotten() -> None:
    world = World()
    world.step(world.sign_in(slots=100_000, lease=36_000))
    for n in range(3_000):
        world.step(world.task(limits=[{"key": f"k{n}", "rate": "10/s"}]), after=10)
    assert len(world.scheduler.board.limits.arrivals) < 1_500
    kept = {note.field for d in world.decided for note in d.notes if note.value is not None}
    gone = {note.field for d in world.decided for note in d.notes if note.value is None}
    assert kept - gone == set(world.scheduler.board.limits.arrivals)


limit_sets: st.SearchStrategy[list[dict[str, Any]]] = st.lists(
    st.sampled_from(
        [
            {"key": "x", "concurrency": 2, "rate": "20/s"},
            {"key": "y", "concurrency": 3, "rate": "10/s", "burst": 4},
            {"key": "z", "rate": "5/s", "burst": 2},
        ]
    ),
    max_size=2,
    unique_by=lambda limit: str(limit["key"]),
)


@given(st.lists(limit_sets, min_size=1, max_size=25), st.lists(st.integers(0, 400), min_size=1, max_size=30))
def test_limits_are_never_exceeded_and_never_leaked(tasks: list[list[dict[str, Any]]], gaps: list[int]) -> None:
    world = World(prefetch_ms=0)
    world.step(world.sign_in("a", slots=4, lease=3_600), world.sign_in("b", slots=4, lease=3_600))
    known = dict(enumerate(tasks, 1))
    began: dict[int, int] = {}
    decisions = world.step(*(world.task(limits=limits) for limits in tasks))
    for gap in [*gaps, *[500] * 150]:
        began |= {number: world.now for number, _ in placed(decisions)}
        running = sorted(int(t.id.partition(".")[2]) for n in "ab" for t in world.agent(n).tasks.values())
        for key, most in (("x", 2), ("y", 3), ("z", 25)):
            held = [n for n in running if any(li["key"] == key for li in known[n])]
            assert world.scheduler.board.limits.held(key) == len(held) <= most
        if len(began) == len(tasks) and not running:
            break
        decisions = world.step(*(world.ended(n, duration=0.001) for n in running[:1]), after=gap)
    assert len(began) == len(tasks), "all were placed in the end"
    for key, interval, burst in (("x", 50, 1), ("y", 100, 4), ("z", 200, 2)):
        times = sorted(at for n, at in began.items() if any(li["key"] == key for li in known[n]))
        for first in range(len(times)):
            for last in range(first, len(times)):
                assert last - first + 1 <= burst + (times[last] - times[first]) / interval + 1e-6
    assert all(world.scheduler.board.limits.held(key) == 0 for key in "xyz")


def test_what_runs_already_counts_for_a_capability_that_states_its_concurrency_later() -> None:
    world = World()
    world.step(world.sign_in("a", slots=3))
    world.step(*(world.task() for _ in range(3)))
    strict = CapabilitySpec(name="do", concurrency=3)
    world.step(world.sign_in("b", strict, slots=9), world.sign_in("c", strict, slots=9))
    assert placed(world.step(world.task(), world.task())) == []
    assert [agent for _, agent in placed(world.step(world.ended(1)))] != []
    assert placed(world.step()) == []
    world.step(world.ended(2), world.ended(3))
    running = [n for n in range(1, 6) if world.status(n) is TaskStatus.ASSIGNED]
    assert running == [4, 5]
    assert world.scheduler.board.limits.held("capability do") == 2
    world.step(*(world.ended(n) for n in running))
    assert world.scheduler.board.limits.held("capability do") == 0


def test_a_task_counts_once_however_often_its_capability_states_a_limit() -> None:
    world = World()
    strict = CapabilitySpec(name="do", concurrency=2)
    world.step(world.sign_in("a", strict, slots=5), world.task(), world.task())
    world.step(world.sign_in("a", "do", slots=5))
    world.step(world.sign_in("a", strict, slots=5))
    world.step(world.sign_in("b", strict, slots=5), world.task())
    assert world.scheduler.board.limits.held("capability do") == 2
    world.step(world.ended(1))
    assert world.scheduler.board.limits.held("capability do") == 2
