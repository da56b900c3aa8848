"""Why a task waits, in numbers; where one that does not exist would go; why one that was placed is where it is."""

from random import Random

import pytest

from bus.explanations import Explanation
from bus.messages import Command, Explain, Plan, Reply, TaskFields
from bus.states import TaskPriority, TaskStatus
from dispatcher.core.events import Commanded
from tests.dispatcher.core.world import World, placed, task_id


def explained(world: World, number: int) -> Explanation:
    """Ask about a task."""
    asked = Commanded(Command(Explain(task_id=task_id(number), reply_to="me")).root, world.now)
    (reply,) = world.step(asked).replies
    assert reply.client_id == "me"
    answer = Reply.model_validate_json(reply.body)
    assert answer.explanation is not None
    return answer.explanation


def planned(world: World, **fields: object) -> Explanation:
    """Ask about a task that does not exist."""
    task = TaskFields.model_validate({"capability": "do", **fields})
    (reply,) = world.step(Commanded(Command(Plan(task=task, reply_to="me")).root, world.now)).replies
    answer = Reply.model_validate_json(reply.body).explanation
    assert answer is not None
    return answer


def busy() -> World:
    """Return a pool of twelve agents, none of which takes one more task with a graphics card."""
    world = World()
    for n in range(8):
        world.step(world.sign_in(f"cpu{n}", slots=8, lease=3_600))
    for n in range(2):
        world.step(world.sign_in(f"full{n}", slots=1, attributes={"gpu": True}, lease=3_600))
    world.step(world.sign_in("leaving", attributes={"gpu": True}, lease=3_600))
    world.step(world.command("drain", "leaving"))
    world.step(world.sign_in("other", "make", lease=3_600))
    world.step(*(world.task(requires=["gpu == true"]) for _ in range(6)))
    return world


def test_why_a_task_waits_in_numbers() -> None:
    found = explained(busy(), 6)
    assert {group.why: group.count for group in found.groups} == {
        "lacks gpu == true": 8,
        "full (1/1 slots)": 2,
        "draining": 1,
        "does not offer do": 1,
    }
    assert (found.agents, found.eligible, found.ahead) == (12, 3, 3)
    for part in ("12 agents", "8 lack gpu == true", "2 full (1/1 slots)", "1 draining"):
        assert part in found.text


def test_how_many_are_ahead() -> None:
    world = World()
    for _ in range(5):
        world.step(world.task(), after=1)
    found = explained(world, 4)
    assert found.ahead == 3
    assert found.text.endswith("3 tasks are ahead")


def one_after_another(world: World, waiting: int) -> list[int]:
    """Let the agent, which has one slot, do all that waits; return the tasks in the order in which they began."""
    began: list[int] = []
    running = next(n for n in range(1, 2_000) if world.status(n) is TaskStatus.ASSIGNED)
    while len(began) < waiting:
        ((running, _),) = placed(world.step(world.ended(running, duration=5.0)))
        began.append(running)
    return began


@pytest.mark.parametrize("seed", range(5))
def test_as_many_are_ahead_as_begin_before(seed: int) -> None:
    rng, world = Random(seed), World()
    world.step(world.sign_in("a", "do", "make", lease=36_000), world.task(estimated_duration=5))
    for _ in range(60):
        priority = rng.choice((TaskPriority.LOW, TaskPriority.MEDIUM))
        world.step(
            world.task(rng.choice(("do", "make")), priority=priority, estimated_duration=5),
            after=rng.choice((1, 10_007)),
        )
    said = {number: explained(world, number).ahead for number in range(2, 62)}
    planned_ahead = planned(world, priority=TaskPriority.MEDIUM).ahead
    began = one_after_another(world, 60)
    assert said == {number: place for place, number in enumerate(began)}
    assert planned_ahead == sum(
        world.headers[task_id(n)].priority is TaskPriority.MEDIUM or said[n] < planned_ahead for n in began
    )


def test_of_several_keys_it_is_told_about_how_many_have_their_turn_before() -> None:
    world = World()
    world.step(world.sign_in(lease=36_000), world.task(fairness_key="a", estimated_duration=5))
    world.step(*(world.task(fairness_key="a", estimated_duration=5) for _ in range(100)))
    world.step(*(world.task(fairness_key="b", estimated_duration=5) for _ in range(5)))
    said = {number: explained(world, number).ahead for number in range(2, 107)}
    assert "about 3 tasks are ahead" in explained(world, 104).text
    began = one_after_another(world, 105)
    assert max(abs(said[number] - place) for place, number in enumerate(began)) <= 1


def test_the_nearest_miss() -> None:
    world = World()
    world.step(world.sign_in("far"), world.sign_in("near", attributes={"gpu": True}))
    world.step(world.task(requires=["gpu == true", "zone == eu"]))
    found = explained(world, 1)
    assert found.nearest is not None
    assert (found.nearest.agent_id, found.nearest.lacks) == ("near", ("lacks zone == eu",))


