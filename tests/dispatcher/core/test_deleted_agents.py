"""An agent that leaves for good is forgotten once its tasks are with others, not an hour later; leaders may change."""

import pytest

from bus.records import AgentRecord
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core.decisions import Decisions
from dispatcher.core.record import restore_agent
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.world import World, placed


def forgotten(*decided: Decisions) -> list[str]:
    return [change.agent_id for decisions in decided for change in decisions.agents if change.record is None]


def test_one_that_drains_for_good_is_forgotten_when_it_has_signed_out() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task())
    world.step(world.started(1), world.command("drain", forget=True))
    world.step(world.ended(1))
    assert world.agent().status is AgentStatus.DRAINING
    assert forgotten(world.step(world.sign_out())) == [], "reports of it may be unread"
    assert forgotten(world.horizon(after=1)) == ["a"]
    assert "a" not in world.scheduler.board.fleet.agents


def test_what_it_still_held_is_given_on_first() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task())
    world.step(world.started(1), world.sign_in("b", lease=600))
    world.step(world.sign_out(forget=True))
    decisions = world.horizon(after=1)
    assert forgotten(decisions) == ["a"]
    assert placed(decisions) == [(1, "b")]
    assert world.guard(1).attempt == 2


@pytest.mark.parametrize("command", [{"kind": "drain"}, {"kind": "restart", "forget": True}])
def test_who_only_drains_or_restarts_is_remembered(command: dict[str, object]) -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    world.step(world.command(**command))  # type: ignore[arg-type] # fields of the command
    world.step(world.sign_out())
    world.horizon(after=60_000)
    assert forgotten(*world.decided) == []
    assert world.agent().status is AgentStatus.STOPPED


def test_one_that_is_lost_or_has_stopped_is_forgotten_at_once() -> None:
    world = World()
    world.step(world.sign_in(lease=1), world.sign_in("b", lease=600))
    world.step(world.sign_out("b"))
    world.horizon(after=2_000)
    assert world.standing() == (AgentStatus.ERROR, AgentHealth.LOST)
    world.step(world.command("drain", forget=True), world.command("drain", "b", forget=True))
    world.horizon(after=1)
    assert sorted(forgotten(*world.decided)) == ["a", "b"]


def test_the_next_leader_forgets_it_too() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("drain", forget=True))
    (change,) = world.step(world.sign_out()).agents
    assert change.record is not None
    record = AgentRecord.model_validate_json(change.record.model_dump_json())
    world.scheduler = Scheduler(world.config, seed=2)
    world.scheduler.load([restore_agent(record, world.now)], (), world.now)
    assert forgotten(world.horizon(after=1)) == ["a"]


def test_one_that_comes_back_is_an_agent_like_any_other() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("drain", forget=True))
    world.step(world.sign_in(session="a2", lease=600), world.task())
    assert forgotten(world.horizon(after=60_000)) == []
    assert world.status(1) is TaskStatus.ASSIGNED
    world.step(world.ended(1))
    world.step(world.sign_out())
    world.horizon(after=60_000)
    assert forgotten(*world.decided) == [], "that drain was of an earlier session"
