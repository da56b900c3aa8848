"""A capability that fails at an agent again and again is given to others, until a probe succeeds."""

from bus.states import AgentStatus, TaskStatus
from dispatcher.core.breaker import BreakerState
from dispatcher.core.decisions import NoteKind
from dispatcher.core.record import agent_record
from tests.dispatcher.core.test_take_over import successor
from tests.dispatcher.core.world import World, placed

COOLDOWN = 5_000


def tripped(*capabilities: str) -> World:
    """Return a world in which `do` has failed three times in a row at agent `a`, and more of it waits."""
    world = World(breaker_failures=3, breaker_cooldown_ms=COOLDOWN)
    world.step(world.sign_in("a", *(capabilities or ("do",)), slots=8, lease=3_600))
    for number in (1, 2, 3):
        world.step(world.task(max_attempts=1))
        world.step(world.failed(number))
    return world


def test_after_failures_in_a_row_an_agent_gets_no_more_of_it_and_is_in_error() -> None:
    world = tripped()
    assert world.agent().status is AgentStatus.ERROR
    assert world.agent().reason == "every attempt of late has failed"
    assert placed(world.step(world.task())) == []


def test_the_agents_record_tells_what_is_shut_off_until_when() -> None:
    world = World(breaker_failures=2, breaker_cooldown_ms=COOLDOWN)
    world.step(world.sign_in("a", "do", "make", lease=3_600))
    world.step(world.task(max_attempts=1))
    world.step(world.failed(1))
    assert agent_record(world.agent()).shut == {}
    world.step(world.task(max_attempts=1))
    (write,) = world.step(world.failed(2)).agents
    until = world.now + COOLDOWN
    assert agent_record(world.agent()).shut == {"do": until}
    assert write.record is not None
    assert write.record.shut == {"do": until}
    world.step(world.task(), after=COOLDOWN)
    assert agent_record(world.agent()).shut == {"do": until}, "the probe runs"
    (write,) = world.step(world.ended(3)).agents
    assert write.record is not None
    assert write.record.shut == {}


def test_others_go_on_with_it_and_it_goes_on_with_other_work() -> None:
    world = tripped("do", "make")
    assert world.agent().status is AgentStatus.IDLE
    world.step(world.sign_in("b", "do"))
    assert placed(world.step(world.task("do"), world.task("make"))) == [(4, "b"), (5, "a")]


def test_after_the_cool_down_one_probe_is_let_through_and_its_success_closes_the_breaker() -> None:
    world = tripped()
    world.step(*(world.task() for _ in range(3)))
    assert placed(world.step(after=COOLDOWN - 1)) == []
    assert placed(world.step(after=1)) == [(4, "a")]
    assert placed(world.step(after=60_000)) == [], "one at a time"
    decisions = world.step(world.ended(4, duration=9))
    assert [n for n, _ in placed(decisions)] == [5, 6]
    assert world.agent().status is AgentStatus.RUNNING
    assert world.agent().breakers == {}


def test_a_probe_that_fails_doubles_the_cool_down() -> None:
    world = tripped()
    world.step(*(world.task(max_attempts=1) for _ in range(2)))
    assert placed(world.step(after=COOLDOWN)) == [(4, "a")]
    world.step(world.failed(4))
    assert placed(world.step(after=2 * COOLDOWN - 1)) == []
    assert placed(world.step(after=1)) == [(5, "a")]


def test_a_probe_that_tells_nothing_makes_room_for_another() -> None:
    world = tripped()
    world.step(world.task(), world.task())
    world.step(after=COOLDOWN)
    assert placed(world.step(world.failed(4, reason="rejected"))) == [(5, "a")]


def test_one_success_in_between_begins_the_count_anew() -> None:
    world = World(breaker_failures=3)
    world.step(world.sign_in(slots=8, lease=600))
    for number in range(1, 11):
        world.step(world.task(max_attempts=1))
        world.step(world.ended(number) if number % 3 == 0 else world.failed(number))
    assert world.agent().status is AgentStatus.IDLE


def test_what_is_the_tasks_own_fault_does_not_count() -> None:
    world = World(breaker_failures=3)
    world.step(world.sign_in(slots=8, lease=600))
    for number in range(1, 8):
        world.step(world.task())
        world.step(world.failed(number, reason="rejected"))
    assert world.status(7) is TaskStatus.FAILED
    assert world.agent().breakers == {}


def test_a_new_leader_knows_of_it_and_a_new_session_begins_afresh() -> None:
    world = tripped()
    new = successor(world)
    assert placed(new.step(new.task(number=4))) == []
    assert new.agent().breakers["do"].state is BreakerState.OPEN
    assert placed(new.step(after=COOLDOWN)) == [(4, "a")]
    new = successor(world)
    new.step(new.task(number=4))
    decisions = new.step(new.sign_in(session="a2", slots=8))
    assert placed(decisions) == [(4, "a")]
    assert [(note.field, note.value) for note in decisions.notes] == [("a do", None)]


def test_attempts_that_were_told_to_stop_do_not_count() -> None:
    world = World(breaker_failures=2)
    world.step(world.sign_in(slots=2), world.task(), world.task())
    world.step(world.started(1), world.started(2))
    world.step(world.cancel(1, 2))
    world.step(world.failed(1), world.failed(2))
    assert world.status(1) is TaskStatus.CANCELLED
    assert world.agent().status is AgentStatus.IDLE


def test_an_older_task_that_leaves_lets_no_second_probe_through() -> None:
    world = World(breaker_failures=2, breaker_cooldown_ms=1_000)
    world.step(world.sign_in(slots=5), *(world.task(max_attempts=1) for _ in range(4)))
    world.step(*(world.started(n) for n in (1, 2, 3, 4)))
    world.step(world.failed(1), world.failed(2))
    world.step(*(world.task() for _ in range(3)))
    assert len(placed(world.step(world.beat(), after=1_500))) == 1
    assert placed(world.step(world.cancel(3), world.stopped(3))) == []


def test_an_agent_all_of_which_is_shut_off_shows_so_when_it_signs_in_again() -> None:
    world = World(breaker_failures=1, breaker_cooldown_ms=600_000)
    world.step(world.sign_in(), world.task(max_attempts=1))
    world.step(world.failed(1))
    assert world.agent().status is AgentStatus.ERROR
    world.step(world.sign_in())
    assert world.agent().status is AgentStatus.ERROR


def test_an_agent_that_is_forgotten_leaves_no_breaker_behind() -> None:
    world = tripped()
    world.step(world.sign_out(forget=True))
    notes = world.horizon(after=1).notes
    assert "a" not in world.scheduler.board.fleet.agents
    assert [(note.kind, note.field, note.value) for note in notes] == [(NoteKind.BREAKER, "a do", None)]
