"""Children in the scheduler: whose submission is taken, what ends with a parent, and who counts for what room."""

from typing import Any

import pytest
from pydantic_core import from_json

from bus.messages import MAX_DEPTH, CapabilitySpec, Explain
from bus.records import Run
from bus.states import TaskStatus
from dispatcher.core.decisions import Decisions
from dispatcher.core.events import Commanded, Duplicate, Event, Found, Submitted
from dispatcher.core.record import StoredTask, restore_agent
from tests.dispatcher.core.world import World, placed, stops, task_id
from tests.simulation.ledger import MemoryLedger


@pytest.fixture
def world() -> World:
    return World()


def child(world: World, parent: int, *, attempt: int | None = 1, depth: int = 1, **fields: Any) -> Submitted:
    """Make the submission of a child of task `parent`."""
    return world.task(parent=task_id(parent), parent_attempt=attempt, depth=depth, **fields)


def parent_with(world: World, children: int, *, slots: int = 1, **fields: Any) -> None:
    """Let task 1 run and have so many children, from 2 on."""
    world.step(world.sign_in(slots=slots))
    world.step(world.task(**fields))
    world.step(world.started(1))
    world.step(*(child(world, 1) for _ in range(children)))


def settle(world: World) -> list[Decisions]:
    """Let passes follow each other until there is nothing to do at once."""
    passes = []
    while (due := world.scheduler.next_due) is not None and due <= world.now:
        passes.append(world.step())
    return passes


def answer(world: World, decisions: Decisions) -> list[Event]:
    """Make the answers that the ledger gives to the inquiries of a pass."""
    return [Found(asked, world.stored.get(asked, "")) for asked in decisions.inquiries]


@pytest.mark.parametrize("end", ["cancelled", "failed"])
def test_children_are_cancelled_with_a_parent_that_is_cancelled_or_has_failed(world: World, end: str) -> None:
    parent_with(world, 2, slots=2, max_attempts=1)
    assert world.status(2) is TaskStatus.ASSIGNED
    event = world.cancel(1) if end == "cancelled" else world.failed(1)
    decided = world.step(event)
    assert world.status(3) is TaskStatus.CANCELLED, "it waited: its parent's cancel is its own, from the first moment"
    assert ("a", task_id(2), 1) in stops(decided)
    world.step(world.stopped(2))
    assert world.status(2) is TaskStatus.CANCELLED


def test_a_child_that_comes_while_its_parent_is_cancelled_is_cancelled(world: World) -> None:
    parent_with(world, 0)
    world.step(world.cancel(1))
    world.step(child(world, 1, number=2))
    assert (world.status(1), world.status(2)) == (TaskStatus.RUNNING, TaskStatus.CANCELLED)


def test_a_child_that_is_requeued_goes_on_by_itself(world: World) -> None:
    parent_with(world, 1, slots=2, max_attempts=1)
    world.step(world.failed(2, retryable=False))
    world.step(world.requeue(2))
    world.step(world.failed(1))
    settle(world)
    assert (world.status(1), world.status(2)) == (TaskStatus.FAILED, TaskStatus.ASSIGNED)


def test_children_go_on_when_their_parent_has_completed(world: World) -> None:
    parent_with(world, 2)
    world.step(world.ended(1))
    assert world.status(2) is TaskStatus.ASSIGNED
    world.step(world.ended(2))
    world.step(world.ended(3))
    assert world.status(3) is TaskStatus.COMPLETED


def test_children_go_on_when_their_parent_is_tried_again(world: World) -> None:
    parent_with(world, 1)
    world.step(world.failed(1))
    assert world.status(1) is TaskStatus.PENDING
    assert world.status(2) is TaskStatus.ASSIGNED


def test_grandchildren_are_cancelled_too(world: World) -> None:
    parent_with(world, 1, slots=5)
    world.step(world.started(2), child(world, 2, depth=2))
    world.step(world.started(3), child(world, 3, depth=3))
    world.step(world.cancel(1))
    settle(world)
    world.step(*map(world.stopped, (1, 2, 3, 4)))
    assert {world.status(n) for n in (1, 2, 3, 4)} == {TaskStatus.CANCELLED}


