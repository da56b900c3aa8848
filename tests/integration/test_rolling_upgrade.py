"""Releases side by side: what the next one adds is ignored, what it changes waits for a leader that reads it.

With real processes, and agents that speak the wire where a test must say what they say. Dispatchers that are not
processes are of this release.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from agent_runtime import Agent, capability
from agent_runtime.exit_codes import ExitCode
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus import Client, ClientTooOldError, TaskPriority, TaskStatus
from bus.messages import CapabilitySpec, Heartbeat, Register, Report, TaskResult, Unregister
from bus.states import AgentStatus
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.findings import Kind
from dispatcher.audit.streams import Patience
from dispatcher.observer import Silent
from tests.integration.releases import AFTER, NEXT, THIS, Release, Site
from tests.support.bus import WireAgent, running_dispatcher
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(120)


class Counting(Silent):
    """Notes how much is parked."""

    def __init__(self) -> None:
        self.waits: dict[str, int] = {}

    def parked(self, topic: str, entries: int) -> None:
        self.waits[topic] = entries


class Patient(Agent):
    """Runs a task until it is let go, and would echo."""

    def __init__(self) -> None:
        super().__init__()
        self.runs, self.let_go = asyncio.Event(), asyncio.Event()

    @capability("t.patient")
    async def patient(self, payload: Any) -> Any:
        self.runs.set()
        await self.let_go.wait()
        return payload

    @capability("t.echo")
    async def echo(self, payload: Any) -> Any:
        return payload


@asynccontextmanager
async def at_work(agent: WireAgent) -> AsyncIterator[WireAgent]:
    """Let an agent complete all that it is given, once it is signed in."""

    async def work() -> None:
        while True:
            given = await agent.assignments.get()
            await agent.complete(given, given.task.payload)

    working = asyncio.create_task(work())
    try:
        yield agent
    finally:
        working.cancel()
        await agent.fall_silent()


async def submit(site: Site, local: str, **fields: Any) -> str:
    """Submit as a client does whose messages are of version 2; return the task's id."""
    message = {"v": 2, "id": f"{site.names.pool}.{local}", "capability": "t.x", "payload": local, **fields}
    await site.write(site.names.submissions(TaskPriority.MEDIUM), message)
    return f"{site.names.pool}.{local}"


@pytest.mark.parametrize(
    ("dispatcher", "others"),
    [(THIS, NEXT), (NEXT, THIS), (NEXT, AFTER), (AFTER, NEXT)],
    ids=["old dispatcher", "new dispatcher", "old dispatcher, higher version", "new dispatcher, higher version"],
)
async def test_two_releases_that_follow_each_other_work_side_by_side(
    site: Site, dispatcher: Release, others: Release
) -> None:
    site.dispatcher(dispatcher, "leader")
    agents = [site.agent(dispatcher, "same"), site.agent(others, "other")]
    ids = ("same", "other")
    submitting = [
        site.submit(release, f"t.echo[agent.id == {agent}]", f'"{agent}"', "--wait")
        for release in (dispatcher, others)
        for agent in ids
    ]
    assert await asyncio.gather(*submitting) == [f'"{agent}"' for agent in ids] * 2
    for agent in agents:
        assert await agent.stop() == 0
    await site.check()


async def test_what_is_of_a_newer_version_is_parked_and_read_by_the_first_leader_that_reads_it(site: Site) -> None:
    names, counting = site.names, Counting()
    agent = WireAgent(site.redis, names.pool, "old-agent")
    async with AsyncExitStack() as old, Client(site.url, pool=names.pool) as bus, at_work(agent):
        await old.enter_async_context(running_dispatcher(site.url, names.pool, observer=counting, dispatcher_id="old"))
        await agent.register("t.x", "t.y")
        waits = await bus.submit("t.none")
        theirs = [await submit(site, f"theirs{n}") for n in range(5)]
        await site.write(names.commands, {"v": 2, "type": "cancel", "task_ids": [waits.id]})
        far = site.agent(AFTER, "far")
        for_far = await bus.submit("t.echo", "from afar")
        await eventually(lambda: counting.waits.get("registrations"), timeout=40)

        # The old leader works on meanwhile, takes an agent that falls silent for lost, and rejects nothing.
        assert await (await bus.submit("t.x", "mine")).result(timeout=30) == "mine"
        silent = WireAgent(site.redis, names.pool, "silent")
        await silent.register("t.silent", lease=1.0)
        await silent.fall_silent()
        await eventually(lambda: _lost(bus, "silent"), timeout=30)
        await eventually(lambda: counting.waits.get("tasks:medium") == 5 and counting.waits["commands"] == 1)
        assert await site.redis.xlen(names.rejected) == 0
        assert (await bus.queue_status()).unread == 5
        assert {(await waits.get()).status, (await for_far.get()).status} == {TaskStatus.PENDING}
        patience = Patience(consumed_ms=0, idle_ms=0)
        found = await Auditor(site.redis, names, pause_s=0.1, patience=patience).run()
        assert Kind.NEWER_MESSAGE in {one.kind for one in found}

        site.dispatcher(NEXT, "next")
        await old.aclose()
        await eventually(lambda: site.leads("next"), timeout=40)
        for task_id in theirs:
            assert await bus.handle(task_id).result(timeout=20) == task_id.partition(".")[2]
        assert await for_far.result(timeout=20) == "from afar"
        assert (await for_far.get()).attempt == 1
        await eventually(lambda: _is(waits, TaskStatus.CANCELLED))
        assert await far.stop() == 0
        await site.check()


