"""Room that is kept free for tasks of several slots, or with resources: nothing starves, and no room is lost."""

from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.messages import Plan
from bus.states import TaskPriority, TaskStatus
from dispatcher.core.events import Commanded
from tests.dispatcher.core.world import World, placed, task_id


def _busy(slots: int = 4, **fields: Any) -> World:
    """Return a world whose only agent has all its slots taken by tasks of one slot: 1, 2, 3 and so on."""
    world = World(prefetch_ms=0)
    world.step(world.sign_in(slots=slots, **fields))
    world.step(*(world.task() for _ in range(slots)))
    return world


def test_a_wide_task_is_not_overtaken_for_ever_by_narrow_ones() -> None:
    world = _busy()
    world.step(world.task(slots=4), after=1)
    for _ in range(20):
        world.step(world.task(), after=1)
    found: list[tuple[int, str]] = []
    for number in (1, 2, 3):
        found += placed(world.step(world.ended(number, duration=9), after=1))
        assert not found, "a narrow task that came later has taken the room"
    assert placed(world.step(world.ended(4, duration=9), after=1)) == [(5, "a")]
    assert len(placed(world.step(world.ended(5, duration=9), after=1))) == 4, "then the others have their turn"


def test_resources_are_kept_free_as_slots_are() -> None:
    world = World(prefetch_ms=0)
    world.step(world.sign_in(slots=9, resources={"gpu": 2}))
    world.step(world.task(resources={"gpu": 1}), world.task(resources={"gpu": 1}))
    world.step(world.task(resources={"gpu": 2}), after=1)
    world.step(*(world.task(resources={"gpu": 1}) for _ in range(5)), after=1)
    assert placed(world.step(world.ended(1, duration=9), after=1)) == []
    assert placed(world.step(world.ended(2, duration=9), after=1)) == [(3, "a")]


def test_who_is_ahead_in_the_order_takes_room_that_is_kept_free_for_those_behind() -> None:
    world = _busy()
    world.step(world.task(slots=4, priority=TaskPriority.LOW), after=1)
    world.step(world.task(priority=TaskPriority.URGENT), world.task(priority=TaskPriority.LOW), after=1)
    assert placed(world.step(world.ended(1, duration=9), after=1)) == [(6, "a")]
    assert placed(world.step(world.ended(2, duration=9), after=1)) == []


def test_only_one_agent_is_kept_free_and_the_others_take_narrow_tasks() -> None:
    world = World(prefetch_ms=0)
    world.step(*(world.sign_in(name, slots=2) for name in "abc"))
    world.step(*(world.task() for _ in range(6)))
    world.step(world.task(slots=2), after=1)
    world.step(*(world.task() for _ in range(9)), after=1)
    narrow = [placed(world.step(world.ended(number, duration=9), after=1)) for number in range(1, 7)]
    wide = [where for found in narrow for number, where in found if number == 7]
    assert len(wide) == 1
    assert sum(len(found) for found in narrow) >= 5, "room stood empty at more than the agent that was kept free"


def test_the_agent_that_lacks_least_is_kept_free() -> None:
    world = World(prefetch_ms=0)
    world.step(world.sign_in("a", slots=4), world.sign_in("b", slots=4))
    world.step(*(world.task() for _ in range(8)))
    ours = {where: [n for n, at in placed(world.decided[-1]) if at == where] for where in "ab"}
    world.step(world.task(slots=4), after=1)
    for number in ours["b"][:3]:
        world.step(world.ended(number, duration=9), after=1)
    assert world.scheduler.board.reservations.of(*_wide_class(world)) is world.agent("b")
    assert placed(world.step(world.ended(ours["b"][3], duration=9), after=1)) == [(9, "b")]


def _wide_class(world: World) -> list[Any]:
    return [cls for cls in world.scheduler.board.fleet.classes.values() if not cls.plain]


@pytest.mark.parametrize("end", ["cancel", "leave", "limit"])
def test_room_that_is_kept_free_for_nobody_goes_to_others_at_once(end: str) -> None:
    world = _busy()
    limits = [{"key": "k", "concurrency": 1}]
    world.step(world.task(slots=4, limits=limits), after=1)
    world.step(world.task(number=77, queue_timeout=60), after=1)
    assert placed(world.step(world.ended(1, duration=9), after=1)) == []
    match end:
        case "cancel":
            decisions = world.step(world.cancel(5), after=1)
            assert placed(decisions) == [(77, "a")]
        case "limit":
            world.step(world.sign_in("b", "other"))
            assert placed(world.step(world.task("other", number=88, limits=limits))) == [(88, "b")]
            assert placed(world.step(world.ended(2, duration=9), after=1)) == [(77, "a")]
        case _:
            decisions = world.step(world.sign_in("b", slots=1), after=1)
            assert placed(decisions) == [(77, "b")], "only the agent that is kept free is kept free"


def test_a_wide_task_that_no_agent_could_ever_take_keeps_nobody_from_work() -> None:
    world = _busy()
    world.step(world.task(slots=5), world.task(resources={"gpu": 1}), after=1)
    world.step(world.task(), after=1)
    assert placed(world.step(world.ended(1, duration=9), after=1)) == [(7, "a")]


