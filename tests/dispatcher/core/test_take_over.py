"""What a new leader makes of what the ledger has, and passes that stay short however much is due."""

from typing import Any

import pytest

from bus.messages import CapabilitySpec, TaskHeader
from bus.records import Guard, Run
from bus.states import AgentHealth, AgentStatus, FailureReason, TaskStatus
from dispatcher.core.decisions import Decisions, Note, NoteKind
from dispatcher.core.events import Blind, Horizon
from dispatcher.core.model import AgentState
from dispatcher.core.record import StoredTask, agent_record, restore_agent
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.world import START, World, placed, task_id, told


def successor(world: World, *, without_agent: bool = False) -> World:
    """Return a world that goes on where `world` stands, under a new leader that knows only what is stored."""
    new = World()
    new.now, new.stored, new.places = world.now, dict(world.stored), dict(world.places)
    board = world.scheduler.board
    fleet = [] if without_agent else [restore_agent(agent_record(a), new.now) for a in board.fleet.agents.values()]
    tasks = []
    for task in board.tasks.values():
        terms = task.terms
        header = TaskHeader(
            capability="do",
            queue_timeout=None if terms.queue_timeout_ms is None else terms.queue_timeout_ms / 1000,
            run_timeout=None if terms.run_timeout_ms is None else terms.run_timeout_ms / 1000,
        )
        current = task.current
        run = Run(
            enqueued_at=task.enqueued_at,
            priority=task.priority,
            not_before=task.not_before or None,
            assigned_at=None if current is None else current.assigned_at,
            started_at=None if current is None else current.started_at,
            extended_ms=0 if current is None else current.extended_ms,
            attempts=task.attempts,
        )
        tasks.append(StoredTask(task.id, Guard.parse(task.stored), header, run))
    notes = [note for decisions in world.decided for note in decisions.notes]
    new.scheduler.load(fleet, tasks, new.now, notes)
    return new


def drain_of_timers(scheduler: Scheduler, now: int) -> list[Decisions]:
    """Step until nothing is due any more."""
    passes = [scheduler.step([], now)]
    while scheduler.next_due is not None and scheduler.next_due <= now:
        passes.append(scheduler.step([], now))
    return passes


@pytest.mark.parametrize("kind", ["expire", "ready"])
def test_however_many_timers_are_due_a_pass_rings_only_so_many(kind: str) -> None:
    world = World()
    fields: Any = {"queue_timeout": 5} if kind == "expire" else {"delay": 5}
    world.step(*(world.task(**fields) for _ in range(2_000)))
    passes = drain_of_timers(world.scheduler, world.now + 6_000)
    assert [len(decisions.changes) for decisions in passes] == [500] * 4


def test_however_much_room_there_is_a_pass_places_only_so_many() -> None:
    world = World(placements_per_pass=100)
    world.step(*(world.task() for _ in range(250)))
    first = world.step(world.sign_in(slots=100_000))
    rest = drain_of_timers(world.scheduler, world.now)
    assert [len(placed(decisions)) for decisions in (first, *rest)][:3] == [100, 100, 50]


def test_leases_that_are_due_are_bounded_too_and_asked_for_at_once() -> None:
    world = World(timers_per_pass=3)
    world.step(*(world.sign_in(f"a{n}") for n in range(8)))
    world.horizon(after=60_000)
    due = world.scheduler.next_due
    assert due is not None
    assert due <= world.scheduler.board.horizon
    while (due := world.scheduler.next_due) is not None and due <= world.scheduler.board.horizon:
        world.step()
    assert all(a.health is AgentHealth.LOST for a in world.scheduler.board.fleet.agents.values())


def test_the_tasks_of_an_agent_that_was_stored_as_lost_are_freed_by_the_successor() -> None:
    world = World()
    world.step(world.sign_in(slots=2), world.task(), world.task())
    world.step(world.started(1))
    agent = world.agent()
    agent.health, agent.status = AgentHealth.LOST, AgentStatus.ERROR  # stored; the leader died before the tasks were
    new = successor(world)
    new.horizon(after=agent.lease_ms + 1)
    assert [new.status(n) for n in (1, 2)] == [TaskStatus.PENDING] * 2


def test_a_cancel_that_overtook_its_task_is_known_to_the_successor() -> None:
    world = World()
    world.step(world.cancel(7, reason="changed my mind"))
    new = successor(world)
    new.step(new.task(number=7))
    assert new.status(7) is TaskStatus.CANCELLED
    assert not new.scheduler.board.tombstones


def test_a_tombstone_that_is_over_is_forgotten_in_the_ledger_too() -> None:
    world = World()
    (note,) = world.step(world.cancel(7)).notes
    decisions = world.step(after=60_000)
    assert [(n.kind, n.field, n.value) for n in decisions.notes] == [(note.kind, task_id(7), None)]


