"""What operators ask of agents holds from the pass that takes it, is confirmed by the agent, and survives leaders."""

from typing import Any

import pytest

from bus.agent_requests import CONFIRM_MS, RESTART_MS, WRAP_UP_MS, AgentRequest, RequestState
from bus.messages import CapabilitySpec, ChangeOffer, Instruction, TaskError
from bus.overrides import OfferChange
from bus.records import AgentRecord
from bus.states import AgentHealth, AgentStatus, FailureReason, TaskStatus
from dispatcher.core.decisions import Decisions
from dispatcher.core.explain import explain
from dispatcher.core.record import agent_record, restore_agent
from dispatcher.core.scheduler import Scheduler
from tests.dispatcher.core.world import World, placed, recalls, task_id, told


def request_of(world: World) -> AgentRequest:
    request = world.agent().request
    assert request is not None
    return request


def state(world: World) -> RequestState:
    return request_of(world).state_at(world.now)


def obey(world: World, **fields: Any) -> Decisions:
    """Let the agent beat, heeding all it was told."""
    return world.step(world.beat(obeys=request_of(world).number, **fields))


def instructions(decisions: Decisions) -> list[Instruction]:
    return [i.message.root for i in decisions.instructions if isinstance(i.message.root, Instruction)]


def offers(decisions: Decisions) -> list[ChangeOffer]:
    return [i.message.root for i in decisions.instructions if isinstance(i.message.root, ChangeOffer)]


def another_leader(world: World) -> None:
    """Let the next leader take over what the ledger has of the agents; tasks are not part of these stories."""
    records: dict[str, AgentRecord] = {}
    for decisions in world.decided:
        for change in decisions.agents:
            if change.record is None:
                records.pop(change.agent_id, None)
            else:
                records[change.agent_id] = AgentRecord.model_validate_json(change.record.model_dump_json())
    world.scheduler = Scheduler(world.config, seed=2)
    world.scheduler.load([restore_agent(record, world.now) for record in records.values()], (), world.now)


# --- pause


def test_a_paused_agent_gets_nothing_from_the_very_pass_on_and_keeps_what_runs() -> None:
    world = World()
    world.step(world.sign_in(slots=3, lease=600), world.task(), world.task())
    world.step(world.started(1))
    decisions = world.step(world.command("pause", reason="disk swap", by="alice"), world.task())
    assert placed(decisions) == []
    assert recalls(decisions) == [("a", task_id(2))], "what it has not begun is asked back"
    assert told(decisions) == ["recall", "pause"]
    assert (world.status(1), world.agent().status) == (TaskStatus.RUNNING, AgentStatus.RUNNING)
    assert placed(world.step(world.returned(2))) == []
    assert sorted(placed(world.step(world.command("resume")))) == [(2, "a"), (3, "a")]


def test_a_pause_is_shown_wherever_tasks_wait_because_of_it() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("pause", reason="disk swap", by="alice"), world.task())
    board = world.scheduler.board
    assert "1 paused by alice: disk swap" in explain(board, board.tasks[task_id(1)]).text
    assert "(1 paused)" in world.why()


def test_a_request_is_requested_then_done_or_overdue() -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    world.step(world.command("pause"))
    assert state(world) is RequestState.REQUESTED
    world.step(after=CONFIRM_MS + 1)
    assert (state(world), request_of(world).overdue_ms(world.now)) == (RequestState.OVERDUE, 1)
    world.step(world.beat(obeys=0))
    assert state(world) is RequestState.OVERDUE
    obey(world, paused=True)
    assert state(world) is RequestState.DONE


def test_an_agent_that_does_not_know_of_requests_never_confirms_one_and_is_not_told_again_and_again() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("pause"))
    for _ in range(20):
        assert told(world.step(world.beat(), after=1_000)) == []
    assert state(world) is RequestState.OVERDUE


def test_what_a_heartbeat_shows_to_be_unknown_is_told_again() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("pause"))
    number = request_of(world).number
    assert told(world.step(world.beat(obeys=0), after=500)) == [], "it may be on its way"
    world.pass_time(2_000)
    (again,) = instructions(world.step(world.beat(obeys=0)))
    assert (again.type, again.number) == ("pause", number)
    assert told(world.step(world.beat(obeys=0), after=500)) == []
    obey(world, paused=True)
    assert told(world.step(world.beat(obeys=number, paused=True), after=60_000)) == []


