"""The results of many tasks in one request."""

import asyncio

import httpx
from redis.asyncio import Redis

from bus import Client
from dispatcher.api.routers import results
from tests.dispatcher.api.conftest import Alternating, assert_problem, failed, submitted
from tests.dispatcher.api.test_cancelling import is_watched
from tests.support.bus import wire_agent
from tests.support.waiting import eventually

RESULTS = "/tasks/results"


async def test_ended_unfinished_and_unknown_tasks_are_told_apart(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        dead = await failed(api, agent)
        waits, unknown = await submitted(api, capability="nobody.can"), f"{pool}.nothing"
        await api.get(f"/tasks/{waits}")
        told = await api.post(RESULTS, json={"task_ids": [dead, waits, unknown, dead]})
        assert told.status_code == 200
        (ended,) = told.json()["ended"]
        assert (ended["task_id"], ended["status"], ended["error"]["type"]) == (dead, "FAILED", "ValueError")
        assert (told.json()["unfinished"], told.json()["unknown"]) == ([waits], [unknown])


async def test_a_wait_ends_with_the_first_that_ends(api: Alternating, redis: Redis, pool: str) -> None:
    one, other = await submitted(api), await submitted(api, capability="nobody.can")
    for task_id in (one, other):
        await api.get(f"/tasks/{task_id}")
    waiting = asyncio.create_task(api.post(RESULTS, json={"task_ids": [one, other]}, params={"wait": 15}))
    await eventually(lambda: is_watched(redis, pool, one))
    async with wire_agent(redis, pool, "text.count") as agent:
        await agent.complete(await agent.next(), 7)
        told = (await waiting).json()
    assert [(one["task_id"], one["output"]) for one in told["ended"]] == [(one, 7)]
    assert told["unfinished"] == [other]


async def test_a_wait_that_is_over_says_that_nothing_has_ended(api: Alternating) -> None:
    waits = await submitted(api, capability="nobody.can")
    told = await api.post(RESULTS, json={"task_ids": [waits]}, params={"wait": 0.2})
    assert told.json() == {"ended": [], "unfinished": [waits], "unknown": [], "unreadable": []}


async def test_a_submission_that_waits_to_be_read_is_unfinished(orphan: httpx.AsyncClient) -> None:
    unread = await submitted(orphan)
    assert (await orphan.post(RESULTS, json={"task_ids": [unread]})).json()["unfinished"] == [unread]


async def test_large_outputs_are_told_by_several_answers(api: Alternating, redis: Redis, pool: str) -> None:
    assert results.MAX_OUTPUTS >= 1024 * 1024
    async with wire_agent(redis, pool, "text.count") as agent:
        ids = [await submitted(api) for _ in range(7)]
        for _ in ids:
            await agent.complete(await agent.next(), "x" * 900_000)
        for task_id in ids:
            assert (await api.get(f"/tasks/{task_id}/result", params={"wait": 10})).status_code == 200
        left, answers = ids, 0
        while left:
            told = (await api.post(RESULTS, json={"task_ids": left})).json()
            assert told["ended"]
            left, answers = told["unfinished"], answers + 1
        assert answers == 2


async def test_a_record_that_cannot_be_read_is_told_apart(api: Alternating, redis: Redis, pool: str) -> None:
    await redis.hset(f"callboard:{{{pool}}}:task:{pool}.odd", mapping={"state": "FAILED/1//", "run": "{"})
    assert (await api.post(RESULTS, json={"task_ids": [f"{pool}.odd"]})).json()["unreadable"] == [f"{pool}.odd"]


async def test_what_cannot_be_asked_for_is_refused(orphan: httpx.AsyncClient) -> None:
    assert_problem(await orphan.post(RESULTS, json={"task_ids": []}), "invalid", 422, "body.task_ids")
    assert_problem(await orphan.post(RESULTS, json={"task_ids": ["x"]}), "invalid", 422, "body.task_ids.0")
    assert_problem(await orphan.post(RESULTS, json={"task_ids": ["nowhere.x"]}), "unknown-pool", 404)


async def test_the_children_of_a_task_are_listed(api: Alternating, redis: Redis, bus: Client, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        parent = await submitted(api)
        given = await agent.next()
        body = (
            f'{{"v":1,"id":"{pool}.child","capability":"nobody.can","parent":"{parent}","parent_attempt":1,"depth":1}}'
        )
        await redis.xadd(agent.names.submissions(given.task.priority), {"__data__": body})

        async def listed() -> list[str]:
            return [one["id"] for one in (await api.get(f"/tasks/{parent}/children")).json()["tasks"]]

        await eventually(listed)
        assert await listed() == [f"{pool}.child"] == [child.id for child in await bus.children(parent)]
    assert_problem(await api.get(f"/tasks/{pool}.nothing/children"), "unknown-task", 404)
