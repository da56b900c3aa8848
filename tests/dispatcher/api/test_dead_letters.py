"""Dead letters over HTTP: listed, shown, requeued and purged."""

import asyncio
from typing import Any

import httpx
from pydantic_core import from_json
from redis.asyncio import Redis

from bus.ids import check_pool
from bus.names import PoolNames
from tests.dispatcher.api.conftest import Alternating, assert_problem, failed, submitted
from tests.support.bus import wire_agent


async def test_dead_letters_are_listed_page_by_page_by_any_condition(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        ids = [await failed(api, agent, tags=["x"]), await failed(api, agent, tags=["x", "y"])]

        async def listed(**params: Any) -> list[str]:
            answer = await api.get("/dead", params=params)
            assert answer.status_code == 200, answer.text
            return [one["id"] for one in answer.json()["tasks"]]

        assert await listed() == ids[::-1]
        assert await listed(tag=["x", "y"]) == [ids[1]]
        assert set(await listed(capability="text.count", reason=["error", "timeout"], error="ValueError")) == set(ids)
        assert await listed(reason="expired") == await listed(ended_before=1) == await listed(fairness_key="k") == []
        assert set(await listed(agent="wire", ended_after=1, enqueued_after=1)) == set(ids)
        first = (await api.get("/dead", params={"limit": 1})).json()
        assert await listed(limit=1, cursor=first["next"]) == [ids[0]]
        assert_problem(await api.get("/dead", params={"cursor": first["next"], "tag": "x"}), "invalid-cursor", 422)
        assert_problem(await api.get("/dead", params={"reason": "boredom"}), "invalid", 422, "query.reason.0")


async def test_one_is_shown_with_its_attempts(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id = await failed(api, agent)
        shown = (await api.get(f"/dead/{task_id}")).json()
        assert (shown["status"], shown["attempts"][0]["error"]["type"]) == ("FAILED", "ValueError")
    alive = await submitted(api)
    assert_problem(await api.get(f"/dead/{alive}"), "not-dead", 409)
    assert_problem(await api.get(f"/dead/{pool}.nothing"), "unknown-task", 404)


async def test_some_are_requeued_by_their_ids_and_others_left(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        dead = await failed(api, agent)
        alive = await submitted(api, capability="nobody.can")
        await api.get(f"/tasks/{alive}")
        unknown = f"{pool}.nothing"
        body = {"task_ids": [dead, alive, unknown], "reason": "fixed", "priority": "URGENT"}
        told = await api.post("/dead/requeue", json=body)
        assert (told.status_code, told.json()) == (
            200,
            {"done": [dead], "not_dead": [alive], "unknown": [unknown], "refused": []},
        )
        assert (await agent.next()).task_id == dead
        record = (await api.get(f"/tasks/{dead}")).json()
        assert (record["priority"], record["requeues"][0]["why"]) == ("URGENT", "fixed")


async def test_all_of_a_kind_are_purged_and_all_there_are_requeued(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        gone = await failed(api, agent, tags=["x"])
        kept = await failed(api, agent)
        told = (await api.post("/dead/purge", json={"where": {"tags": ["x"], "reason": ["error"]}})).json()
        assert told["done"] == [gone]
        assert_problem(await api.get(f"/tasks/{gone}"), "unknown-task", 404)
        assert (await api.post("/dead/requeue", json={"all": True})).json()["done"] == [kept]
        assert (await agent.next()).task_id == kept


async def test_which_are_meant_must_be_said(orphan: httpx.AsyncClient) -> None:
    for verb in ("requeue", "purge"):
        assert_problem(await orphan.post(f"/dead/{verb}", json={}), "invalid", 422, "body")
        assert_problem(await orphan.post(f"/dead/{verb}", json={"where": {}}), "invalid", 422, "body")
        assert_problem(await orphan.post(f"/dead/{verb}", json={"task_ids": ["nowhere.x"]}), "unknown-pool", 404)
        assert_problem(await orphan.get(f"/dead?pool=nowhere{verb}"), "unknown-pool", 404)


async def test_without_a_leader_none_is_requeued(orphan: httpx.AsyncClient, pool: str) -> None:
    answer = await orphan.post("/dead/requeue", json={"task_ids": [f"{pool}.x"]}, timeout=30)
    assert_problem(answer, "no-leader", 503)


async def test_an_answer_of_a_newer_leader_is_told_as_what_it_is(
    orphan: httpx.AsyncClient, redis: Redis, pool: str
) -> None:
    names = PoolNames(check_pool(pool))

    async def newer() -> None:
        read: Any = await redis.xread({names.commands: "0"}, block=10_000)
        ((_, [(_, fields)]),) = read
        asked = from_json(fields[b"__data__"])
        await redis.xadd(names.replies(asked["reply_to"]), {"__data__": '{"v":99,"dead":"in other words"}'})

    leading = asyncio.create_task(newer())
    asked = {"task_ids": [f"{pool}.one"]}
    assert_problem(await orphan.post("/dead/requeue", json=asked), "api-too-old", 502)
    await leading
