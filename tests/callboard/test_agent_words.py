"""How full agents are and what is shut off, in words."""

from typing import Any

from bus.clock import wall_ms
from bus.messages import CapabilitySpec
from bus.records import AgentInfo, AgentWorkload
from bus.states import AgentHealth, AgentStatus
from callboard.agent_words import resource_words, shut_words, slots_words


def agent(slots: int = 2, **load: Any) -> AgentInfo:
    """Return an agent with this workload."""
    said = {"agent_id": "a", "status": AgentStatus.RUNNING, "slots": slots, "running": 0, "assigned": 0, **load}
    return AgentInfo(
        agent_id="a",
        session="s",
        status=AgentStatus.RUNNING,
        health=AgentHealth.HEALTHY,
        slots=slots,
        resources={"gpu": 2.0, "mem_gb": 12.0},
        capabilities=(CapabilitySpec(name="do"),),
        workload=AgentWorkload.model_validate(said) if load else None,
    )


def test_slots_are_those_that_are_taken_and_the_rest_is_said_apart() -> None:
    assert slots_words(agent(1, running=3, used=1, waiting=2)) == "1/1 (2 waiting for children)"
    assert slots_words(agent(2, used=0, occupied=2)) == "0/2 (2 held by code that does not stop)"
    assert slots_words(agent(2, running=1, used=2)) == "2/2"
    assert slots_words(agent(2, running=2, assigned=1, used=3)) == "2/2 (1 ahead)"


def test_of_an_older_dispatchers_agents_tasks_are_counted_as_slots() -> None:
    assert slots_words(agent(4, running=1, assigned=1)) == "2/4"
    assert slots_words(agent(4)) == "4"


def test_resources_tell_how_much_is_taken() -> None:
    assert resource_words(agent(used=1, granted={"gpu": 0.5})) == "gpu 0.5/2, mem_gb 0/12"
    assert resource_words(agent()) == "gpu 2, mem_gb 12"


def test_what_is_shut_off_says_until_when() -> None:
    assert shut_words(wall_ms() + 60_000).startswith("shut off after failures, probe in ")
    assert shut_words(wall_ms() - 1) == "shut off after failures, the next task is the probe"
