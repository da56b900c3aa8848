"""A command on all tasks of a kind reaches every one that was submitted before it, in short passes."""

from pydantic_core import from_json

from bus.filters import TaskFilter
from bus.states import TaskPriority, TaskStatus
from dispatcher.core import sweeps
from dispatcher.core.decisions import Decisions, NoteKind
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.world import World, task_id


def told(decided: list[Decisions]) -> list[tuple[int, bool]]:
    """Return (count, finished) of each word to the operator."""
    said = [from_json(reply.body)["swept"] for d in decided for reply in d.replies if reply.client_id == "operator"]
    return [(one["count"], one["finished"]) for one in said]


def test_all_that_match_are_cancelled_whatever_their_status_and_nobody_else() -> None:
    world = World()
    world.step(world.sign_in(slots=2), world.task(tags=["x"]), world.task(tags=["x", "y"]))
    world.step(world.started(1), world.task(tags=["x"], delay=5), world.task(tags=["y"]), world.task(tags=["x"]))
    decisions = world.step(world.cancel_matching(tags=("x",), reason="no need"), after=1)
    world.step(world.stopped(1), world.stopped(2))
    assert [world.status(n) is TaskStatus.CANCELLED for n in (1, 2, 3, 4, 5)] == [True, True, True, False, True]
    assert told([decisions]) == [(4, True)]
    assert world.run(1).reason == "no need"


def test_many_take_many_short_passes_and_the_leader_goes_on_by_itself() -> None:
    world = World()
    for _ in range(10):
        world.step(*(world.task("nobody", tags=["x"]) for _ in range(500)))
    first = len(world.decided)
    world.step(world.cancel_matching(tags=("x",)))
    while (due := world.scheduler.next_due) is not None and due <= world.now:
        world.step(after=40)
    decided = world.decided[first:]
    assert max(len(d.changes) for d in decided) <= sweeps.CONCERNED
    assert told(decided)[-1] == (5_000, True)
    assert 1 < len(told(decided)) <= 5_000 / sweeps.CONCERNED, "a word now and then"
    assert not world.scheduler.board.tasks


def test_a_submission_that_was_unread_then_is_cancelled_and_a_later_one_is_not() -> None:
    world = World()
    before = world.task(tags=["x"])
    world.pass_time(10)
    world.step(world.cancel_matching(tags=("x",)))
    world.pass_time(10)
    world.step(before, world.task(tags=["x"]))
    assert (world.status(1), world.status(2)) == (TaskStatus.CANCELLED, TaskStatus.PENDING)


def test_a_sweep_is_forgotten_when_no_submission_can_be_unread_any_more() -> None:
    world = World(tombstone_ms=1_000)
    world.step(world.cancel_matching(tags=("x",)))
    decisions = world.step(after=1_000)
    assert not world.scheduler.board.sweeps
    assert [(note.kind, note.value) for note in decisions.notes] == [(NoteKind.SWEEP, None)]


def test_a_new_leader_goes_on_with_it() -> None:
    world = World()
    world.step(*(world.task("nobody", tags=["x"]) for _ in range(500)))
    decisions = world.step(world.cancel_matching(tags=("x",), reason="why"))
    notes = [note for d in world.decided for note in d.notes]
    assert len(decisions.changes) == sweeps.CONCERNED
    successor = Scheduler(world.config, seed=2)
    records = [stored for one in world.stored if (stored := world.record(one)) and not stored.guard.status.terminal]
    successor.load((), records, world.now, [notes[-1]])
    world.scheduler = successor
    while (due := world.scheduler.next_due) is not None and due <= world.now:
        world.step(after=40)
    assert {guard.partition("/")[0] for guard in world.stored.values()} == {"CANCELLED"}
    assert told(world.decided)[-1] == (500, True)
    assert world.run(500).reason == "why"


def test_a_filter_asks_of_live_tasks_what_it_asks_of_records() -> None:
    world = World()
    world.step(world.sign_in("a"), world.task(fairness_key="k", priority=TaskPriority.LOW))
    world.step(world.task("nobody", fairness_key="k", priority=TaskPriority.HIGH), world.task("nobody"))
    for where, matching in (
        ({"status": ("PENDING",)}, [2, 3]),
        ({"status": ("ASSIGNED", "RUNNING")}, [1]),
        ({"agent_id": "a"}, [1]),
        ({"capability": "nobody"}, [2, 3]),
        ({"fairness_key": "k", "priority": "HIGH"}, [2]),
        ({"reason": ("expired",)}, []),
        ({"ended_after": 0}, []),
        ({"enqueued_after": world.now + 1}, []),
        ({}, [1, 2, 3]),
    ):
        asked = TaskFilter.model_validate(where)
        found = [n for n in (1, 2, 3) if asked.matches(sweeps.facts_of(world.scheduler.board.tasks[task_id(n)]))]
        assert found == matching, where


def test_all_that_match_get_another_priority_and_each_is_counted_once() -> None:
    world = World()
    unread = world.task("nobody", tags=["x"])
    world.step(world.task("nobody", tags=["x"]), world.task("nobody"))
    decisions = world.step(world.reprioritise_matching(TaskPriority.URGENT, tags=("x",)), unread)
    assert [world.run(n).priority for n in (1, 2, 3)] == [TaskPriority.URGENT, TaskPriority.URGENT, None]
    assert told([decisions]) == [(2, True)]


def test_what_is_being_cancelled_already_is_not_counted_again_by_the_next_leader() -> None:
    world = World()
    world.step(world.sign_in(slots=3, lease=3_600), *(world.task() for _ in range(3)))
    world.step(*(world.started(n) for n in (1, 2, 3)))
    command = world.cancel_matching(capability="do")
    world.step(command)
    world.take_over()
    assert told([world.step(command), world.step(after=5_000)])[-1] == (0, True)
