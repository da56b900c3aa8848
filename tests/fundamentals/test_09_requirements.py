"""A task may ask for more than a name: a range of versions, attributes, and preferences among those that would do."""

from typing import Unpack

from agent_runtime import Agent, capability
from bus import Client
from bus.client import TaskOptions
from tests.fundamentals.conftest import RunAgent


class Translator(Agent):
    slots = 4
    attributes = {"region": "eu"}  # noqa: RUF012 - as an author would write it

    @capability("translate", version="1.4", languages=["en", "de"])
    async def translate(self, task: str) -> str:
        return "1.4"


class NewTranslator(Agent):
    agent_id = "new"
    slots = 4
    attributes = {"region": "us", "gpu": 24}  # noqa: RUF012 - as an author would write it

    @capability("translate", version="2.0", languages=["en", "fr"])
    async def translate(self, task: str) -> str:
        return "2.0"


async def test_each_requirement_finds_the_agent_that_meets_it(bus: Client, run_agent: RunAgent) -> None:
    await run_agent(Translator())
    await run_agent(NewTranslator())

    async def done_by(capability: str = "translate", **options: Unpack[TaskOptions]) -> str:
        handle = await bus.submit(capability, "x", **options)
        return str(await handle.result(timeout=30))

    assert await done_by(version=">=2") == "2.0"
    assert await done_by(version="<2") == "1.4"
    assert await done_by(requires=["languages contains de"]) == "1.4"
    assert await done_by(requires=["gpu >= 16"]) == "2.0"
    assert await done_by(requires=['region in ["eu", "asia"]']) == "1.4"
    assert await done_by(requires=["(gpu exists | region == asia)"]) == "2.0"
    assert await done_by(requires=["agent.id != new"]) == "1.4"
    assert await done_by(prefers=["region == us"]) == "2.0"
    assert await done_by("translate>=1,<2[languages contains de, region ~ us:10]") == "1.4"
    assert await done_by("translate[languages contains en, region ~ us:10]") == "2.0"
