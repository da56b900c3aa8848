"""The order of waiting tasks: between levels, between fairness keys, and within one."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.states import TaskPriority
from dispatcher.core.events import Submitted
from tests.dispatcher.core.world import World, placed, task_id


def work_off(world: World, count: int, slots: int = 1) -> list[int]:
    """Let one agent do `count` tasks, one after the other; return them in the order of their placement."""
    order: list[int] = []
    decisions = world.step(world.sign_in(slots=slots, lease=3_600_000))
    while len(order) < count:
        new = [number for number, _ in placed(decisions)]
        order += new
        if not new:
            break
        decisions = world.step(*(world.ended(number, duration=60) for number in new))
    return order[:count]


def keys_of(world: World, numbers: list[int]) -> list[str | None]:
    """Return the fairness keys under which tasks were submitted."""
    submitted = {
        e.task_id: e.header.fairness_key for events, _ in world.steps for e in events if isinstance(e, Submitted)
    }
    return [submitted[task_id(number)] for number in numbers]


def test_ten_tasks_of_one_key_are_placed_within_twenty_beside_ten_thousand_of_another() -> None:
    world = World()
    world.step(*(world.task(fairness_key="big") for _ in range(10_000)))
    world.step(*(world.task(fairness_key="small") for _ in range(10)), after=1_000)
    keys = Counter(keys_of(world, work_off(world, 20)))
    assert keys == {"big": 10, "small": 10}


def test_a_key_of_twice_the_weight_has_twice_as_much() -> None:
    world = World(fairness_weights={"heavy": 2.0})
    for key in ("heavy", "light"):
        world.step(*(world.task(fairness_key=key) for _ in range(100)))
    keys = Counter(keys_of(world, work_off(world, 60)))
    assert keys == {"heavy": 40, "light": 20}


def test_work_that_runs_counts_for_its_key() -> None:
    world = World()
    world.step(world.sign_in(slots=8), *(world.task(fairness_key="a") for _ in range(6)))
    world.step(*(world.task(fairness_key=key) for key in "aaaabbbb" for _ in range(2)))
    running = Counter(task.terms.fairness_key for task in world.agent().tasks.values())
    assert running == {"a": 6, "b": 2}
    for number in range(1, 5):  # of a's; each leaves a slot for whoever has less
        world.step(world.ended(number, duration=60))
    running = Counter(task.terms.fairness_key for task in world.agent().tasks.values())
    assert running == {"a": 4, "b": 4}


def test_a_key_that_was_away_gains_nothing_by_it() -> None:
    world = World()
    world.step(*(world.task(fairness_key="busy") for _ in range(60)))
    assert set(keys_of(world, work_off(world, 30))) == {"busy"}
    running = list(world.agent().tasks)
    decisions = world.step(*(world.task(fairness_key="late") for _ in range(30)))
    order: list[int] = []
    for _ in range(20):
        (running_id,) = running
        decisions = world.step(world.ended(int(running_id.partition(".")[2]), duration=60))
        order += [number for number, _ in placed(decisions)]
        running = list(world.agent().tasks)
    assert Counter(keys_of(world, order)) == {"busy": 10, "late": 10}


def test_tasks_without_a_key_share_as_one() -> None:
    world = World()
    world.step(*(world.task() for _ in range(50)), *(world.task(fairness_key="k") for _ in range(50)))
    assert Counter(keys_of(world, work_off(world, 20))) == {None: 10, "k": 10}


def test_within_a_key_the_oldest_is_first_whatever_it_requires() -> None:
    world = World()
    for number in range(1, 13):
        world.step(world.task(fairness_key="k", prefers=[f"n == {number % 3}"]), after=1)
    assert work_off(world, 12) == list(range(1, 13))


def test_one_that_comes_back_is_first_again() -> None:
    world = World()
    world.step(world.sign_in(slots=3))
    for _ in range(6):
        world.step(world.task(), after=1)
    decisions = world.step(world.returned(2), world.returned(1), world.ended(3, duration=60), after=5)
    assert [number for number, _ in placed(decisions)] == [1, 2, 4]


def test_a_blocked_class_holds_nobody_up_and_is_opened_by_room() -> None:
    world = World()
    world.step(*(world.task("do", requires=["gpu == true"]) for _ in range(3)), *(world.task("do") for _ in range(3)))
    decisions = world.step(world.sign_in(slots=3))
    assert [number for number, _ in placed(decisions)] == [4, 5, 6]
    decisions = world.step(world.sign_in("g", slots=2, attributes={"gpu": True}))
    assert [number for number, _ in placed(decisions)] == [1, 2]
    assert placed(world.step(world.ended(1, duration=60))) == [(3, "g")]


Waiting = tuple[TaskPriority, str | None, int, int]
waiting = st.tuples(
    st.sampled_from(TaskPriority),
    st.sampled_from([None, "a", "b"]),
    st.integers(0, 2),  # class
    st.integers(1, 4_000_000),  # time until the next submission: up to beyond the greatest head start
)


@given(st.lists(waiting, min_size=1, max_size=25))
def test_heads_of_levels_are_totally_ordered_and_keys_are_first_come_first_served(tasks: list[Waiting]) -> None:
    world = World()
    known: dict[int, Waiting] = {}
    age: dict[int, int] = {}
    for number, task in enumerate(tasks, 1):
        priority, key, cls, gap = task
        world.pass_time(gap)
        world.step(world.task(priority=priority, fairness_key=key, prefers=[f"n == {cls}"]))
        known[number], age[number] = task, world.now
    order = work_off(world, len(tasks))
    assert sorted(order) == sorted(known), "each is placed once"
    for level in TaskPriority:
        for key in (None, "a", "b"):
            own = [number for number in order if known[number][:2] == (level, key)]
            assert own == sorted(own), "first come, first served"
    head_start = world.config.head_start_ms
    left = set(known)
    for number in order:
        # It is of the level whose head has the least score; which key's head that is, is the shares' business.
        least = {level: [age[n] - head_start[level] for n in left if known[n][0] is level] for level in TaskPriority}
        mine = age[number] - head_start[known[number][0]]
        for level, scores in least.items():
            if level is not known[number][0] and scores:
                assert mine <= max(scores), "a level was passed over whose every task is more urgent"
        left.remove(number)


@given(st.lists(st.sampled_from(["a", "b", "c", None]), min_size=2, max_size=60))
def test_no_key_waits_for_more_than_a_round_of_the_others(keys: list[str | None]) -> None:
    """Between two placements of a key that waits all the while, no other has more than two."""
    world = World()
    world.step(*(world.task(fairness_key=key) for key in keys))
    order = keys_of(world, work_off(world, len(keys)))
    for key in set(keys):
        since: Counter[str | None] = Counter()
        left = keys.count(key)
        for given_to in order:
            if given_to == key:
                since.clear()
                left -= 1
            elif left:
                since[given_to] += 1
                assert since[given_to] <= 2


@pytest.mark.parametrize("key", ["k", None])
def test_an_urgent_task_is_next_behind_a_hundred_thousand_low_ones(key: str | None) -> None:
    world = World()
    world.step(*(world.task(priority=TaskPriority.LOW, fairness_key=key) for _ in range(100_000)))
    world.step(world.task(priority=TaskPriority.URGENT), after=1_000)
    assert placed(world.step(world.sign_in())) == [(100_001, "a")]
