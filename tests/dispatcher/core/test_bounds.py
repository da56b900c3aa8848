"""What counts for the bounds of waiting tasks, by the scheduler's decisions."""

from itertools import count
from typing import Any

import pytest

from bus.messages import CapabilitySpec
from bus.states import TaskStatus
from dispatcher.core import bounds
from dispatcher.core.decisions import Decisions, Note, NoteKind
from dispatcher.core.events import Event, Strays
from dispatcher.core.scheduler import Scheduler
from dispatcher.ledger import queue_changes
from tests.dispatcher.core.world import START, World, task_id


class Counted(World):
    """A world that keeps the sets as the ledger would."""

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.sets: dict[str, set[str]] = {}
        """By scope, the ids of what waits."""
        self.bounds: dict[str, int | None] = {}
        """What is in force."""

    def step(self, *events: Event, after: int = 0) -> Decisions:
        decisions = super().step(*events, after=after)
        self.take(decisions)
        return decisions

    def take(self, decisions: Decisions) -> None:
        """Apply what a commit would."""
        for change in (*queue_changes(decisions.changes, ()), *decisions.queues):
            if not change.add and not change.remove:
                self.sets.pop(change.scope, None)
            self.sets.setdefault(change.scope, set()).update(change.add)
            self.sets[change.scope].difference_update(change.remove)
        for note in decisions.notes:
            if note.kind is NoteKind.BOUND:
                self.bounds[note.field] = None if note.value is None else int(note.value)

    def waiting(self) -> set[str]:
        """Return what the records say."""
        return {one for one, guard in self.stored.items() if guard.startswith("PENDING")}


def test_without_bounds_nothing_is_counted() -> None:
    world = Counted()
    world.step(world.sign_in(), *(world.task() for _ in range(5)))
    assert world.sets == {}
    assert world.bounds == {}


def test_what_waits_is_counted_from_the_first_pass_and_retries_are_too() -> None:
    world = Counted(max_pending=10, capability_max_pending={"do": 5})
    world.step()
    assert world.bounds == {"*": 10, "do": 5}
    world.step(world.sign_in(), *(world.task() for _ in range(3)), world.task("other", delay=9))
    assert world.sets == {"*": world.waiting(), "do": {task_id(2), task_id(3)}}
    world.step(world.failed(1, retry_after=5))
    assert task_id(1) in world.sets["do"]
    world.step(world.cancel(1, 4))
    assert world.sets["*"] == world.waiting()


def test_the_strictest_that_agents_state_counts_for_as_long_as_they_are_known() -> None:
    world = Counted(capability_max_pending={"do": 50}, forget_agent_ms=1_000)
    world.step(world.sign_in("a", CapabilitySpec(name="do", max_pending=7)))
    world.step(world.sign_in("b", CapabilitySpec(name="do", max_pending=9), CapabilitySpec(name="b", max_pending=2)))
    world.step()
    assert world.bounds == {"do": 7, "b": 2}
    world.step(world.sign_out("a"), world.sign_out("b"))
    world.step(after=5_000)
    world.step()
    assert world.bounds == {"do": 50, "b": None}
    assert world.sets["b"] == set()


def test_a_new_bound_is_in_force_when_its_set_is_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "FILL", 10)
    world = Counted()
    world.step(*(world.task() for _ in range(25)), *(world.task("other") for _ in range(5)))
    world.step(world.sign_in("a", CapabilitySpec(name="do", max_pending=3), slots=2))
    for _ in count():
        if "do" in world.bounds:
            break
        assert world.scheduler.next_due == world.now
        running = [n for n in range(1, 31) if world.status(n) is TaskStatus.ASSIGNED]
        world.step(world.ended(running[0], duration=9), world.task())
    assert world.bounds == {"do": 3}
    others = {task_id(n) for n in range(26, 31)}
    assert world.sets["do"] == world.waiting() - others


def test_the_next_leader_goes_on_with_the_set_and_drops_what_is_no_longer_bounded() -> None:
    world = Counted()
    notes = [Note(NoteKind.BOUND, "do", b"5"), Note(NoteKind.BOUND, "*", b"9")]
    successor = Scheduler(Counted(max_pending=4).config)
    successor.load((), (), START, notes)
    world.take(successor.step([world.task()], START))
    assert world.bounds == {"do": None, "*": 4}
    assert world.sets == {"*": {task_id(1)}, "do": set()}


def test_strays_are_taken_out_and_nothing_else() -> None:
    world = Counted(max_pending=10)
    world.step()
    world.step(world.task())
    world.sets["*"].add("default.gone")
    world.step(Strays("*", ("default.gone", task_id(1))))
    assert world.sets["*"] == {task_id(1)}
