"""An agent's life, and what becomes of its tasks."""

import pytest
from pydantic_core import from_json

from bus.messages import CapabilitySpec, Unregister
from bus.states import AgentHealth, AgentStatus, FailureReason, TaskStatus
from dispatcher.core.events import Blind, Horizon, SignedOut
from tests.dispatcher.core.world import World, placed, stops, task_id, told


def test_signing_in_is_acknowledged_and_stored() -> None:
    world = World()
    decisions = world.step(world.sign_in(slots=4, metadata={"pid": 1}))
    assert told(decisions) == ["registered"]
    (change,) = decisions.agents
    assert change.record is not None
    assert (change.record.status, change.record.slots, change.record.metadata) == (AgentStatus.IDLE, 4, {"pid": 1})


def test_the_same_session_again_keeps_its_tasks_and_takes_new_capabilities() -> None:
    world = World()
    world.step(world.sign_in(), world.task("do"), world.task("make"))
    assert placed(world.step(world.sign_in("a", "do", "make", slots=2))) == [(2, "a")]
    assert world.stored[task_id(1)] == "ASSIGNED/1/a/a1"
    assert placed(world.step(world.sign_in("a", "make", slots=3), world.task("do"), world.task("make"))) == [(4, "a")]


def test_a_new_session_takes_the_name_over_and_frees_the_tasks_of_the_old_one() -> None:
    world = World()
    world.step(world.sign_in(slots=2), world.task(), world.task())
    world.step(world.started(1))
    decisions = world.step(world.sign_in(session="a2"), after=10)
    assert told(decisions) == ["superseded", "registered"]
    assert world.status(1) is TaskStatus.RUNNING  # its last report may lie unread
    done = world.ended(1)
    world.step(done)
    world.horizon(after=1)
    assert world.status(1) is TaskStatus.COMPLETED
    assert world.stored[task_id(2)] == "ASSIGNED/2/a/a2"


def test_a_session_that_was_replaced_may_not_come_back() -> None:
    world = World()
    world.step(world.sign_in())
    world.step(world.sign_in(session="a2"))
    for event in (world.sign_in(session="a1"), world.beat(session="a1")):
        assert told(world.step(event)) == ["superseded"]
    assert world.agent().session == "a2"


def test_a_heartbeat_of_nobody_we_know_asks_for_a_registration() -> None:
    world = World()
    assert told(world.step(world.beat("a"))) == ["reregister"]
    world.step(world.sign_in())
    assert told(world.step(world.beat("a", session="other"))) == ["reregister"]


def test_silence_loses_an_agent_and_its_tasks_go_to_another() -> None:
    world = World()
    world.step(world.sign_in(slots=2, lease=5), world.task(), world.task())
    world.step(world.started(1))
    world.step(world.sign_in("b", slots=2, lease=600))
    world.horizon(after=4_999)
    assert world.standing() == (AgentStatus.RUNNING, AgentHealth.HEALTHY)
    decisions = world.horizon(after=1)
    assert world.standing() == (AgentStatus.ERROR, AgentHealth.LOST)
    assert sorted(placed(decisions)) == [(1, "b"), (2, "b")]
    tasks = world.scheduler.board.tasks
    assert (tasks[task_id(1)].failures, tasks[task_id(2)].failures) == (1, 0)  # only what had begun costs an attempt


def test_heartbeats_keep_the_lease() -> None:
    world = World()
    world.step(world.sign_in(lease=5), world.task())
    for _ in range(10):
        world.pass_time(2_000)
        world.step(world.beat())
        world.horizon(after=2_000)
    assert world.standing() == (AgentStatus.RUNNING, AgentHealth.HEALTHY)
    world.horizon(after=5_000)
    assert world.agent().health is AgentHealth.LOST


def test_a_backlog_of_heartbeats_does_not_look_like_a_lost_fleet() -> None:
    world = World()
    world.step(world.sign_in(lease=5))
    world.step(after=60_000)  # nothing was read for a minute: the horizon stands still
    assert world.agent().health is AgentHealth.HEALTHY
    late = world.beat()
    world.step(late)
    world.horizon()
    assert world.agent().health is AgentHealth.HEALTHY