def test_a_pause_ends_by_itself() -> None:
    world = World()
    world.step(world.sign_in(lease=6_000), world.command("pause", lasts=600), world.task())
    obey(world, paused=True)
    assert placed(world.step(after=599_000)) == []
    decisions = world.step(after=1_001)
    assert (placed(decisions), told(decisions)) == ([(1, "a")], ["resume"])
    obey(world)
    assert state(world) is RequestState.DONE


def test_a_pause_that_was_prolonged_ends_at_its_new_end() -> None:
    world = World()
    world.step(world.sign_in(lease=6_000), world.command("pause", lasts=10), world.task())
    world.step(world.command("pause", lasts=60), after=5_000)
    assert placed(world.step(after=20_000)) == []
    assert placed(world.step(after=41_000)) == [(1, "a")]


def test_a_paused_agent_whose_process_is_started_anew_is_still_paused() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("pause", lasts=60))
    obey(world, paused=True)
    decisions = world.step(world.sign_in(session="a2", lease=600), world.task())
    assert placed(decisions) == []
    assert told(decisions)[-1] == "pause", "the new session is told"
    assert instructions(decisions)[-1].session == "a2"
    assert placed(world.step(after=61_000)) == [(1, "a")]


def test_a_registration_of_the_same_session_changes_nothing_of_what_is_asked() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("pause"))
    world.step(world.sign_in(lease=600), world.task())
    assert world.status(1) is TaskStatus.PENDING
    assert state(world) is RequestState.REQUESTED
    obey(world, paused=True)
    assert state(world) is RequestState.DONE


def test_the_next_leader_knows_a_pause_and_ends_it_in_time() -> None:
    world = World()
    world.step(world.sign_in(lease=6_000), world.command("pause", lasts=60, by="alice", reason="why"))
    another_leader(world)
    assert placed(world.step(world.task())) == []
    pause = world.agent().pause
    assert pause is not None
    assert pause.words == "paused by alice: why"
    assert told(world.step(world.beat(obeys=0))) == ["pause"], "the first one may have been lost with the leader"
    obey(world, paused=True)
    another_leader(world)
    assert state(world) is RequestState.DONE
    world.stored.clear()
    assert placed(world.step(world.task(), after=61_000)) == [(2, "a")]


def test_an_agent_that_has_stopped_can_be_paused_for_its_next_session() -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    world.step(world.sign_out())
    assert told(world.step(world.command("pause"))) == []
    assert state(world) is RequestState.DONE
    assert placed(world.step(world.sign_in(session="a2", lease=600), world.task())) == []


# --- drain and restart


def test_a_drain_is_requested_confirmed_and_done() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task())
    world.step(world.started(1))
    (said,) = instructions(world.step(world.command("drain", deadline=30)))
    assert (said.type, said.within) == ("drain", 30)
    assert (state(world), world.agent().status) == (RequestState.REQUESTED, AgentStatus.DRAINING)
    obey(world, draining=True)
    assert state(world) is RequestState.CONFIRMED
    world.pass_time(30_000 + WRAP_UP_MS + 1)
    assert state(world) is RequestState.OVERDUE
    world.step(world.ended(1), world.sign_out())
    assert (state(world), world.agent().status) == (RequestState.DONE, AgentStatus.STOPPED)


def test_the_deadline_is_told_as_what_is_left_of_it() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("drain", deadline=30))
    world.pass_time(10_000)
    (again,) = instructions(world.step(world.beat(obeys=0)))
    assert again.within == 20


def test_a_drain_without_a_deadline_may_take_as_long_as_it_takes() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task(), world.command("drain"))
    obey(world, draining=True)
    world.pass_time(3_600_000)
    assert state(world) is RequestState.CONFIRMED


def test_a_resume_ends_a_drain_when_the_agent_says_so() -> None:
    world = World()
    world.step(world.sign_in(slots=2, lease=600), world.task())
    world.step(world.started(1), world.command("drain"))
    obey(world, draining=True)
    late = world.beat(obeys=request_of(world).number, draining=True)
    assert placed(world.step(world.command("resume"), world.task())) == [], "it would hand it back"
    world.step(late)
    assert (world.agent().status, state(world)) == (AgentStatus.DRAINING, RequestState.REQUESTED)
    assert placed(obey(world)) == [(2, "a")]
    assert (world.agent().status, state(world)) == (AgentStatus.RUNNING, RequestState.DONE)


