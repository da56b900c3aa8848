"""Agents are paused, drained, restarted and changed by command; each is confirmed by the agent itself."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent_runtime import Agent, capability
from agent_runtime.supervisor import Supervisor
from bus import AgentRequestError, AgentStatus, Client, RequestState
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually

PROGRAM = """
import sys
from agent_runtime import Agent, capability
from agent_runtime.settings import AgentSettings

class Echo(Agent):
    @capability("echo")
    async def echo(self, task: int) -> int:
        return task

sys.exit(Echo().run(AgentSettings(redis_url=sys.argv[1], pool=sys.argv[2], agent_id="echo")))
"""


class Translator(Agent):
    slots = 2

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()

    @capability("translate")
    async def translate(self, text: str) -> str:
        self.begun.set()
        await self.go_on.wait()
        return text.upper()

    @capability("load")
    async def load(self, model: str) -> None:
        await self.update_capabilities(attributes={"models": [model]})

    @capability("forget")
    async def forget(self, capability: str) -> None:
        await self.update_capabilities(remove=capability)


async def state_of(bus: Client, agent_id: str, request: str) -> RequestState | None:
    return (await bus.wait_agent(agent_id, request, timeout=10)).state


async def test_a_paused_agent_finishes_what_runs_and_gets_nothing_until_it_is_resumed(
    bus: Client, run_agent: RunAgent
) -> None:
    agent = Translator()
    agent_id = (await run_agent(agent)).agent_id
    runs = await bus.submit("translate", "one")
    await agent.begun.wait()
    paused = await bus.pause_agent(agent_id, "disk swap", by="alice")
    assert await state_of(bus, agent_id, paused) is RequestState.DONE
    waits = await bus.submit("translate", "two")
    agent.go_on.set()
    assert await runs.result(timeout=30) == "ONE"
    assert "1 paused by alice: disk swap" in (await bus.explain(waits.id)).text
    resumed = await bus.resume_agent(agent_id)
    assert await waits.result(timeout=30) == "TWO"
    assert await state_of(bus, agent_id, resumed) is RequestState.DONE


async def test_a_pause_may_end_by_itself(bus: Client, run_agent: RunAgent) -> None:
    agent = Translator()
    agent.go_on.set()
    agent_id = (await run_agent(agent)).agent_id
    await bus.wait_agent(agent_id, await bus.pause_agent(agent_id, for_=0.5))
    handle = await bus.submit("translate", "one")
    assert await handle.result(timeout=30) == "ONE"


async def test_a_drain_can_be_resumed_and_has_a_deadline(bus: Client, run_agent: RunAgent) -> None:
    agent, other = Translator(), Translator()
    agent_id = (await run_agent(agent)).agent_id
    handle = await bus.submit("translate", "one")
    await agent.begun.wait()
    await bus.drain_agent(agent_id)

    async def draining() -> bool:
        info = await bus.agent(agent_id)
        return (
            info.status is AgentStatus.DRAINING and info.request is not None and info.request.confirmed_at is not None
        )

    await eventually(draining)
    assert await state_of(bus, agent_id, await bus.resume_agent(agent_id)) is RequestState.DONE
    assert (await bus.agent(agent_id)).status is AgentStatus.RUNNING
    other.go_on.set()
    await bus.wait_agent(agent_id, await bus.drain_agent(agent_id, deadline=0.2))
    assert (await bus.agent(agent_id)).status is AgentStatus.STOPPED
    await run_agent(other)
    assert await handle.result(timeout=30) == "ONE"
    assert [attempt.outcome for attempt in (await handle.get()).attempts] == ["agent_lost", "completed"]


@asynccontextmanager
async def supervised(bus: Client, program: Path) -> AsyncIterator[None]:
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), bus.url, bus.pool]
    stop = asyncio.Event()
    running = asyncio.create_task(Supervisor(lambda _: command).run(stop))
    try:
        yield
    finally:
        stop.set()
        await running


async def test_a_restart_is_done_when_a_new_session_has_signed_in_and_a_pause_outlives_it(
    bus: Client, tmp_path: Path
) -> None:
    async with supervised(bus, tmp_path / "echo.py"):
        handle = await bus.submit("echo", 1)
        assert await handle.result(timeout=30) == 1
        before = await bus.agent("echo")
        await bus.wait_agent("echo", await bus.pause_agent("echo", by="alice"))
        restart = await bus.wait_agent("echo", await bus.restart_agent("echo", deadline=5), timeout=20)
        assert restart.state is RequestState.DONE
        assert restart.confirmed_at is not None
        after = await bus.agent("echo")
        assert after.session != before.session
        assert after.metadata["pid"] != before.metadata["pid"]
        waits = await bus.submit("echo", 2)
        assert "paused by alice" in (await bus.explain(waits.id)).text
        await bus.resume_agent("echo")
        assert await waits.result(timeout=30) == 2


async def test_what_an_agent_changes_of_itself_counts_from_the_next_placement_on(
    bus: Client, run_agent: RunAgent
) -> None:
    agent = Translator()
    agent.go_on.set()
    await run_agent(agent)
    handle = await bus.submit("translate[models contains large]", "one")
    await (await bus.submit("load", "large")).result(timeout=30)
    assert await handle.result(timeout=30) == "ONE"
    await (await bus.submit("forget", "translate")).result(timeout=30)
    gone = await bus.submit("translate", "two")
    assert "lacks" in (await bus.explain(gone.id)).text or (await bus.explain(gone.id)).eligible == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"slots": 0}, r"^slots: Input should be greater than or equal to 1$"),
        ({"attributes": {"no name!": 1}}, r"^attributes\."),
        ({"attributes": {"agent.id": "x"}}, r"^agent.id is the agent's own id, which none can set or remove"),
        ({"remove_attributes": ["agent.id"]}, r"which none can set or remove"),
        ({"reason": "x" * 2000}, r"^reason: "),
    ],
)
async def test_what_an_agent_could_never_be_is_refused_where_it_is_asked_for(
    bus: Client, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(AgentRequestError, match=words):
        await bus.update_agent("crew", **change)
    with pytest.raises(AgentRequestError, match=r"^lasts: "):
        await bus.pause_agent("crew", for_=-1)


async def test_operators_change_what_an_agent_offers(bus: Client, run_agent: RunAgent) -> None:
    agent = Translator()
    agent.go_on.set()
    agent_id = (await run_agent(agent)).agent_id
    update = await bus.update_agent(agent_id, attributes={"models": ["a", "b"]}, slots=5, disable=["load"])
    assert await state_of(bus, agent_id, update) is RequestState.DONE
    info = await bus.agent(agent_id)
    assert (info.slots, info.attributes) == (5, {"models": ["a", "b"]})
    assert [spec.name for spec in info.capabilities] == ["forget", "translate"]
    refused = await bus.wait_agent(agent_id, await bus.update_agent(agent_id, disable=["nothing"]))
    assert (refused.state, "no capability nothing" in (refused.error or "")) == (RequestState.REFUSED, True)
    await bus.wait_agent(agent_id, await bus.update_agent(agent_id, reset=True))
    assert (await bus.agent(agent_id)).slots == 2