def test_a_large_tree_is_cut_in_short_passes(world: World) -> None:
    world = World(children_per_pass=10)
    parent_with(world, 95)
    passes = [world.step(world.cancel(1)), *settle(world)]
    assert all(len(decided.changes) <= 12 for decided in passes)
    assert len(passes) == 10
    assert {world.status(n) for n in range(2, 97)} == {TaskStatus.CANCELLED}


def test_a_child_of_an_attempt_that_is_over_is_cancelled(world: World) -> None:
    parent_with(world, 0)
    world.step(world.failed(1))
    world.step(child(world, 1))
    assert world.status(2) is TaskStatus.CANCELLED, "nobody has the parent"
    world.step(after=10_000)
    assert world.guard(1).attempt == 2
    world.step(child(world, 1), child(world, 1, attempt=2))
    assert world.status(3) is TaskStatus.CANCELLED, "attempt 1 is a zombie's"
    assert world.status(4) is TaskStatus.PENDING


@pytest.mark.parametrize(
    ("end", "status"),
    [("ended", TaskStatus.ASSIGNED), ("failed", TaskStatus.CANCELLED), ("stopped", TaskStatus.CANCELLED)],
)
def test_how_a_parent_ended_whose_end_was_read_first_is_asked_of_the_ledger(
    world: World, end: str, status: TaskStatus
) -> None:
    parent_with(world, 0, max_attempts=1)
    world.step(getattr(world, end)(1))
    decided = world.step(child(world, 1, number=2))
    assert decided.inquiries == [task_id(1)]
    told = stops(world.step(*answer(world, decided)))
    assert bool(told) is (status is TaskStatus.CANCELLED)
    if told:
        world.step(world.stopped(2))
    assert world.status(2) is status


def test_a_parent_whose_record_is_gone_leaves_its_children_alone(world: World) -> None:
    decided = world.step(child(world, 77, number=2))
    world.step(*answer(world, decided))
    assert world.status(2) is TaskStatus.PENDING


@pytest.mark.parametrize("attempt", [1, None])
@pytest.mark.parametrize("waits", [True, False])
@pytest.mark.parametrize(("end", "told"), [("ended", False), ("failed", True)])
def test_a_parent_that_has_ended_and_whose_submission_is_read_again_does_not_end_its_children(
    world: World, end: str, attempt: int | None, *, waits: bool, told: bool
) -> None:
    parent_with(world, 0, max_attempts=1)
    world.step(getattr(world, end)(1))
    if waits:
        world.step(world.task(number=3))  # which has the slot now
    world.scheduler.step([world.task(number=1)], world.now)
    world.scheduler.step([child(world, 1, number=2, attempt=attempt)], world.now)
    decided = world.scheduler.step([Duplicate(task_id(1))], world.now)
    assert decided.inquiries == [task_id(1)], "the parent's end is the ledger's to tell"
    world.scheduler.step(answer(world, decided), world.now)
    for _ in range(3):
        world.scheduler.step([], world.now)
    found = world.scheduler.board.tasks.get(task_id(2))
    assert (found is None or found.cancellation is not None) is told


def test_an_end_that_only_memory_has_of_a_task_that_is_read_again_does_not_end_its_children(world: World) -> None:
    parent_with(world, 0)
    world.step(world.ended(1))
    world.step(world.task(number=3))
    decided = world.scheduler.step([world.task(number=1), child(world, 1, number=2), world.cancel(1)], world.now)
    assert decided.inquiries == [task_id(1)]
    world.scheduler.step([Duplicate(task_id(1)), Found(task_id(1), world.stored[task_id(1)])], world.now)
    world.scheduler.step([], world.now)
    assert world.scheduler.board.live(task_id(2)) is not None


def test_a_child_that_is_read_again_after_its_end_is_nobodys_live_child(world: World) -> None:
    parent_with(world, 1, slots=2)
    world.step(world.ended(2))
    world.scheduler.step([child(world, 1, number=2)], world.now)
    world.scheduler.step([Duplicate(task_id(2))], world.now)
    assert world.scheduler.board.family.live(task_id(1)) == 0


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"depth": 0}, "its depth is 0, and must be 1"),
        ({"depth": 5}, "its depth is 5, and must be 1"),
        ({"depth": MAX_DEPTH + 1}, "the limit is 16"),
        ({"parent": "other.1"}, "of another pool"),
    ],
)
def test_a_child_that_breaks_the_rules_is_rejected(world: World, fields: dict[str, Any], words: str) -> None:
    parent_with(world, 0)
    decided = world.step(world.task(**{"parent": task_id(1), "parent_attempt": 1, "depth": 1, **fields}))
    assert world.status(2) is TaskStatus.FAILED
    assert words in from_json(decided.changes[0].run)["error"]["message"]