def test_nobodys_lease_runs_while_the_leader_is_blind() -> None:
    world = World()
    world.step(world.sign_in(lease=5))
    world.step(Blind(60_000), after=60_000)
    world.horizon()
    assert world.agent().health is AgentHealth.HEALTHY
    world.horizon(after=5_000)
    assert world.agent().health is AgentHealth.LOST


def test_a_lost_agent_that_beats_again_is_back_and_stops_what_it_has_no_more() -> None:
    world = World()
    world.step(world.sign_in(lease=5), world.task())
    world.step(world.started(1))
    held = [(task_id(1), 1)]
    world.horizon(after=5_000)
    assert world.status(1) is TaskStatus.PENDING
    decisions = world.step(world.beat(holding=held))
    assert world.standing()[1] is AgentHealth.HEALTHY
    assert stops(decisions) == [("a", task_id(1), 1)]
    assert placed(decisions) == [(1, "a")]
    world.horizon(after=5_000)
    assert world.agent().health is AgentHealth.LOST


def test_the_last_attempt_lost_is_a_failure() -> None:
    world = World()
    world.step(world.sign_in(lease=5), world.task(max_attempts=1))
    world.step(world.started(1))
    decisions = world.horizon(after=5_000)
    assert (world.status(1), decisions.transitions[-1].reason) == (TaskStatus.FAILED, FailureReason.AGENT_LOST)


def test_an_agent_that_does_not_read_its_assignments_is_deaf() -> None:
    world = World()
    world.step(world.sign_in(lease=60), world.task())
    world.pass_time(1_000)
    world.step(world.beat(holding=[]))  # may be on its way
    assert world.agent().tasks
    world.pass_time(2_000)
    world.step(world.beat(holding=[]))
    world.horizon()
    world.pass_time(1_000)
    decisions = world.step(world.beat(holding=[]))
    assert world.agent().health is AgentHealth.DEAF
    assert (world.status(1), decisions.changes[0].release) == (TaskStatus.PENDING, "a")
    assert world.scheduler.board.tasks[task_id(1)].failures == 0
    world.pass_time(9_000)
    assert placed(world.step(world.beat())) == []
    assert placed(world.step(after=1_000)) == [(1, "a")]


def test_what_an_agent_could_not_read_because_its_loop_is_blocked_is_not_taken_from_it() -> None:
    world = World()
    world.step(world.sign_in(lease=60), world.task())
    for lag in (2.0, 3.0, 4.0):
        world.pass_time(1_500)
        world.step(world.beat(holding=[], lag=lag))
        world.horizon()
    assert world.agent().health is AgentHealth.BLOCKED
    assert world.agent().tasks
    world.step(world.beat(holding=[]))  # its loop runs again, and has not come to read yet
    assert world.agent().tasks
    world.horizon(after=1_000)
    world.step(world.beat(holding=[], lag=2.0))
    assert world.agent().tasks
    world.step(world.beat(holding=[]))
    assert not world.agent().tasks


def test_what_runs_and_is_not_held_any_more_is_lost() -> None:
    world = World()
    world.step(world.sign_in(lease=60), world.task())
    world.step(world.started(1))
    world.pass_time(3_000)
    world.step(world.beat(holding=[]))
    world.horizon()
    world.pass_time(1_000)
    world.step(world.beat(holding=[]))
    assert world.guard(1).attempt == 2
    assert world.scheduler.board.tasks[task_id(1)].failures == 1


def test_an_agent_whose_loop_is_blocked_gets_nothing_new() -> None:
    world = World()
    world.step(world.sign_in(), world.beat(lag=3))
    assert world.agent().health is AgentHealth.BLOCKED
    assert placed(world.step(world.task())) == []
    assert placed(world.step(world.beat(lag=0.1))) == [(1, "a")]


def test_a_farewell_frees_what_is_left_when_its_reports_are_read() -> None:
    world = World()
    world.step(world.sign_in(slots=2), world.task(), world.task())
    world.step(world.started(1))
    last = world.ended(1)
    world.step(world.sign_out())
    assert world.agent().status is AgentStatus.STOPPED
    world.step(last)
    world.horizon()
    assert (world.status(1), world.status(2)) == (TaskStatus.COMPLETED, TaskStatus.PENDING)
    assert world.step(world.beat()).instructions == []


