"""Which task goes to which agent, in which order."""

from collections import Counter

import pytest

from bus.messages import CapabilitySpec
from bus.states import AgentStatus, TaskPriority, TaskStatus
from dispatcher.core.decisions import Place
from dispatcher.core.levels import LEVELS
from tests.dispatcher.core.world import World, placed, stops, task_id


def test_a_task_goes_at_once_to_the_agent_that_can_do_it() -> None:
    world = World()
    world.step(world.sign_in("a", "other"), world.sign_in("b", "do"))
    decisions = world.step(world.task("do"))
    assert placed(decisions) == [(1, "b")]
    (change,) = decisions.changes
    assert (change.before, change.place, change.handover is not None) == ("", Place.ACTIVE, True)
    assert world.agent("b").status is AgentStatus.RUNNING


def test_what_nobody_can_do_waits_and_is_placed_when_somebody_comes() -> None:
    world = World()
    assert placed(world.step(world.task("do"))) == []
    assert world.status(1) is TaskStatus.PENDING
    assert world.why() == "no registered agent could ever run this: no agent offers 'do' (0 agents known)"
    assert placed(world.step(world.sign_in())) == [(1, "a")]


@pytest.mark.parametrize(
    ("asked", "offered", "met"),
    [
        (None, "1.0", True),
        (">=1.2", "1.2", True),
        (">=1.2", "1.10", True),
        (">=1.2,<2", "2.0", False),
        ("==1.*", "1.9", True),
        (">=2", "2.0rc1", False),
    ],
)
def test_versions(asked: str | None, offered: str, met: bool) -> None:
    world = World()
    world.step(world.sign_in("a", CapabilitySpec(name="do", version=offered)))
    assert bool(placed(world.step(world.task("do", version=asked)))) is met


@pytest.mark.parametrize(
    ("condition", "met"),
    [
        ("gpu == true", True),
        ("mem >= 16", True),
        ("mem > 16", False),
        ("mem < 17", True),
        ("zone in [eu, us]", True),
        ("zone in [us]", False),
        ("zone != us", True),
        ("langs contains de", True),
        ("langs contains fr", False),
        ("gpu exists", True),
        ("tpu exists", False),
        ("tpu == true", False),
        ("zone >= 3", False),
    ],
)
def test_conditions_are_met_by_attributes_of_the_agent_and_of_its_capability(condition: str, met: bool) -> None:
    world = World()
    offer = CapabilitySpec(name="do", attributes={"langs": ["de", "en"], "gpu": True})
    world.step(world.sign_in("a", offer, attributes={"mem": 16, "zone": "eu", "gpu": False}))
    assert bool(placed(world.step(world.task("do", requires=[condition])))) is met


def test_why_nobody_fits_is_told() -> None:
    world = World()
    world.step(world.sign_in("a", CapabilitySpec(name="do", version="1.0")))
    world.step(world.task("do", version=">=2", requires=["gpu == true"]))
    assert world.why() == (
        "no registered agent could ever run this: 1 agent offers 'do' in version 1.0, "
        "but none meets version >=2 and gpu == true"
    )


def test_preferences_decide_between_agents_with_equal_room() -> None:
    world = World()
    for name, zone in (("a", "us"), ("b", "eu"), ("c", "us")):
        world.step(world.sign_in(name, attributes={"zone": zone}))
    assert placed(world.step(world.task(prefers=["zone == eu"]))) == [(1, "b")]


def test_the_agent_with_most_free_slots_is_chosen() -> None:
    world = World()
    world.step(world.sign_in("a", slots=2), world.sign_in("b", slots=5), world.sign_in("c", slots=3))
    agents = [agent for _, agent in placed(world.step(*(world.task() for _ in range(4))))]
    assert agents[:2] == ["b", "b"]
    assert Counter(agents) == {"b": 3, "c": 1} or Counter(agents) == {"b": 4}


def test_equals_share_the_work() -> None:
    world = World(seed=7)
    world.step(*(world.sign_in(name, slots=50) for name in "abcd"))
    shares = Counter(agent for _, agent in placed(world.step(*(world.task() for _ in range(100)))))
    assert set(shares) == set("abcd")
    assert min(shares.values()) >= 10


def test_no_more_than_the_slots_unless_the_work_is_known_to_be_short() -> None:
    world = World()
    world.step(world.sign_in(slots=3))
    assert len(placed(world.step(*(world.task() for _ in range(10))))) == 3
    assert world.status(4) is TaskStatus.PENDING
    # That one takes 1 ms is known from now on: 20 ms of work may lie ahead of every slot.
    decisions = world.step(*(world.ended(n, duration=0.001) for n in (1, 2, 3)))
    assert len(placed(decisions)) == 7


def test_an_agent_with_room_is_woken_for_who_waits() -> None:
    world = World()
    world.step(world.sign_in(), *(world.task() for _ in range(3)))
    assert placed(world.step(world.ended(1, duration=10))) == [(2, "a")]
    assert placed(world.step(world.ended(2, duration=10))) == [(3, "a")]