def test_a_pause_takes_the_place_of_a_drain() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("drain"))
    obey(world, draining=True)
    world.step(world.command("pause"), world.task())
    obey(world, paused=True)
    assert (world.agent().status, world.status(1)) == (AgentStatus.IDLE, TaskStatus.PENDING)
    assert placed(world.step(world.command("resume"))) == [(1, "a")]


def test_a_resume_of_a_process_that_shuts_down_by_itself_is_refused() -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    world.step(world.beat(obeys=0, draining=True), world.command("resume"))
    obey(world, draining=True)
    assert state(world) is RequestState.REFUSED
    assert world.agent().status is AgentStatus.DRAINING


def test_a_restart_is_done_by_a_new_session_and_overdue_without_one() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("restart"))
    obey(world, draining=True)
    world.step(world.sign_out())
    assert state(world) is RequestState.CONFIRMED
    world.pass_time(RESTART_MS + 1)
    assert state(world) is RequestState.OVERDUE, "nobody has started it"
    assert placed(world.step(world.sign_in(session="a2", lease=600), world.task())) == [(1, "a")]
    assert state(world) is RequestState.DONE


def test_a_restart_of_one_that_has_stopped_is_refused_with_a_remedy() -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    world.step(world.sign_out(), world.command("restart"))
    assert (state(world), request_of(world).error) == (RequestState.REFUSED, "it has stopped: start its process")


def test_a_paused_agent_that_restarts_stays_paused_after_it() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("pause"))
    obey(world, paused=True)
    world.step(world.command("restart"))
    decisions = world.step(world.sign_in(session="a2", lease=600), world.task())
    assert (placed(decisions), told(decisions)[-1]) == ([], "pause")
    assert state(world) is RequestState.DONE


def test_the_next_leader_goes_on_where_the_last_one_was() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("drain", deadline=60))
    another_leader(world)
    assert state(world) is RequestState.REQUESTED
    (again,) = instructions(world.step(world.beat(obeys=0), after=10_000))
    assert (again.type, again.within) == ("drain", 50)
    obey(world, draining=True)
    another_leader(world)
    world.step(world.sign_out())
    another_leader(world)
    assert state(world) is RequestState.DONE


def test_a_lost_agent_that_is_to_drain_drains_when_it_is_heard_again() -> None:
    world = World()
    world.step(world.sign_in(lease=5))
    world.horizon(after=6_000)
    world.step(world.command("drain"))
    assert world.standing() == (AgentStatus.ERROR, AgentHealth.LOST)
    world.pass_time(3_000)
    decisions = world.step(world.beat(obeys=0), world.task())
    assert (placed(decisions), told(decisions)) == ([], ["drain"])
    assert world.agent().status is AgentStatus.DRAINING


def test_requests_of_one_agent_have_rising_numbers_whoever_leads() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.command("pause"), world.command("resume"), world.command("pause"))
    first = request_of(world).number
    another_leader(world)
    world.step(world.command("resume"))
    assert request_of(world).number > first


def test_of_an_agent_that_nobody_knows_nothing_is_asked() -> None:
    world = World()
    assert len(world.step(world.command("pause", "nobody"))) == 0


@pytest.mark.parametrize("times", [3])
def test_a_task_whose_agents_were_stopped_by_operators_is_no_poison(times: int) -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task(max_attempts=10))
    for _ in range(times):
        world.step(world.started(1))
        gave_up = TaskError(type="AgentLost", message="its agent stopped before the task was finished")
        world.step(world.failed(1, reason=FailureReason.AGENT_LOST, error=gave_up))
    assert world.guard(1).attempt == times + 1


# --- update


def change(world: World, **fields: Any) -> Decisions:
    return world.step(world.update_agent(OfferChange(**fields)))


def update_state(world: World) -> RequestState:
    update = world.agent().update
    assert update is not None
    return update.state_at(world.now)