def test_draining() -> None:
    world = World()
    world.step(world.sign_in(slots=2), world.task())
    decisions = world.step(world.command("drain"), world.task())
    assert told(decisions) == ["drain"]
    assert placed(decisions) == []
    assert world.agent().status is AgentStatus.DRAINING
    world.step(world.ended(1))
    assert world.agent().status is AgentStatus.DRAINING
    assert placed(world.step(world.sign_in(session="a2"))) == [(2, "a")]


def test_a_process_that_shuts_down_says_so_in_its_heartbeats() -> None:
    world = World()
    world.step(world.sign_in())
    world.step(world.beat(draining=True))
    assert world.agent().status is AgentStatus.DRAINING


@pytest.mark.parametrize("away", ["stopped", "lost"])
def test_who_is_away_for_an_hour_is_forgotten(away: str) -> None:
    world = World()
    world.step(world.sign_in(lease=5))
    if away == "stopped":
        world.step(world.sign_out())
    world.horizon(after=6_000)
    assert "a" in world.scheduler.board.fleet.agents
    decisions = world.horizon(after=3_600_000)
    assert [(change.agent_id, change.record) for change in decisions.agents] == [("a", None)]
    assert world.scheduler.board.fleet.agents == {}


def test_bits_of_agents_that_are_gone_are_used_again() -> None:
    world = World()
    for n in range(50):
        world.step(world.sign_in(f"a{n}"), world.task(f"c{n}"))
        world.step(world.sign_out(f"a{n}"))
        world.horizon(after=3_600_001)
    world.step(world.sign_in("z", "c7"))
    assert world.agent("z").index == 0
    assert world.guard(8).agent_id == "z"


def test_attributes_of_a_capability_may_change_at_run_time() -> None:
    world = World()
    world.step(world.sign_in("a", CapabilitySpec(name="do", attributes={"model": "small"})))
    world.step(world.task(requires=["model == large"]))
    assert world.status(1) is TaskStatus.PENDING
    decisions = world.step(world.sign_in("a", CapabilitySpec(name="do", attributes={"model": "large"})))
    assert placed(decisions) == [(1, "a")]


def test_the_history_of_attempts_names_the_agents() -> None:
    world = World()
    world.step(world.sign_in(lease=5), world.task())
    world.step(world.started(1))
    world.horizon(after=5_000)
    world.step(world.sign_in("b"))
    decisions = world.step(world.ended(1))
    attempts = from_json(decisions.changes[0].run)["attempts"]
    assert [(a["agent_id"], a["outcome"]) for a in attempts] == [("a", "agent_lost"), ("b", "completed")]


def test_a_stand_in_that_signs_out_is_not_stored() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    world.take_over(agents=False)
    farewell = SignedOut(Unregister(agent_id="a", session="a1"), world.now)
    assert all(change.record is None for change in world.step(farewell).agents)
    world.horizon(after=1)
    assert (world.status(1), "a" in world.scheduler.board.fleet.agents) == (TaskStatus.PENDING, False)


def test_an_attempt_that_never_arrived_is_not_hidden_by_an_earlier_one() -> None:
    world = World()
    world.step(world.sign_in(slots=2, lease=3_600), world.task())
    world.step(world.started(1))
    world.step(world.failed(1))
    world.step(after=60_000)
    assert world.guard(1).attempt == 2
    for _ in range(10):
        world.step(world.beat(holding=((task_id(1), 1),)), Horizon(world.now), after=1_000)
    assert world.guard(1).attempt > 2 or world.status(1) is TaskStatus.PENDING


def test_waiting_tasks_are_sorted_by_what_a_new_agent_asks_of_them_in_short_passes() -> None:
    world = World(sorted_per_pass=10)
    world.step(world.sign_in("busy", lease=3_600), world.task(fairness_key="batch"))
    world.step(*(world.task(fairness_key="batch" if n % 2 else "live") for n in range(100)))
    picky = world.sign_in("picky", slots=200, accepts=[{"attribute": "fairness_key", "op": "!=", "value": "batch"}])
    given = placed(world.step(picky))
    assert len(given) == 5, "of ten that were looked at"
    while world.scheduler.next_due == world.now:
        given += placed(world.step())
    assert sorted(number for number, _ in given) == list(range(2, 102, 2))