async def test_after_a_step_back_to_the_older_version_nothing_is_lost_either(site: Site) -> None:
    names = site.names
    agent = WireAgent(site.redis, names.pool)
    async with Client(site.url, pool=names.pool) as bus, at_work(agent):
        ahead = site.dispatcher(NEXT, "next")
        await eventually(lambda: site.leads("next"), timeout=40)
        await agent.register("t.x")
        first = await submit(site, "first")
        assert await bus.handle(first).result(timeout=20) == "first", "an old agent works for a new leader"
        waits = await submit(site, "waits", capability="t.late")
        await eventually(lambda: _is(bus.handle(waits), TaskStatus.PENDING))
        await ahead.kill()
        await site.redis.delete(names.leader)
        async with running_dispatcher(site.url, names.pool, dispatcher_id="old"):
            second = await submit(site, "second")
            assert await (await bus.submit("t.x", "mine")).result(timeout=30) == "mine"
            late = WireAgent(site.redis, names.pool, "late")
            async with at_work(late):
                await late.register("t.late")
                assert await bus.handle(waits).result(timeout=30) == "waits", "its record is read, whoever accepted it"
            assert await site.redis.hget(names.task(second), "state") is None
        site.dispatcher(NEXT, "again")
        assert await bus.handle(second).result(timeout=40) == "second"


async def test_an_older_dispatcher_that_leads_for_a_while_loses_nothing_of_newer_agents(site: Site) -> None:
    names = site.names
    new = site.dispatcher(NEXT, "new")
    far: dict[str, Any] = {"v": 2, "agent_id": "far", "session": "s1"}
    offer: dict[str, Any] = {"capabilities": (CapabilitySpec(name="t.far"),), "lease": 2.0, "heartbeat_interval": 0.5}
    await eventually(lambda: site.leads("new"), timeout=40)
    await site.write(names.registrations, Register(**far, **offer))
    async with Client(site.url, pool=names.pool) as bus:
        handle = await bus.submit("t.far")
        await eventually(lambda: site.assigned("far", 1), timeout=20)
        result = TaskResult(task_id=handle.id, attempt=1, status=TaskStatus.COMPLETED, output="told the old one")
        async with AsyncExitStack() as old:
            await new.stop()
            await old.enter_async_context(running_dispatcher(site.url, names.pool, dispatcher_id="old"))
            await site.write(names.heartbeats, Heartbeat(**far, holding=((handle.id, 1),)))
            await site.write(names.results, Report(**far, results=(result,)))
            await eventually(lambda: _is(handle, TaskStatus.PENDING), timeout=20)
            assert await site.redis.xlen(names.results) == 1
            assert await site.redis.xlen(names.heartbeats) == 0, "of heartbeats only the latest counts"
            site.dispatcher(NEXT, "newer")
        await eventually(lambda: site.leads("newer"), timeout=40)
        await site.write(names.registrations, Register(**far, **offer))
        await eventually(lambda: site.assigned("far", 2), timeout=20)
        again = result.model_copy(update={"attempt": 2, "output": "told the new one"})
        await site.write(names.results, Report(**far, results=(again,)))
        assert await handle.result(timeout=30) == "told the new one"
    await site.write(names.registrations, Unregister(**far, forget=True))
    await site.check()


async def test_an_agent_that_is_too_old_for_its_dispatcher_says_so_and_leaves_its_tasks_to_others(site: Site) -> None:
    site.dispatcher(AFTER, "leader")
    old = site.agent(THIS, "old")
    assert await old.ended() == ExitCode.TOO_OLD
    await old.wait_for("upgrade this agent")
    site.agent(AFTER, "new")
    assert await site.submit(THIS, "t.echo", '"well"', "--wait") == '"well"'
    await site.check()


async def test_when_the_next_leader_writes_what_agents_and_clients_do_not_read_nothing_of_theirs_is_lost(
    site: Site,
) -> None:
    agent = Patient()
    settings = AgentSettings(
        redis_url=site.url, pool=site.names.pool, agent_id="old", slots=1, grace=timedelta(seconds=60)
    )
    worker = Worker(agent, settings)
    async with Client(site.url, pool=site.names.pool) as bus:
        async with running_dispatcher(site.url, site.names.pool, dispatcher_id="old"):
            working = asyncio.create_task(worker.run(asyncio.Event()))
            await worker.ready.wait()
            runs = await bus.submit("t.patient", "it ran on")
            await asyncio.wait_for(agent.runs.wait(), 10)
            waits = await bus.submit("t.echo", "others did it")
            await eventually(lambda: _is(waits, TaskStatus.PENDING))
            results = asyncio.gather(runs.result(timeout=60), waits.result(timeout=60))
            site.dispatcher(AFTER, "new")
        await eventually(lambda: site.leads("new"), timeout=40)
        with pytest.raises(ClientTooOldError, match="upgrade"):
            await bus.explain(waits.id)
        await bus.update_agent("old", attributes={"zone": "eu"})  # whatever the new leader has to say to it
        await eventually(lambda: _leaves(bus, "old"))
        agent.let_go.set()
        assert await working is ExitCode.TOO_OLD
        site.agent(AFTER, "new-agent")
        assert list(await results) == ["it ran on", "others did it"], (
            "what runs is finished, and the ledger tells who waits"
        )
        assert {(await runs.get()).attempt, (await waits.get()).attempt} == {1}
    await site.check()


async def _lost(bus: Client, agent_id: str) -> bool:
    return any(one.agent_id == agent_id and one.health == "lost" for one in await bus.agents())


async def _leaves(bus: Client, agent_id: str) -> bool:
    return (await bus.agent(agent_id)).status is AgentStatus.DRAINING


async def _is(handle: Any, status: TaskStatus) -> bool:
    return (await handle.get()).status is status
