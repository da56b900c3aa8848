"""Work that waits in an agent while another could begin it, or while something more urgent needs the place."""

from bus.states import AgentHealth, TaskPriority, TaskStatus
from dispatcher.core.timers import TimerKind
from tests.dispatcher.core.world import World, placed, recalls, stops, task_id


def ahead(count: int = 4) -> World:
    """Return a world in which agent `a` has one slot and `count` tasks, which were expected to be short."""
    world = World()
    world.step(world.sign_in(lease=3_600), world.task())
    world.step(world.ended(1, duration=0.001), *(world.task() for _ in range(count)))
    world.step(world.started(2))
    assert len(world.agent().tasks) == count
    return world


def test_work_ahead_is_recalled_when_somebody_else_is_free() -> None:
    world = ahead()
    assert recalls(world.step(after=200)) == [], "nobody else could begin it"
    world.step(world.sign_in("b", slots=8, lease=3_600))
    decisions = world.step(after=1_000)
    assert sorted(recalls(decisions)) == [("a", task_id(n)) for n in (3, 4, 5)]
    assert world.status(3) is TaskStatus.ASSIGNED, "until the agent has handed it back"
    assert recalls(world.step(after=1_000)) == [], "it is asked once"
    assert placed(world.step(world.returned(3), world.returned(4))) == [(3, "b"), (4, "b")]


def test_work_ahead_is_recalled_when_something_more_urgent_needs_the_place() -> None:
    world = ahead()
    urgent = world.task(priority=TaskPriority.URGENT, estimated_duration=600)
    assert placed(world.step(urgent)) == [], "it is not short, so it waits for a slot"
    assert sorted(recalls(world.step(after=200))) == [("a", task_id(n)) for n in (3, 4, 5)]
    world.step(world.returned(3), world.returned(4), world.returned(5))
    assert world.status(3) is TaskStatus.PENDING, "not given to the same agent again, ahead of the urgent one"
    assert placed(world.step(world.ended(2, duration=5)))[0] == (6, "a")


def test_work_ahead_is_recalled_for_a_task_that_needs_several_slots() -> None:
    world = World()
    world.step(world.sign_in(slots=2, lease=3_600), world.task())
    world.step(world.ended(1, duration=0.001), *(world.task() for _ in range(4)))
    world.step(world.started(2), world.started(3))
    assert placed(world.step(world.task(slots=2, priority=TaskPriority.HIGH))) == []
    assert sorted(recalls(world.step(after=200))) == [("a", task_id(4)), ("a", task_id(5))]
    world.step(world.returned(4), world.returned(5))
    assert placed(world.step(world.ended(2), world.ended(3))) == [(6, "a")]


def test_work_ahead_is_not_recalled_for_what_is_less_urgent_or_cannot_go_there() -> None:
    world = ahead()
    world.step(
        world.task(priority=TaskPriority.LOW, estimated_duration=600),
        world.task("other", priority=TaskPriority.URGENT, estimated_duration=600),
    )
    assert recalls(world.step(after=1_000)) == []


def test_what_is_more_urgent_than_the_head_of_its_blocked_kind_is_looked_at_by_itself() -> None:
    world = ahead()
    world.step(world.task(estimated_duration=600), world.task(estimated_duration=600))
    assert recalls(world.step(after=1_000)) == [], "the head came after them"
    assert placed(world.step(world.task(priority=TaskPriority.URGENT))) == [(8, "a")], "short: ahead of the slots"
    world.step(world.task(priority=TaskPriority.URGENT, estimated_duration=600))
    assert len(recalls(world.step(after=1_000))) == 3


def test_a_task_that_began_in_the_meantime_stays_where_it_is() -> None:
    world = ahead(2)
    world.step(world.sign_in("b", lease=3_600))
    assert recalls(world.step(after=1_000)) == [("a", task_id(3))]
    world.step(world.ended(2, duration=0.2), world.started(3))
    world.step(after=5_000)
    assert (world.status(3), world.guard(3).agent_id) == (TaskStatus.RUNNING, "a")


def test_nothing_is_recalled_from_free_slots() -> None:
    world = World()
    world.step(world.sign_in(slots=8, lease=3_600), world.sign_in("b", slots=8, lease=3_600))
    world.step(*(world.task() for _ in range(6)))
    assert recalls(world.step(after=60_000)) == []


def test_a_slot_in_which_a_stopped_task_still_runs_is_not_given_away() -> None:
    world = World()
    world.step(world.sign_in(lease=3_600), world.task(run_timeout=1))
    world.step(world.started(1))
    world.step(world.failed(1, reason="timeout", retryable=False), world.beat(occupied=1, holding=()))
    assert placed(world.step(world.task())) == []
    assert placed(world.step(world.sign_in("b"))) == [(2, "b")]
    world.step(world.beat(occupied=0, holding=()))
    assert placed(world.step(world.task())) == [(3, "a")]


def test_what_was_assigned_before_the_agent_said_that_its_slot_is_occupied_is_recalled() -> None:
    world = World()
    world.step(world.sign_in(lease=3_600), world.task(run_timeout=1))
    world.step(world.started(1))
    world.step(world.failed(1, reason="timeout", retryable=False), world.task())
    assert world.guard(2).agent_id == "a"
    world.step(world.beat(occupied=1), world.sign_in("b", lease=3_600))
    assert recalls(world.step(after=1_000)) == [("a", task_id(2))]


def test_a_blocked_agent_loses_what_it_has_not_begun_and_keeps_what_runs() -> None:
    world = World()
    world.step(world.sign_in(slots=2, lease=3_600), world.task(), world.task())
    world.step(world.started(1))
    world.step(world.beat(lag=3.0), world.sign_in("b", slots=2, lease=3_600))
    assert world.agent().health is AgentHealth.BLOCKED
    patience = world.config.blocked_patience_ms
    world.step(after=patience - 200)
    assert world.guard(2).agent_id == "a"
    decisions = world.step(after=400)
    assert stops(decisions) == [("a", task_id(2), 1)]
    assert placed(decisions) == [(2, "b")]
    assert world.guard(1).agent_id == "a"


def test_a_task_that_says_it_is_long_is_not_put_ahead_of_a_slot() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    world.step(world.ended(1, duration=0.001), world.task())
    assert placed(world.step(world.task(estimated_duration=600))) == []


def test_a_result_without_a_duration_does_not_pass_for_no_time_at_all() -> None:
    world = World()
    world.step(world.sign_in(), world.task(), world.task(), world.task())
    world.step(world.started(1))
    world.pass_time(5_000)
    assert len(placed(world.step(world.ended(1)))) == 1


def test_an_agent_that_signs_in_again_and_again_is_watched_by_one_timer() -> None:
    world = ahead()
    for _ in range(30):
        world.step(world.sign_in(lease=3_600), after=30)
    for _ in range(10):
        world.step(world.beat(), after=100)
    timers = world.scheduler.board.clock_timers
    assert sum(kind is TimerKind.RECALL for kind, *_ in timers.pop_due(world.now + 1_000, 1_000)) == 1
