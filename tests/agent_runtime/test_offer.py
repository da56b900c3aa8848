"""What an agent offers, changed while it runs: by its author and by operators, confirmed by the leader."""

import asyncio
from typing import Any, ClassVar

import pytest

from agent_runtime import Agent, AgentDefinitionError, TaskContext, capability
from agent_runtime.testing import AgentKit
from bus.messages import ChangeOffer, Register, Registered
from bus.overrides import Overrides
from bus.requirement_text import parse_clauses
from bus.requirements import Value
from tests.agent_runtime.conftest import RunningWorker, StartWorker
from tests.agent_runtime.leader import HandLeader


class Model(Agent):
    slots = 1
    attributes: ClassVar[dict[str, Value]] = {"region": "eu"}

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    async def on_start(self) -> None:
        await self.update_capabilities(attributes={"models": ["small"]})

    @capability("ask", version="1.0", quality=1)
    async def ask(self, task: int, ctx: TaskContext) -> int:
        await self.gate.wait()
        return task

    @capability("ask", version="2.0", quality=2)
    async def ask_again(self, task: int) -> int:
        return 2 * task

    @capability("tell")
    async def tell(self, task: int) -> int:
        return task


def offered(signed: Register) -> list[str]:
    return [f"{spec.name} {spec.version}" for spec in signed.capabilities]


async def ready(running: RunningWorker) -> None:
    async with asyncio.timeout(30):
        await running.worker.ready.wait()


async def register(leader: HandLeader, count: int) -> Register:
    """Return the `count`-th registration, not confirmed yet."""
    await leader.wait_for(lambda: len(leader.registrations) >= count)
    signed = leader.registrations[count - 1]
    assert isinstance(signed, Register)
    return signed


async def test_what_on_start_changes_is_in_the_first_registration(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    start_worker(Model())
    assert (await leader.welcome()).attributes == {"region": "eu", "models": ["small"]}


async def test_a_change_returns_when_the_leader_has_confirmed_it_and_no_earlier_one(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Model()
    running = start_worker(agent)
    signed = await leader.welcome()
    await ready(running)
    change = asyncio.create_task(agent.update_capabilities(attributes={"models": ["small", "large"], "region": None}))
    again = await register(leader, 2)
    assert (again.session, again.attributes) == (signed.session, {"models": ["small", "large"]})
    assert again.revision > signed.revision
    await leader.say(signed.agent_id, Registered(session=signed.session, revision=signed.revision))
    await leader.instruct(signed, "pause", number=1)
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].obeys == 1)
    assert not change.done()
    await leader.say(signed.agent_id, Registered(session=signed.session, revision=again.revision))
    async with asyncio.timeout(30):
        await change