def test_a_submission_that_is_read_twice_is_one_child(world: World) -> None:
    parent_with(world, 0)
    event = child(world, 1, number=2)
    world.step(event)
    world.step(event)
    assert world.scheduler.board.family.live(task_id(1)) == 1
    kin = world.scheduler.board.tasks[task_id(1)].kin
    assert kin is not None
    assert kin.children == 1


# --- room


def test_a_parent_that_waits_without_its_slot_lets_its_child_have_it(world: World) -> None:
    parent_with(world, 1)
    assert world.status(2) is TaskStatus.PENDING
    decided = world.step(world.started(1, waiting=True))
    assert placed(decided) == [(2, "a")]
    assert world.agent().used == 1
    world.step(world.started(1, waiting=False))
    assert world.agent().free == -1, "for a moment it has more than its slots"
    world.step(world.ended(2))
    assert world.agent().free == 0
    world.step(world.ended(1))
    assert world.agent().free == 1


def test_a_waiting_parent_gives_up_resources_limits_and_its_share(world: World) -> None:
    asked: dict[str, Any] = {
        "resources": {"gpu": 1},
        "limits": [{"key": "l", "concurrency": 1}],
        "fairness_key": "k",
    }
    world.step(world.sign_in(slots=2, resources={"gpu": 1}))
    world.step(world.task(**asked))
    world.step(world.started(1), child(world, 1, **asked))
    assert world.status(2) is TaskStatus.PENDING
    world.step(world.started(1, waiting=True))
    assert world.status(2) is TaskStatus.ASSIGNED
    world.step(world.started(1, waiting=False))
    assert world.scheduler.board.limits.held("l") == 2
    world.step(world.ended(2), world.ended(1))
    assert world.scheduler.board.limits.held("l") == 0
    assert world.agent().granted == {"gpu": 0}
    assert world.scheduler.board.order._shares == {}


@pytest.mark.parametrize("end", ["ended", "failed", "stopped"])
def test_an_end_while_it_waits_returns_nothing_twice(world: World, end: str) -> None:
    parent_with(world, 0, slots=2)
    world.step(world.started(1, waiting=True))
    world.step(getattr(world, end)(1))
    assert (world.agent().used, world.agent().tasks) == (0, {})


def test_who_signs_in_anew_with_the_same_session_still_waits(world: World) -> None:
    parent_with(world, 0)
    world.step(world.started(1, waiting=True))
    world.step(world.sign_in())
    assert world.agent().used == 0
    world.step(world.started(1, waiting=False))
    assert world.agent().used == 1


def test_waiting_for_children_counts_as_progress(world: World) -> None:
    parent_with(world, 0, progress_timeout=10)
    world.step(world.started(1, waiting=True))
    for _ in range(6):
        world.step(world.beat())
        world.horizon(after=4_000)
    assert (world.status(1), world.guard(1).attempt) == (TaskStatus.RUNNING, 1)
    world.step(world.started(1, waiting=False))
    for _ in range(6):
        world.step(world.beat())
        world.horizon(after=4_000)
    assert world.guard(1).attempt == 2


def test_why_a_child_waits_for_its_own_parent_is_explained(world: World) -> None:
    parent_with(world, 1)

    def why(number: int) -> str:
        asked = Commanded(Explain(task_id=task_id(number), reply_to="me"), world.now)
        (reply,) = world.step(asked).replies
        return str(from_json(reply.body)["explanation"]["text"])

    assert f"its parent {task_id(1)} keeps 1 slot of a: if it waits for this task, `release_slot=True`" in why(2)
    world.step(world.started(1, waiting=True))
    assert "waits for its children, 1 live, without its slots" in why(1)


# --- the next leader


def taken_over(world: World, ledger: MemoryLedger) -> World:
    """Return a world whose leader has loaded what the other one stored."""
    after = World()
    after.now, after.stored = world.now, {task: record.guard for task, record in ledger.tasks.items()}
    fleet = [restore_agent(record, world.now) for record in ledger.agents.values()]
    live: list[StoredTask] = ledger.live()
    after.scheduler.load(fleet, live[::-1], world.now)
    return after


