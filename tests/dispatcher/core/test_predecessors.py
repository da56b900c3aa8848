"""Exclusive work of a session that another process has replaced: nobody has it while the older may still run it."""

import pytest

from bus.messages import CapabilitySpec
from bus.states import AgentHealth, TaskStatus
from tests.dispatcher.core.world import START, World, placed, task_id

LEASE_MS = 5_000
ALONE = CapabilitySpec(name="alone", exclusive=True)


@pytest.fixture
def world() -> World:
    """One agent of one slot runs the exclusive task 1; it was heard of just now."""
    world = World()
    world.step(world.sign_in("a", ALONE, "do"))
    world.step(world.task("alone"))
    world.step(world.started(1))
    return world


def replace(world: World, session: str = "a2") -> None:
    """Let another process sign in with the same id, a second after the first was heard of."""
    world.pass_time(1_000)
    world.step(world.sign_in("a", ALONE, "do", session=session))
    world.horizon(after=1)


def alive(world: World, ms: int) -> None:
    """Let time pass in which the new session's heart beats."""
    world.pass_time(ms)
    world.step(world.beat(holding=()))
    world.horizon()


def test_exclusive_work_stays_with_a_replaced_session_until_its_lease_is_over(world: World) -> None:
    replace(world)
    assert world.guard(1).session == "a1"
    world.horizon(after=LEASE_MS - 1_002)
    assert world.guard(1).session == "a1", "it may still run there"
    decided = world.horizon(after=1)
    assert world.now == START + LEASE_MS
    assert placed(decided) == [(1, "a")]
    assert (world.guard(1).session, world.guard(1).attempt) == ("a2", 2)
    assert not world.agent().predecessors, "nobody waits for it any longer"


def test_it_is_not_given_to_another_agent_either(world: World) -> None:
    world.step(world.sign_in("b", ALONE))
    replace(world)
    world.pass_time(LEASE_MS)
    world.step(world.beat("a", holding=()), world.beat("b"))
    assert world.guard(1).session == "a1", "a report that is not read yet may tell of its end"
    world.horizon()
    assert world.guard(1).attempt == 2


def test_what_the_replaced_session_reports_of_it_counts(world: World) -> None:
    replace(world)
    world.step(world.ended(1))
    assert world.status(1) is TaskStatus.COMPLETED


def test_what_the_replaced_session_hands_back_is_given_on_at_once() -> None:
    world = World()
    world.step(world.sign_in("a", ALONE, "do"))
    world.step(world.task("alone"))
    replace(world)
    assert world.guard(1).session == "a1"
    assert placed(world.step(world.returned(1))) == [(1, "a")]
    assert world.guard(1).session == "a2"


def test_each_heartbeat_of_the_replaced_session_prolongs_its_lease(world: World) -> None:
    replace(world)
    world.step(world.beat(session="a1", holding=((task_id(1), 1),)))
    alive(world, LEASE_MS - 1)
    assert world.guard(1).session == "a1"
    alive(world, 1)
    assert world.guard(1).session == "a2"


def test_its_other_tasks_are_not_waited_for() -> None:
    world = World()
    world.step(world.sign_in("a", ALONE, "do"))
    world.step(world.task("do"))
    world.step(world.started(1))
    replace(world)
    assert world.guard(1).session == "a2"


def test_the_new_session_has_all_of_its_room_meanwhile(world: World) -> None:
    replace(world)
    assert placed(world.step(world.task("do"))) == [(2, "a")]
    world.step(world.ended(1))
    assert world.agent().used == 1


def test_the_next_leader_waits_for_it_a_whole_lease(world: World) -> None:
    replace(world)
    world.take_over()
    alive(world, LEASE_MS - 1)
    assert world.guard(1).session == "a1"
    alive(world, 1)
    assert world.guard(1).session == "a2"


def test_a_third_session_waits_for_the_first_as_well(world: World) -> None:
    replace(world)
    replace(world, "a3")
    world.horizon(after=LEASE_MS - 2_003)
    assert world.guard(1).session == "a1"
    world.horizon(after=2)
    assert world.guard(1).session == "a3"


@pytest.mark.parametrize("farewell", [True, False])
def test_the_end_of_the_new_session_gives_nothing_away_that_the_first_may_run(world: World, *, farewell: bool) -> None:
    replace(world)
    world.step(world.beat(session="a1"))
    if farewell:
        world.step(world.sign_out())
    else:
        world.pass_time(LEASE_MS - 1)
        world.step(world.beat(session="a1"))
        world.horizon(after=100)
        assert world.agent().health is AgentHealth.LOST
    world.horizon(after=100)
    assert world.guard(1).session == "a1"
    world.horizon(after=LEASE_MS)
    assert world.status(1) is TaskStatus.PENDING


def test_a_session_that_has_signed_out_is_not_waited_for(world: World) -> None:
    world.step(world.sign_out())
    replace(world)
    assert world.guard(1).session == "a2"


def test_a_new_session_whose_loop_is_blocked_does_not_take_back_what_the_first_has() -> None:
    world = World(blocked_patience_ms=500)
    world.step(world.sign_in("a", ALONE, "do"))
    world.step(world.task("alone"))
    replace(world)
    for _ in range(3):
        world.step(world.beat(lag=3.0), after=800)
    assert world.guard(1).session == "a1"
