"""Steering agents over HTTP, and waiting until they have done it."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from agent_runtime import Agent, capability
from agent_runtime.worker import Worker
from bus import Client
from bus.clock import wall_ms
from tests.dispatcher.api.conftest import Alternating, assert_problem
from tests.fundamentals.conftest import running_agent
from tests.support.bus import wire_agent
from tests.support.waiting import eventually


class Counter(Agent):
    slots = 2

    @capability("text.count")
    async def count(self, task: str) -> int:
        return len(task.split())

    @capability("text.echo")
    async def echo(self, task: str) -> str:
        return task


@pytest.fixture
async def worker(led: str, bus: Client) -> AsyncIterator[Worker]:
    """Provide an agent that heeds what it is told."""
    assert bus.pool == led
    async with running_agent(bus, Counter()) as worker:
        yield worker


async def test_an_agent_is_paused_with_a_note_and_resumed(api: Alternating, worker: Worker) -> None:
    one = worker.agent_id
    told = await api.post(f"/agents/{one}/pause", json={"note": "disk swap", "lasts": 600}, params={"wait": 10})
    assert (told.status_code, told.json()["state"], told.json()["details"]["by"]) == (200, "done", "api")
    shown = (await api.get(f"/agents/{one}")).json()["pause"]
    assert (shown["note"], shown["until"] - shown["since"]) == ("disk swap", 600_000)
    told = await api.post(f"/agents/{one}/resume", params={"wait": 10})
    assert (told.status_code, told.json()["state"]) == (200, "done")
    assert (await api.get(f"/agents/{one}")).json()["pause"] is None


async def test_a_pause_may_end_at_an_instant_that_is_to_come(api: Alternating, worker: Worker) -> None:
    one = worker.agent_id
    until = wall_ms() + 600_000
    assert (await api.post(f"/agents/{one}/pause", json={"until": until}, params={"wait": 10})).status_code == 200
    assert abs((await api.get(f"/agents/{one}")).json()["pause"]["until"] - until) < 5_000
    assert_problem(await api.post(f"/agents/{one}/pause", json={"until": 1}), "invalid", 422, "body.until")
    both = {"until": until, "lasts": 5}
    assert_problem(await api.post(f"/agents/{one}/pause", json=both), "invalid", 422, "body")


async def test_what_an_agent_offers_is_changed(api: Alternating, worker: Worker) -> None:
    one = worker.agent_id
    change = {"disable": ["text.count"], "attributes": {"region": "us"}, "slots": 5, "reason": "test"}
    told = await api.patch(f"/agents/{one}/capabilities", json=change, params={"wait": 10})
    assert (told.status_code, told.json()["requested"], told.json()["state"]) == (200, "update", "done")
    shown = (await api.get(f"/agents/{one}")).json()
    assert (shown["slots"], shown["attributes"]["region"], shown["overrides"]["disabled"]) == (5, "us", ["text.count"])
    back = await api.patch(f"/agents/{one}/capabilities", json={"reset": True}, params={"wait": 10})
    assert back.json()["state"] == "done"
    assert (await api.get(f"/agents/{one}")).json()["slots"] == 2
    assert_problem(await api.patch(f"/agents/{one}/capabilities", json={}), "invalid", 422, "body")
    assert_problem(await api.patch(f"/agents/{one}/capabilities", json={"slots": 0}), "invalid", 422, "body.slots")


async def test_an_agent_is_drained(api: Alternating, worker: Worker) -> None:
    one = worker.agent_id
    told = await api.post(f"/agents/{one}/drain", json={"reason": "new disk", "deadline": 5}, params={"wait": 10})
    assert (told.status_code, told.json()["state"]) == (200, "done")
    assert (await api.get(f"/agents/{one}/status")).json()["status"] == "STOPPED"
    refused = await api.post(f"/agents/{one}/restart", params={"wait": 10})
    assert (refused.status_code, refused.json()["state"]) == (200, "refused")
    assert "start its process" in refused.json()["details"]["error"]


async def test_without_a_wait_the_request_is_stored_and_its_record_tells_on(
    api: Alternating, redis: Redis, pool: str
) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        told = await api.post("/agents/wire/restart", json={"reason": "new release"})
        assert (told.status_code, told.json()["requested"], told.json()["state"]) == (202, "restart", "requested")
        told_agent: Any = (await agent.control.get()).root
        assert (told_agent.type, told_agent.reason) == ("restart", "new release")

        async def recorded() -> bool:
            shown = (await api.get("/agents/wire")).json()["request"]
            return shown is not None and shown["id"] == told.json()["request"]

        await eventually(recorded)


async def test_an_agent_that_does_not_answer_is_overdue(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count"):
        early = await api.post("/agents/wire/pause", params={"wait": 0.2})
        assert (early.status_code, early.json()["state"]) == (202, "requested")
        late = await api.post("/agents/wire/pause", params={"wait": 15})
        assert (late.status_code, late.json()["state"]) == (200, "overdue")


async def test_of_an_unknown_agent_nothing_can_be_asked(api: Alternating) -> None:
    for verb in ("pause", "resume", "drain", "restart"):
        assert_problem(await api.post(f"/agents/nobody/{verb}"), "unknown-agent", 404)
        assert_problem(await api.post(f"/agents/no body/{verb}"), "invalid", 422, "path.agent_id")
        assert_problem(await api.post(f"/agents/nobody/{verb}?pool=nowhere"), "unknown-pool", 404)
    assert_problem(await api.patch("/agents/nobody/capabilities", json={"slots": 1}), "unknown-agent", 404)


async def test_without_a_leader_a_wait_says_so(orphan: httpx.AsyncClient, redis: Redis, pool: str) -> None:
    record = '{"agent_id":"a","session":"s","status":"IDLE","health":"healthy","slots":1,"capabilities":[]}'
    await redis.hset(f"callboard:{{{pool}}}:agent:a", "record", record)
    answer = await orphan.post("/agents/a/pause", params={"wait": 15}, timeout=30)
    assert (answer.status_code, answer.json()["state"]) == (202, "requested"), "it is stored"
    assert (await orphan.post("/agents/a/pause")).status_code == 202
