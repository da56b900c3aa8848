"""A task that waits says why."""

from agent_runtime import Agent, capability
from bus import Client, TaskHandle
from tests.fundamentals.conftest import RunAgent
from tests.support.waiting import eventually


class Translator(Agent):
    @capability("translate", version="1.4", languages=["en"])
    async def translate(self, task: str) -> str:
        return task


async def reason(handle: TaskHandle[str]) -> str:
    async def why() -> str | None:
        return (await handle.get()).waiting_because

    return await eventually(why) or ""


async def test_nobody_offers_it(bus: Client) -> None:
    assert "no agent offers 'translate'" in await reason(await bus.submit("translate", "x"))


async def test_somebody_offers_it_and_does_not_meet_the_requirement(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Translator())
    words = await reason(await bus.submit("translate", "x", version=">=2"))
    assert "in version 1.4" in words
    assert "version >=2" in words
    assert "languages contains fr" in await reason(
        await bus.submit("translate", "x", requires=["languages contains fr"])
    )


async def test_it_is_not_time_yet(bus: Client) -> None:
    assert "may not start for another" in await reason(await bus.submit("translate", "x", delay=100))