async def test_a_capability_is_removed_by_name_or_version_and_added_again(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Model()
    running = start_worker(agent)
    await leader.welcome()
    await ready(running)
    steps: list[tuple[dict[str, Any], list[str]]] = [
        ({"remove": "ask 1.0"}, ["ask 2.0", "tell 1.0"]),
        ({"remove": ["ask"]}, ["tell 1.0"]),
        ({"add": "ask", "remove": "tell"}, ["ask 1.0", "ask 2.0"]),
    ]
    for count, (change, left) in enumerate(steps, start=2):
        changing = asyncio.create_task(agent.update_capabilities(**change))
        assert offered(await leader.welcome(count=count)) == left
        await changing


async def test_what_runs_of_a_removed_capability_goes_on_and_what_has_not_begun_goes_back(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Model()
    running = start_worker(agent)
    signed = await leader.welcome()
    await ready(running)
    runs = await leader.assign(signed, "one", 1, capability="ask", matched="1.0")
    await leader.wait_started(runs)
    waits = await leader.assign(signed, "two", 2, capability="ask", matched="1.0")
    await leader.wait_for(lambda: any(len(beat.holding) == 2 for beat in leader.heartbeats))
    changing = asyncio.create_task(agent.update_capabilities(remove="ask 1.0"))
    await leader.welcome(count=2)
    await changing
    await leader.wait_for(lambda: waits in leader.returned)
    agent.gate.set()
    assert (await leader.result(runs)).output == 1
    late = await leader.assign(signed, "three", 3, capability="ask", matched="1.0")  # the leader did not know yet
    await leader.wait_for(lambda: late in leader.returned)
    other = await leader.assign(signed, "four", 4, capability="ask")
    assert (await leader.result(other)).output == 8


async def test_slots_rate_and_acceptance_change(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Model()
    running = start_worker(agent)
    signed = await leader.welcome()
    await ready(running)
    one = await leader.assign(signed, "one", 1, capability="ask", matched="1.0")
    two = await leader.assign(signed, "two", 2, capability="ask", matched="1.0", score=1)
    await leader.wait_started(one)
    changing = asyncio.create_task(agent.update_capabilities(slots=2, rate="5/s", accepts="priority >= HIGH"))
    again = await leader.welcome(count=2)
    await changing
    assert (again.slots, again.rate) == (2, "5/s")
    assert again.accepts == tuple(parse_clauses("priority >= HIGH"))
    await leader.wait_started(two)
    changing = asyncio.create_task(agent.update_capabilities(rate=""))
    assert (await leader.welcome(count=3)).rate is None
    await changing


async def test_attributes_of_one_capability(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Model()
    running = start_worker(agent)
    await leader.welcome()
    await ready(running)
    changing = asyncio.create_task(agent.update_capabilities(capability="ask 2.0", attributes={"quality": 3}))
    again = await leader.welcome(count=2)
    await changing
    assert [spec.attributes for spec in again.capabilities] == [{"quality": 1}, {"quality": 3}, {}]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"remove": "no"}, "none of its capabilities"),
        ({"remove": ["ask", "tell"]}, "nothing would be left"),
        ({"slots": 0}, "slots cannot be registered"),
        ({"rate": "often"}, "rate cannot be registered"),
        ({"attributes": {"x": object()}}, "cannot be registered"),
        ({"accepts": "weather == fine"}, "give conditions on"),
        ({"attributes": {"agent.id": "worker-1"}}, "none can set"),
        ({"attributes": {"agent.id": None}, "capability": "ask"}, "none can set"),
    ],
)
async def test_what_cannot_be_is_refused_with_a_remedy_and_changes_nothing(
    change: dict[str, Any], words: str, leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Model()
    running = start_worker(agent)
    signed = await leader.welcome()
    await ready(running)
    with pytest.raises(AgentDefinitionError, match=words):
        await agent.update_capabilities(**change)
    changing = asyncio.create_task(agent.update_capabilities())
    again = await leader.welcome(count=2)
    await changing
    assert again.model_copy(update={"revision": 0}) == signed.model_copy(update={"revision": 0})


async def test_an_agent_that_does_not_run_says_where_to_call_it() -> None:
    with pytest.raises(RuntimeError, match="in on_start or in a capability"):
        await Model().update_capabilities(slots=2)


async def test_whoever_waits_when_the_session_ends_is_told(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Model()
    running = start_worker(agent)
    await leader.welcome()
    await ready(running)
    change = asyncio.create_task(agent.update_capabilities(slots=2))
    await register(leader, 2)
    running.stop.set()
    await running.ended()
    with pytest.raises(RuntimeError, match="session has ended"):
        await change


async def test_operators_change_what_is_offered_and_win_over_the_author(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Model()
    running = start_worker(agent)
    signed = await leader.welcome()
    await ready(running)
    wish = Overrides(attributes={"region": "us"}, without=("models",), disabled=("ask",), slots=3)
    await leader.say(signed.agent_id, ChangeOffer(session=signed.session, number=5, overrides=wish))
    again = await leader.welcome(count=2)
    assert (offered(again), again.attributes, again.slots) == (["tell 1.0"], {"region": "us"}, 3)
    assert (again.update, again.update_error) == (5, None)
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].updated == 5)
    changing = asyncio.create_task(agent.update_capabilities(attributes={"region": "asia", "x": 1}, slots=9))
    later = await leader.welcome(count=3)
    await changing
    assert (later.attributes, later.slots, later.update) == ({"region": "us", "x": 1}, 3, 5)


async def test_an_update_that_cannot_be_is_answered_with_its_error(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    running = start_worker(Model())
    signed = await leader.welcome()
    await ready(running)
    wish = Overrides(disabled=("ask", "tell"))
    await leader.say(signed.agent_id, ChangeOffer(session=signed.session, number=5, overrides=wish))
    again = await leader.welcome(count=2)
    assert (again.update, again.capabilities) == (5, signed.capabilities)
    assert "nothing would be left" in (again.update_error or "")


async def test_an_agent_can_change_itself_under_the_kit() -> None:
    async with AgentKit(Model()) as kit:
        await kit.agent.update_capabilities(attributes={"models": []})
        assert await kit.run("tell", 1) == 1
        with pytest.raises(AgentDefinitionError):
            await kit.agent.update_capabilities(remove=["ask", "tell"])