def test_priority_first_then_age() -> None:
    world = World()
    order = [TaskPriority.LOW, TaskPriority.HIGH, TaskPriority.URGENT, TaskPriority.MEDIUM, TaskPriority.HIGH]
    world.step(*(world.task(priority=priority) for priority in order))
    decisions = world.step(world.sign_in(slots=5))
    assert [number for number, _ in placed(decisions)] == [3, 2, 5, 4, 1]


def test_classes_take_turns_by_the_score_of_their_heads() -> None:
    world = World()
    for n in range(6):
        world.step(world.task("do" if n % 2 else "make", at=world.now), after=10)
    decisions = world.step(world.sign_in("a", "do", "make", slots=6))
    assert [number for number, _ in placed(decisions)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("priority", [TaskPriority.MEDIUM, TaskPriority.HIGH, TaskPriority.URGENT])
def test_nothing_starves_behind_a_stream_of_more_urgent_work(priority: TaskPriority) -> None:
    """A LOW task is placed as soon as its wait is the head start of what comes after it."""
    world = World()
    world.step(world.sign_in())
    world.step(world.task(priority=priority))  # occupies the only slot
    low = world.task(priority=TaskPriority.LOW)
    world.step(low)
    head_start = world.config.head_start_ms[priority]
    running = 1
    for _ in range(40):
        world.step(world.task(priority=priority), after=head_start // 20)
        done = placed(world.step(world.ended(running, duration=60)))
        running = done[0][0]
        if running == 2:
            break
    waited = world.now - low.at
    assert running == 2
    assert head_start <= waited <= head_start * 1.2 + 1


def test_an_urgent_task_behind_a_hundred_thousand_is_next() -> None:
    world = World()
    world.step(world.sign_in())
    world.step(*(world.task(priority=TaskPriority.LOW) for _ in range(100_000)))
    world.step(world.task(priority=TaskPriority.URGENT), after=1_000)
    assert placed(world.step(world.ended(1, duration=9))) == [(100_001, "a")]


def test_every_level_of_room_is_ordered() -> None:
    world = World()
    slots = [1, 2, 7, 8, 9, 15, 16, 33, 100, 5_000, 100_000]
    world.step(*(world.sign_in(f"a{n}", slots=n) for n in slots))
    levels = [world.agent(f"a{n}").level for n in slots]
    assert levels == sorted(levels)
    assert levels[-1] <= LEVELS


def test_a_submission_that_comes_twice_is_one_task_that_tells_both() -> None:
    world = World()
    world.step(world.task(reply_to="one"))
    again = world.step(world.task(number=1, reply_to="two"))
    assert [change.before for change in again.changes] == [world.stored[task_id(1)]]
    world.step(world.sign_in())
    answers = world.step(world.ended(1)).answers
    assert [answer.client_id for answer in answers] == ["one", "two"]
    assert len(world.scheduler.board.tasks) == 0


def test_requirements_that_nobody_waits_with_are_forgotten() -> None:
    world = World()
    world.step(world.sign_in(slots=100_000))
    for n in range(5_000):
        world.step(world.task(prefers=[f"n == {n}"]))
    fleet = world.scheduler.board.fleet
    assert len(fleet.classes) < 2_500
    waiting = world.task("nobody")
    world.step(waiting)
    for n in range(5_000):
        world.step(world.task(prefers=[f"n == {n}"]))
    assert "nobody" in {cls.requirement.capability for cls in fleet.classes.values()}
    assert placed(world.step(world.sign_in("b", "nobody"))) == [(5_001, "b")]


def test_a_cancelled_task_leaves_its_line() -> None:
    world = World()
    world.step(*(world.task() for _ in range(3)))
    assert stops(world.step(world.cancel(1))) == []
    assert placed(world.step(world.sign_in(slots=3))) == [(2, "a"), (3, "a")]


def test_an_agent_refuses_tasks_that_it_does_not_accept() -> None:
    world = World()
    choosy = world.sign_in("choosy", slots=8, accepts="fairness_key != batch, (priority >= HIGH | tags contains quick)")
    world.step(choosy)
    decisions = world.step(
        world.task(fairness_key="batch", priority=TaskPriority.URGENT),
        world.task(priority=TaskPriority.LOW),
        world.task(priority=TaskPriority.LOW, tags=["quick"]),
        world.task(priority=TaskPriority.HIGH),
    )
    assert sorted(placed(decisions)) == [(3, "choosy"), (4, "choosy")]
    assert sorted(placed(world.step(world.sign_in("any", slots=8)))) == [(1, "any"), (2, "any")]


def test_what_waits_is_sorted_anew_when_an_agent_asks_what_nobody_has_asked() -> None:
    world = World()
    world.step(*(world.task(fairness_key=key) for key in ("batch", "live", "batch")))
    assert placed(world.step(world.sign_in("choosy", slots=8, accepts="fairness_key != batch"))) == [(2, "choosy")]
    assert sorted(placed(world.step(world.sign_in("any", slots=8)))) == [(1, "any"), (3, "any")]
