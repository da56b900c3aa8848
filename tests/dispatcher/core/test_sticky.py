"""A task with a sticky key goes to the agent that had the last of that key, if it has room now."""

import pytest

from bus.records import Run
from dispatcher.core import sticky
from dispatcher.core.decisions import NoteKind
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.world import World, placed


def test_the_agent_that_had_the_key_is_preferred_to_one_with_more_room_or_what_is_preferred() -> None:
    world = World()
    world.step(world.sign_in("a", slots=3), world.task(sticky="k"))
    world.step(world.sign_in("b", slots=9, attributes={"zone": "eu"}))
    assert placed(world.step(world.task(sticky="k"), world.task(sticky="k", prefers=["zone == eu"]))) == [
        (2, "a"),
        (3, "a"),
    ]
    assert placed(world.step(world.task(sticky="other"), world.task())) == [(4, "b"), (5, "b")]


def test_nobody_waits_for_it_and_the_key_moves_on() -> None:
    world = World()
    world.step(world.sign_in("a", slots=1), world.task(sticky="k"))
    world.step(world.sign_in("b", slots=2))
    assert placed(world.step(world.task(sticky="k"))) == [(2, "b")]
    world.step(world.ended(1))
    assert placed(world.step(world.task(sticky="k"))) == [(3, "b")]


def test_it_never_goes_where_it_could_not_run() -> None:
    world = World()
    world.step(world.sign_in("a", slots=4), world.sign_in("b", slots=1, attributes={"gpu": 1}))
    assert placed(world.step(world.task(sticky="k"))) == [(1, "a")]
    assert placed(world.step(world.task(sticky="k", requires=["gpu exists"]))) == [(2, "b")]
    world.step(world.ended(2))
    assert placed(world.step(world.task(sticky="k"))) == [(3, "b")]
    world.step(world.ended(3), world.command("drain", "b"))
    assert placed(world.step(world.task(sticky="k"))) == [(4, "a")]


def test_the_next_leader_knows_and_a_change_alone_is_written() -> None:
    world = World()
    first = world.step(world.sign_in("a", slots=3), world.task(sticky="k"))
    notes = [note for note in first.notes if note.kind is NoteKind.STICKY]
    assert [note.field for note in notes] == ["k"]
    assert not world.step(world.task(sticky="k")).notes
    successor = Scheduler()
    successor.load((world.agent("a"),), (), world.now, notes)
    assert successor.board.sticky.preferred is not None
    successor.step([world.sign_in("b", slots=9), world.task(sticky="k", number=7)], world.now)
    assert [t.current.agent.id for t in successor.board.tasks.values() if t.current and t.current.agent] == ["a"]


def test_so_many_keys_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sticky, "KEPT", 2)
    world = World()
    world.step(world.sign_in("a", slots=9))
    notes = [note for k in "abac" for note in world.step(world.task(sticky=k)).notes]
    assert [(note.field, note.value is None) for note in notes] == [
        ("a", False),
        ("b", False),
        ("c", False),
        ("b", True),
    ]
    for n in range(1, 5):
        world.step(world.ended(n))
    assert not world.scheduler.board.sticky.wanted


def test_it_makes_no_classes_and_no_terms() -> None:
    world = World()
    world.step(*(world.task(sticky=f"k{n}") for n in range(50)))
    assert len(world.scheduler.board.fleet.classes) == 1
    assert len({id(task.terms) for task in world.scheduler.board.tasks.values()}) == 1


def test_why_it_went_there_is_stored_in_numbers_alone() -> None:
    world = World()
    world.step(world.sign_in("a", slots=3), world.task(sticky="k"))
    (change,) = world.step(world.task(sticky="k")).changes
    assert b"true" not in change.run
    assert Run.model_validate_json(change.run).why[-1] == 1