def test_it_is_explained_who_is_kept_free_for_whom() -> None:
    world = _busy()
    world.step(world.task(slots=4), after=1)
    world.step(world.task(), after=1)
    world.step(world.ended(1, duration=9), after=1)
    board = world.scheduler.board
    from dispatcher.core.explain import explain  # noqa: PLC0415 - only here

    assert "a is kept free for the first of its kind" in explain(board, board.tasks[task_id(5)]).text
    assert "1 kept free for a wider task that is ahead" in explain(board, board.tasks[task_id(6)]).text
    plan = Plan.model_validate({"task": {"capability": "do"}, "reply_to": "c1"})
    (reply,) = world.step(Commanded(plan, world.now)).replies
    assert b"would wait" in reply.body


@given(
    st.lists(st.sampled_from([1, 1, 1, 2, 3, 4]), min_size=1, max_size=40),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_nothing_starves_behind_a_stream_of_narrow_tasks(widths: list[int], agents: int, seed: int) -> None:
    """While one task of one slot is submitted for each that ends, for ever, all others get their turn."""
    world = World(prefetch_ms=0, seed=seed)
    rng = Random(seed)
    world.step(*(world.sign_in(f"a{n}", slots=4, lease=10**6) for n in range(agents)))
    first = [world.task(slots=width, at=world.now) for width in widths]
    world.step(*first)
    names = {event.task_id for event in first}
    for _ in range(40 * (len(widths) + 8)):
        board = world.scheduler.board
        live = [task for task in board.tasks.values() if task.agent is not None]
        if not names & {task.id for task in board.tasks.values() if task.line is not None}:
            break
        number = int(rng.choice(live).id.partition(".")[2])
        world.step(world.ended(number, duration=9), world.task(), after=1)
    waiting = [int(name.partition(".")[2]) for name in names if world.stored[name].startswith(TaskStatus.PENDING)]
    assert not waiting, f"still waiting: {waiting}"


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 40)), min_size=1, max_size=40), st.integers(0, 2**32))
def test_when_all_is_quiet_no_task_waits_that_would_find_room(moves: list[tuple[int, int]], seed: int) -> None:
    """No reservation outlives its use: once nothing changes, whoever waits is not free to run anywhere."""
    world = World(prefetch_ms=0, seed=seed)
    rng = Random(seed)
    world.step(*(world.sign_in(f"a{n}", slots=4, lease=10**6) for n in range(2)))
    for width, action in moves:
        live = [task for task in world.scheduler.board.tasks.values() if task.agent is not None]
        waiting = [task for task in world.scheduler.board.tasks.values() if task.line is not None]
        if action < 10 and live:
            world.step(world.ended(int(rng.choice(live).id.partition(".")[2]), duration=9), after=1)
        elif action < 15 and waiting:
            world.step(world.cancel(int(rng.choice(waiting).id.partition(".")[2])), after=1)
        else:
            world.step(world.task(slots=width), after=1)
    board = world.scheduler.board
    waits = [task for task in board.tasks.values() if task.line is not None]
    kept = {agent.id for cls in board.fleet.classes.values() if (agent := board.reservations.of(cls)) is not None}
    for task in waits:
        able = [agent.id for agent in board.fleet.agents.values() if agent.fits(task.terms.requirement)]
        assert set(able) <= kept, f"{task.id} would find room at {able}"
    assert len(kept) <= sum(1 for cls in board.fleet.classes.values() if cls.waiting and not cls.plain)


def test_a_reservation_does_not_outlast_the_head_that_it_was_made_for() -> None:
    world = World()
    world.step(world.sign_in(slots=4, lease=3_600), world.task())
    world.step(world.started(1))
    world.step(
        world.task(priority=TaskPriority.URGENT, slots=4), world.task(priority=TaskPriority.LOW, slots=4), after=10
    )
    assert placed(world.step(world.task(), after=10)) == [], "behind the urgent one"
    assert placed(world.step(world.cancel(2), after=10)) == [(4, "a")], "before the one of low priority"


def test_a_reservation_follows_a_task_to_its_new_priority() -> None:
    world = World()
    world.step(world.sign_in(slots=4, lease=3_600), world.task())
    world.step(world.started(1))
    world.step(world.task(priority=TaskPriority.URGENT, slots=4, tags=["x"]), after=10)
    assert placed(world.step(world.task(), after=10)) == []
    assert placed(world.step(world.reprioritise_matching(TaskPriority.LOW, tags=("x",)), after=10)) == [(3, "a")]


def test_what_is_more_urgent_than_the_head_that_waits_for_room_has_the_reservation() -> None:
    world = World()
    world.step(world.sign_in(slots=4, lease=3_600), world.task())
    world.step(world.started(1))
    world.step(world.task(priority=TaskPriority.LOW, slots=4), after=10)
    world.step(world.task(priority=TaskPriority.URGENT, slots=4), after=10)
    assert placed(world.step(world.task(), world.task(), after=10)) == []
