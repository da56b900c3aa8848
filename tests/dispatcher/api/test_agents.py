"""Looking at agents over HTTP."""

import httpx
from redis.asyncio import Redis

from bus.messages import CapabilitySpec
from tests.dispatcher.api.conftest import Alternating, assert_problem
from tests.support.bus import wire_agent
from tests.support.waiting import eventually


async def test_agents_are_listed_by_what_they_can_do(api: Alternating, redis: Redis, pool: str) -> None:
    big = CapabilitySpec(name="draw", attributes={"gpu": 24, "region": "eu"})
    small = CapabilitySpec(name="draw", attributes={"gpu": 8})
    async with (
        wire_agent(redis, pool, big, agent_id="big"),
        wire_agent(redis, pool, small, agent_id="small"),
        wire_agent(redis, pool, "count", agent_id="other"),
    ):

        async def listed(**params: object) -> list[str]:
            return [one["agent_id"] for one in (await api.get("/agents", params=params)).json()["agents"]]

        assert await listed() == ["big", "other", "small"]
        assert await listed(capability="draw") == ["big", "small"]
        assert await listed(capability="draw", attribute=["gpu >= 16", "region == eu"]) == ["big"]
        assert await listed(status="IDLE", health="healthy", limit=2) == ["big", "other"]
        assert await listed(status="DRAINING") == []
        page = (await api.get("/agents", params={"limit": 2})).json()
        assert page["next"] == "other"
        assert await listed(cursor=page["next"]) == ["small"]
        assert_problem(await api.get("/agents", params={"attribute": "gpu >="}), "invalid", 422, "query.attribute")


async def test_one_agent_and_its_load_are_shown(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count", slots=4) as agent:
        await api.post("/tasks/dispatch", json={"capability": "text.count"})
        await agent.next()
        assert (await api.get("/agents/wire")).json()["slots"] == 4

        async def loaded() -> bool:
            state = (await api.get("/agents/wire/status")).json()
            return state["workload"] is not None and state["workload"]["assigned"] + state["workload"]["running"] == 1

        await eventually(loaded)
        load = (await api.get("/agents/load")).json()
        assert (load["slots"], load["used"], load["load"], load["agents"][0]["agent_id"]) == (4, 1, 0.25, "wire")
        workload = (await api.get("/agents/workload")).json()
        assert workload["agents"][0]["agent_id"] == "wire"


async def test_an_unknown_agent_is_said_to_be_so(api: Alternating) -> None:
    for path in ("", "/status"):
        assert_problem(await api.get(f"/agents/nobody{path}"), "unknown-agent", 404)
        assert_problem(await api.get(f"/agents/no body{path}"), "invalid", 422, "path.agent_id")
        assert_problem(await api.get(f"/agents/nobody{path}?pool=elsewhere"), "unknown-pool", 404)


async def test_without_a_leader_nobody_says_how_full_agents_are(orphan: httpx.AsyncClient) -> None:
    for path in ("load", "workload"):
        assert_problem(await orphan.get(f"/agents/{path}"), "no-leader", 503)