def test_an_update_is_told_and_is_done_when_the_agent_registers_with_it() -> None:
    world = World()
    world.step(world.sign_in("a", "do", "make", lease=600))
    (offer,) = offers(change(world, disable=("make",), attributes={"models": ["a", "b"]}))
    assert (offer.overrides.disabled, offer.overrides.attributes) == (("make",), {"models": ["a", "b"]})
    assert update_state(world) is RequestState.REQUESTED
    world.pass_time(3_000)
    (again,) = offers(world.step(world.beat(updated=0)))
    assert again == offer
    world.step(world.sign_in("a", "do", lease=600, update=offer.number, attributes={"models": ["a", "b"]}))
    assert update_state(world) is RequestState.DONE
    assert placed(world.step(world.task("make"), world.task("do", requires=["models contains b"]))) == [(2, "a")]


def test_an_agents_id_is_not_changed_whoever_asks() -> None:
    """An older client does not refuse it, nor does an agent that speaks the wire."""
    world = World()
    world.step(world.sign_in("a", attributes={"agent.id": "b", "region": "eu"}))
    assert world.agent().attributes == {"region": "eu"}
    (offer,) = offers(change(world, attributes={"agent.id": "b", "region": "us"}))
    assert offer.overrides.attributes == {"region": "us"}


def test_changes_add_up_and_are_told_to_every_new_session_and_by_every_leader() -> None:
    world = World()
    world.step(world.sign_in("a", "do", "make", lease=600))
    change(world, disable=("make",))
    another_leader(world)
    (offer,) = offers(change(world, slots=4, attributes={"region": "eu"}))
    assert (offer.overrides.slots, offer.overrides.disabled) == (4, ("make",))
    world.step(world.sign_in("a", "do", lease=600, update=offer.number))
    decisions = world.step(world.sign_in("a", "do", "make", session="a2", lease=600), world.task("make"))
    assert offers(decisions)[0].overrides == offer.overrides
    assert placed(decisions) == [], "what is disabled is not given to a session that has not heard of it"
    (back,) = offers(change(world, enable=("make",), without=("region",)))
    assert (back.overrides.disabled, back.overrides.attributes) == ((), {})
    decisions = world.step(world.sign_in("a", "do", "make", session="a2", lease=600, update=back.number))
    assert placed(decisions) == [(1, "a")]
    (nothing,) = offers(change(world, reset=True))
    assert nothing.overrides.slots is None


@pytest.mark.parametrize(
    ("fields", "words"), [({"disable": ("no",)}, "it has no capability no"), ({"disable": ("do",)}, "pause it instead")]
)
def test_an_update_that_cannot_be_is_refused_at_once(fields: dict[str, Any], words: str) -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    assert offers(change(world, **fields)) == []
    update = world.agent().update
    assert update is not None
    assert words in (update.error or "")


def test_an_update_that_the_agent_refuses_leaves_the_earlier_ones_as_they_are() -> None:
    world = World()
    world.step(world.sign_in("a", "do", "make", lease=600))
    (first,) = offers(change(world, slots=2))
    world.step(world.sign_in("a", "do", "make", slots=2, lease=600, update=first.number))
    (second,) = offers(change(world, slots=3))
    again = world.sign_in("a", "do", "make", slots=2, lease=600, update=second.number, update_error="no")
    world.step(again)
    assert update_state(world) is RequestState.REFUSED
    record = agent_record(world.agent())
    assert record.overrides is not None
    assert (record.overrides.slots, record.wanted) == (2, None)


def test_what_runs_of_a_capability_that_is_gone_goes_on() -> None:
    world = World()
    world.step(world.sign_in("a", "do", CapabilitySpec(name="make"), lease=600), world.task("make"))
    world.step(world.started(1))
    world.step(world.sign_in("a", "do", lease=600, revision=1))
    world.step(world.ended(1))
    assert world.status(1) is TaskStatus.COMPLETED


def test_a_registration_is_confirmed_by_its_revision() -> None:
    world = World()
    world.step(world.sign_in(lease=600))
    decisions = world.step(world.sign_in(lease=600, revision=3))
    assert [getattr(i.message.root, "revision", None) for i in decisions.instructions] == [3]


def test_an_agent_that_was_to_drain_while_it_was_lost_gets_nothing_when_it_comes_back() -> None:
    world = World()
    world.step(world.sign_in())
    world.horizon(after=6_000)
    world.step(world.command("drain"))
    assert placed(world.step(world.sign_in(), world.task(), after=100)) == []
    assert world.agent().status is AgentStatus.DRAINING