class Stored(World):
    """A world with a ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = MemoryLedger()

    def step(self, *events: Event, after: int = 0) -> Decisions:
        for event in events:
            if isinstance(event, Submitted):
                event.body = event.header.model_copy(update={"id": event.task_id}).model_dump_json().encode()
        decisions = super().step(*events, after=after)
        self.ledger.commit(decisions)
        return decisions


def test_the_next_leader_counts_the_same_room() -> None:
    world = Stored()
    parent_with(world, 1)
    world.step(world.started(1, waiting=True))
    after = taken_over(world, world.ledger)
    assert after.agent().used == 1
    after.step(after.started(1, waiting=False))
    assert after.agent().used == 2


def test_the_next_leader_cuts_what_the_last_one_left() -> None:
    world = Stored()
    parent_with(world, 2, slots=2)
    world.stored, kept = dict(world.stored), world.ledger
    decided = world.scheduler.step([world.stopped(1)], world.now)
    decided.changes = [change for change in decided.changes if change.task_id == task_id(1)]
    kept.commit(decided)  # it died before it stored the end of the children
    after = taken_over(world, kept)
    asked = after.step()
    assert asked.inquiries == [task_id(1)]
    told = sorted(stops(after.step(*answer(after, asked))))
    assert told == [("a", task_id(2), 1), ("a", task_id(3), 1)]
    after.step(after.stopped(2), after.stopped(3))
    assert (after.status(2), after.status(3)) == (TaskStatus.CANCELLED, TaskStatus.CANCELLED)


def test_the_next_leader_stores_how_many_children_there_were_where_the_last_one_did_not() -> None:
    world = Stored()
    parent_with(world, 0)
    world.stored, kept = dict(world.stored), world.ledger
    one = child(world, 1)
    one.body = one.header.model_copy(update={"id": one.task_id}).model_dump_json().encode()
    decided = world.scheduler.step([one], world.now)
    decided.changes = [change for change in decided.changes if change.task_id != task_id(1)]
    kept.commit(decided)  # it died before it stored the parent
    after = taken_over(world, kept)
    (change,) = after.step().changes
    assert (change.task_id, Run.model_validate_json(change.run).children) == (task_id(1), 1)


def test_the_next_leader_asks_nothing_of_parents_that_live_and_cuts_theirs() -> None:
    world = Stored()
    parent_with(world, 2)
    after = taken_over(world, world.ledger)
    assert after.step().inquiries == []
    after.step(after.cancel(1))
    assert after.status(3) is TaskStatus.CANCELLED


def test_a_parent_that_waits_does_not_count_for_a_limit_that_is_stated_meanwhile(world: World) -> None:
    parent_with(world, 0)
    world.step(world.started(1, waiting=True))
    world.step(world.sign_in("b", CapabilitySpec(name="do", concurrency=1), slots=5, lease=600))
    world.step(world.ended(1))
    assert placed(world.step(world.task())) != [], "nothing of it is left in the limit"


def test_a_new_leader_goes_on_to_cancel_the_children_of_a_parent_that_is_being_cancelled() -> None:
    world = World(children_per_pass=1)
    world.step(world.sign_in(slots=8, lease=3_600), world.task())
    world.step(world.started(1))
    world.step(*(world.task(parent=task_id(1), parent_attempt=1, depth=1) for _ in range(3)))
    world.step(world.cancel(1, grace=600), after=10)
    world.take_over()
    for _ in range(5):
        world.step(after=10)
    assert all(world.status(n).terminal or world.run(n).cancellation is not None for n in (2, 3, 4))


def test_what_a_requeued_parent_submits_anew_is_not_cut_with_its_earlier_children() -> None:
    world = World(children_per_pass=1)
    world.step(world.sign_in(slots=20), world.task(max_attempts=1))
    world.step(world.started(1))
    world.step(*(world.task(parent=task_id(1), parent_attempt=1, depth=1) for _ in range(5)))
    world.step(world.failed(1))
    world.step(world.requeue(1))
    world.step(world.started(1))
    world.step(world.task(parent=task_id(1), parent_attempt=2, depth=1))
    for _ in range(10):
        world.step(after=1)
    assert all(world.status(n).terminal or world.run(n).cancellation is not None for n in (2, 3, 4, 5, 6))
    assert world.status(7) is TaskStatus.ASSIGNED