def test_an_agent_whose_record_is_lost_is_asked_to_sign_in_and_keeps_what_it_has() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    world.step(world.started(1))
    new = successor(world, without_agent=True)
    for _ in range(3):
        decisions = new.step(new.beat(session="a1", holding=((task_id(1), 1),)), Horizon(new.now), after=500)
        assert told(decisions) == ["reregister"]
        assert decisions.agents == [], "nothing is stored of somebody whom nobody knows"
    new.step(new.sign_in(session="a1"))
    new.horizon(after=3_000)
    assert new.guard(1) == Guard(TaskStatus.RUNNING, 1, "a", "a1")
    new.step(new.ended(1))
    assert new.status(1) is TaskStatus.COMPLETED


def test_an_agent_whose_record_is_lost_and_that_does_not_come_back_frees_its_tasks() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    new = successor(world, without_agent=True)
    decisions = new.horizon(after=6_000)
    assert new.status(1) is TaskStatus.PENDING
    assert decisions.agents == []
    assert new.scheduler.board.fleet.agents == {}


def test_what_waited_too_long_while_nobody_led_expires() -> None:
    world = World()
    world.step(world.task(queue_timeout=5))
    world.now += 60_000
    new = successor(world)
    decisions = new.step()
    assert decisions.transitions[-1].reason == FailureReason.EXPIRED


def test_a_stopped_agent_is_forgotten_though_the_leader_was_blind_for_a_while() -> None:
    world = World()
    world.step(world.sign_in())
    world.step(world.sign_out())
    world.step(Blind(5_000))
    forget = world.config.forget_agent_ms
    world.step(after=forget + 1)
    world.step(after=6_000)
    assert world.scheduler.board.fleet.agents == {}


def test_a_registration_that_is_read_again_after_the_farewell_changes_nothing() -> None:
    world = World()
    signed_in = world.sign_in()
    world.step(signed_in)
    world.step(world.sign_out(), after=10)
    assert world.step(signed_in).agents == []
    assert world.agent().status is AgentStatus.STOPPED


# --- placing while it is loaded


def half_loaded() -> tuple[World, list[StoredTask]]:
    """Return a leader that has loaded an agent, of one slot, and the first of two tasks; and both tasks' records."""
    old = World()
    old.step(old.task(), old.task())
    records = [stored for number in (1, 2) if (stored := old.record(task_id(number))) is not None]
    new = World(prefetch_tasks=0)
    new.now, new.stored, new.runs, new.headers = old.now, dict(old.stored), dict(old.runs), dict(old.headers)
    new.scheduler.begin_loading()
    new.scheduler.load((), records[:1], new.now)
    return new, records


def test_a_registration_that_is_read_long_after_it_was_written_gives_a_whole_lease() -> None:
    world = World()
    late = world.sign_in()
    world.pass_time(4_500)
    world.step(world.sign_in(), world.task(), after=0)
    world.step(world.started(1))
    world.take_over()
    world.step(late)  # its acknowledgement was lost, and with it, for the new leader, all that was heard since
    world.horizon(after=1_000)
    assert world.agent().status is AgentStatus.RUNNING, "five and a half seconds after it was written"
    world.horizon(after=4_000)
    assert (world.agent().status, world.status(1)) == (AgentStatus.ERROR, TaskStatus.PENDING)


def test_what_is_loaded_is_placed_while_the_rest_is_not() -> None:
    world, records = half_loaded()
    assert placed(world.step(world.sign_in(slots=2))) == [(1, "a")]
    world.scheduler.load((), records[1:], world.now)
    world.scheduler.loaded()
    assert placed(world.step()) == [(2, "a")]


def test_a_page_that_was_read_before_a_task_moved_on_does_not_bring_it_back() -> None:
    world, records = half_loaded()
    world.step(world.sign_in(slots=2))
    world.scheduler.load((), records, world.now)
    assert world.guard(1).status is TaskStatus.ASSIGNED
    world.step(world.ended(1))
    world.scheduler.load((), records, world.now)
    world.scheduler.loaded()
    world.step()
    assert world.status(1) is TaskStatus.COMPLETED
    assert set(world.scheduler.board.tasks) == {task_id(2)}
    assert world.scheduler.board.ended == set()


def test_what_concerns_all_tasks_waits_until_all_are_loaded() -> None:
    world, records = half_loaded()
    sweep = '{"where":{},"at":%d,"reason":"","by":"","priority":null,"reply_to":null,"count":0,"finished":false}'
    note = Note(NoteKind.SWEEP, "s", (sweep % (world.now + 1)).encode())
    world.scheduler.load((), (), world.now, [note])
    assert not world.step().transitions
    assert world.scheduler.next_due is None or world.scheduler.next_due > world.now, "it does not spin"
    world.scheduler.load((), records[1:], world.now)
    world.scheduler.loaded()
    assert world.scheduler.next_due == world.now
    world.step()
    assert [world.status(number) for number in (1, 2)] == [TaskStatus.CANCELLED] * 2