def test_a_limit_and_when_it_frees() -> None:
    world = World()
    world.step(world.sign_in(slots=8, lease=600))
    world.step(*(world.task(limits=[{"key": "openai", "rate": "1/s"}]) for _ in range(2)))
    world.pass_time(200)
    found = explained(world, 2)
    assert found.limit is not None
    assert (found.limit.key, found.limit.frees_in) == ("openai", 0.8)
    assert "limit 'openai' frees in 0.8 s" in found.text


def test_a_limit_is_told_in_the_record_too_and_nobody_is_said_to_be_busy() -> None:
    world = World()
    world.step(world.sign_in(slots=8, lease=600))
    world.step(*(world.task(limits=[{"key": "openai", "rate": "1/8s"}]) for _ in range(2)))
    world.pass_time(6_000)
    world.step()
    assert world.why() == (
        "1 agent can do it: 1 free, 0 busy, 0 not taking work, 0 lost; limit 'openai' frees in 2.0 s; "
        "1 task waits for the same"
    )


def test_agents_that_are_shut_off_and_when_one_is_tried_again() -> None:
    world = World(breaker_failures=1, breaker_cooldown_ms=5_000)
    world.step(world.sign_in("a", lease=600), world.task(max_attempts=1))
    world.step(world.failed(1), world.sign_in("b", lease=600), world.command("pause", "b"))
    world.step(world.task())
    world.pass_time(1_000)
    assert "1 shut off after failures; 1 paused; the next probe in 4.0 s" in explained(world, 2).text
    assert world.why().startswith("1 agent can do it: 0 free, 0 busy, 1 not taking work (1 paused), 0 lost; 1 shut off")


def test_a_slot_that_is_held_by_code_which_does_not_stop() -> None:
    world = World()
    world.step(world.sign_in(slots=1, lease=600), world.beat(occupied=1, holding=()))
    world.step(world.task())
    assert "1 full (0/1 slots, 1 held by code that does not stop)" in explained(world, 1).text


def test_an_agent_that_has_signed_out_is_stopped_whoever_has_paused_it() -> None:
    world = World()
    world.step(world.sign_in("a", lease=600), world.sign_in("b", lease=600))
    world.step(world.command("pause", "b"))
    world.step(world.sign_out("b"), world.task(requires=["agent.id == b"]))
    world.step(after=60_000)
    text = explained(world, 1).text
    assert "1 stopped" in text
    assert "paused" not in text
    assert "nearest is b, which has signed out" in text


def test_a_child_that_its_draining_parent_waits_for() -> None:
    world = World()
    world.step(world.sign_in(slots=2, lease=600), world.task())
    world.step(world.started(1))
    world.step(world.started(1, waiting=True), world.command("drain"))
    world.step(world.task(parent=task_id(1), parent_attempt=1, depth=1))
    assert f"its parent {task_id(1)} waits for it on a, which drains until that has ended" in explained(world, 2).text


def test_a_task_that_may_not_start_yet() -> None:
    world = World()
    world.step(world.task(delay=30))
    assert explained(world, 1).starts_in == 30


def test_why_a_task_is_where_it_is() -> None:
    world = World()
    world.step(world.sign_in("a", slots=2), world.sign_in("b", slots=4))
    assert placed(world.step(world.task())) == [(1, "b")]
    found = explained(world, 1)
    assert found.agent_id == "b"
    assert found.text == "is assigned to b since 0.0 s: the best of 2 that could do it: 4 free slots"


def test_what_is_not_live_is_unknown() -> None:
    world = World()
    asked = Commanded(Command(Explain(task_id=task_id(9), reply_to="me")).root, world.now)
    (reply,) = world.step(asked).replies
    assert Reply.model_validate_json(reply.body).unknown


def test_a_plan_tells_who_would_get_it_and_changes_nothing() -> None:
    world = World()
    world.step(world.sign_in("a", slots=2), world.sign_in("b", slots=4))
    found = planned(world)
    assert found.agent_id == "b"
    assert found.text.endswith("would go to b now")
    assert not world.scheduler.board.tasks
    assert planned(world, slots=9).text.endswith("would wait")
    assert placed(world.step(world.task())) == [(1, "b")]


@pytest.mark.parametrize("requires", [[], ["gpu == true"], ["zone != eu"], ["n >= 3"]])
def test_an_explanation_agrees_with_the_placement(requires: list[str]) -> None:
    world = World()
    for n in range(6):
        attributes = {"gpu": n % 2 == 0, "zone": "eu" if n % 3 else "us", "n": n}
        world.step(world.sign_in(f"a{n}", slots=1, attributes=attributes))
    free = {group.why: group.count for group in planned(world, requires=requires).groups}.get("free", 0)
    assert len(placed(world.step(*(world.task(requires=requires) for _ in range(9))))) == free
