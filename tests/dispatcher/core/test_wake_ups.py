"""Nothing waits for what is there already: each change that makes room, or lifts a limit, wakes who waits for it."""

from typing import Any

import pytest

from bus.messages import CapabilitySpec
from bus.states import AgentStatus, TaskPriority, TaskStatus
from dispatcher.core.decisions import Note, NoteKind
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.test_order import keys_of
from tests.dispatcher.core.test_take_over import successor
from tests.dispatcher.core.world import World, placed


def limit(**fields: Any) -> list[dict[str, Any]]:
    return [{"key": "k", **fields}]


def test_an_urgent_task_does_not_wait_behind_short_work_that_is_put_ahead_of_the_slots() -> None:
    world = World()
    world.step(world.sign_in(lease=3_600), world.task("do", priority=TaskPriority.LOW))
    world.step(world.ended(1, duration=0.001))  # known to be short from now on
    world.step(*(world.task("do", priority=TaskPriority.LOW) for _ in range(200)))
    urgent = world.task("do", priority=TaskPriority.URGENT, slots=1, estimated_duration=600, number=999)
    world.step(urgent)
    for _ in range(60):
        (first,) = sorted(world.agent().tasks.values(), key=lambda task: task.score)[:1]
        if world.status(999) is TaskStatus.ASSIGNED:
            break
        world.step(world.ended(int(first.id.partition(".")[2]), duration=0.001))
    assert world.status(999) is TaskStatus.ASSIGNED


def test_a_limit_is_freed_by_a_task_whose_agent_signed_in_again() -> None:
    world = World()
    world.step(world.sign_in("a", "do", lease=600), world.task("do", limits=limit(concurrency=1)))
    world.step(world.sign_in("b", "make", lease=600), world.task("make", limits=limit(concurrency=1)))
    world.step(world.sign_in("a", "do", lease=600))
    assert placed(world.step(world.ended(1, duration=9))) == [(2, "b")]


@pytest.mark.parametrize("how", ["cancelled", "returned"])
def test_a_probe_that_ends_without_a_verdict_is_followed_by_another(how: str) -> None:
    world = World(breaker_failures=1, breaker_cooldown_ms=1_000)
    world.step(world.sign_in(lease=600), world.task(max_attempts=1))
    world.step(world.failed(1))
    world.step(world.task(), world.task(), after=1_000)
    world.step(*([world.cancel(2)] if how == "cancelled" else []))
    decisions = world.step(world.stopped(2) if how == "cancelled" else world.returned(2))
    assert len(placed(decisions)) == 1


def test_room_that_grows_within_a_level_wakes_a_wide_task() -> None:
    world = World()
    world.step(world.sign_in(slots=15, lease=600), *(world.task() for _ in range(6)))
    world.step(world.task(slots=12))
    for number in range(1, 4):
        decisions = world.step(world.ended(number, duration=9))
    assert placed(decisions) == [(7, "a")]


def test_a_limit_that_is_stated_no_more_holds_nobody_up() -> None:
    world = World()
    world.step(world.sign_in("a", CapabilitySpec(name="do", concurrency=1), lease=600), world.task())
    world.step(world.sign_in("b", "do", lease=600), world.task())
    assert world.status(2) is TaskStatus.PENDING
    assert placed(world.step(world.sign_in("a", "other", lease=600))) == [(2, "b")]


def test_an_extension_is_known_to_the_next_leader() -> None:
    world = World()
    world.step(world.sign_in(lease=3_600), world.task(run_timeout=10, max_attempts=1))
    world.step(world.started(1, extend=3_600))
    board = successor(world).scheduler.board
    (task,) = board.tasks.values()
    assert task.current is not None
    assert task.current.extended_ms == 3_600_000


@pytest.mark.parametrize("value", [b"{", b"{}", b'"x"', b"[1]"])
@pytest.mark.parametrize("kind", [kind for kind in NoteKind if kind is not NoteKind.SCHEDULE])
def test_a_note_that_cannot_be_read_is_forgotten(kind: NoteKind, value: bytes) -> None:
    world = World()
    world.step(world.sign_in())
    scheduler = Scheduler()
    scheduler.load((world.agent(),), (), world.now, [Note(kind, "a do", value)])
    assert [(note.kind, note.value) for note in scheduler.step([], world.now).notes] == [(kind, None)]


def test_a_key_that_had_much_and_has_nothing_is_next_again() -> None:
    world = World()
    world.step(world.sign_in("big", slots=100, lease=3_600), *(world.task(fairness_key="k") for _ in range(100)))
    world.step(world.command("drain", "big"), *(world.ended(number, duration=9) for number in range(1, 101)))
    world.step(*(world.task(fairness_key="m") for _ in range(300)), *(world.task(fairness_key="k") for _ in range(10)))
    decisions = world.step(world.sign_in("one", lease=3_600))
    order: list[int] = []
    for _ in range(20):
        ((number, _),) = placed(decisions)
        order.append(number)
        decisions = world.step(world.ended(number, duration=60))
    assert keys_of(world, order).count("k") >= 9


def test_shares_of_tasks_that_were_cancelled_are_forgotten() -> None:
    world = World()
    for number in range(1, 301):
        world.step(world.task(fairness_key=f"k{number}"))
        world.step(world.cancel(number))
    assert len(world.scheduler.board.order._shares) == 0


def test_a_limit_that_a_task_names_twice_counts_it_once() -> None:
    world = World()
    world.step(world.sign_in(slots=8, lease=600))
    both = [*limit(concurrency=4), *limit(rate="1000/s", burst=100)]
    assert len(placed(world.step(*(world.task(limits=both) for _ in range(6))))) == 4


def test_an_agent_that_was_lost_while_it_shut_down_gets_nothing_when_it_is_heard_again() -> None:
    world = World()
    world.step(world.sign_in(lease=5))
    world.horizon(after=6_000)
    world.step(world.beat(draining=True), world.task())
    assert world.agent().status is AgentStatus.DRAINING
    assert world.status(1) is TaskStatus.PENDING


def test_a_slot_that_is_occupied_is_so_after_another_registration() -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    world.step(world.beat(occupied=1, holding=()))
    world.step(world.sign_in(lease=600))
    assert placed(world.step(world.task())) == []