# --- memory


def test_timers_of_tasks_that_have_ended_are_dropped() -> None:
    world = World()
    world.step(world.sign_in(slots=10, lease=3_600))
    for _ in range(600):
        numbers = range(world._last + 1, world._last + 11)
        world.step(*(world.task(run_timeout=3_600, queue_timeout=3_600) for _ in range(10)))
        world.step(*(world.started(n) for n in numbers))
        world.step(*(world.ended(n) for n in numbers))
    board = world.scheduler.board
    assert len(board.clock_timers) + len(board.horizon_timers) < 10_000


def test_an_agent_that_signs_in_again_and_again_has_one_lease() -> None:
    world = World()
    for _ in range(100):
        world.step(world.sign_in())
    world.horizon(after=4_000)
    world.step(world.beat())
    world.horizon(after=4_000)
    assert len(world.scheduler.board.horizon_timers) == 1


def test_the_history_of_a_task_is_bounded() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    for _ in range(200):
        world.step(world.returned(1), after=1)
    task = world.scheduler.board.tasks[task_id(1)]
    assert len(task.attempts) == 50
    assert task.attempts[-1].attempt == 200


def test_classes_whose_tasks_have_all_expired_are_forgotten() -> None:
    world = World()
    for n in range(3_000):
        world.step(world.task(requires=[f"n == {n}"], queue_timeout=1), after=10)
    world.step(after=5_000)
    world.step(world.task(), after=1)
    board = world.scheduler.board
    assert len(board.order.blocked) <= len(board.fleet.classes) < 1_500


def test_true_and_one_are_different_requirements() -> None:
    world = World()
    world.step(world.task(requires=["flag == 1"]), world.task(requires=["flag == true"]))
    assert placed(world.step(world.sign_in(attributes={"flag": True}))) == [(2, "a")]
    assert placed(world.step(world.sign_in("b", attributes={"flag": 1}))) == [(1, "b")]


def test_the_version_that_was_matched_is_told_where_an_agent_offers_several() -> None:
    world = World()
    german = CapabilitySpec(name="do", version="1.0", attributes={"languages": ["de"]})
    english = CapabilitySpec(name="do", version="2.0", attributes={"languages": ["en"]})
    world.step(world.sign_in("a", german, english, slots=3))
    decisions = world.step(world.task(requires=["languages contains de"]), world.task())
    versions = {change.task_id: change.handover.version for change in decisions.changes if change.handover}
    assert versions == {task_id(1): "1.0", task_id(2): "2.0"}


def test_an_agent_state_needs_no_more_than_its_record() -> None:
    agent = AgentState("a", "s", (), 3, START, 5_000, resources={"gpu": 500})
    assert restore_agent(agent_record(agent), START).resources == {"gpu": 500}


def test_an_entry_that_claims_to_be_of_the_future_is_of_now() -> None:
    world = World()
    future = world.now * 50
    beat, signed_in, task = world.beat(session="a1", holding=()), world.sign_in(), world.task()
    beat.at = signed_in.at = task.at = future
    world.step(signed_in, beat, task)
    assert world.scheduler.board.tasks[task_id(1)].enqueued_at == world.now
    world.step(world.started(1))
    world.horizon(after=6_000)
    assert world.agent().health is AgentHealth.LOST
    assert world.status(1) is TaskStatus.PENDING


def test_nobody_is_lost_by_a_clock_that_stood_still() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    world.step(world.started(1))
    beat = world.beat()
    beat.at = world.now + 8_000  # so much later it is for the server, and for the agent
    world.step(beat)
    world.horizon(after=8_100)
    assert world.agent().health is AgentHealth.HEALTHY
    world.horizon(after=6_000)
    assert world.agent().health is AgentHealth.LOST


def test_timers_that_make_much_work_each_are_few_in_a_pass() -> None:
    world = World(timers_per_pass=10)
    world.step(*(world.sign_in(name, slots=20) for name in ("a", "b", "c")))
    world.step(*(world.task() for _ in range(60)))
    lost = [world.horizon(after=6_000)]
    while (due := world.scheduler.next_due) is not None and due <= world.now:
        lost.append(world.step())
    assert [len(decisions.retried) for decisions in lost if decisions.retried] == [20, 20, 20]


def test_a_new_leader_takes_an_agent_without_tasks_for_idle() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    world.runs.clear()
    world.stored.clear()  # the leader died between the end of the task and the word on its agent
    world.take_over()
    assert world.agent().status is AgentStatus.IDLE
