"""Over HTTP: an attempt is declared overdue, a failed task tried again, a priority changed."""

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.dispatcher.api.conftest import Alternating, assert_problem, failed, submitted
from tests.dispatcher.api.test_cancelling import running
from tests.support.bus import wire_agent
from tests.support.waiting import eventually


async def test_a_running_attempt_is_declared_overdue_and_the_task_tried_again(
    api: Alternating, redis: Redis, pool: str
) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id, given = await running(api, agent, retry={"base": 0})
        told = await api.post(f"/tasks/{task_id}/timeout", json={"reason": "it hangs"})
        assert (told.status_code, told.json()) == (200, {"task_id": task_id, "attempt": 1, "status": "PENDING"})
        assert (await agent.next()).attempt == 2
        await agent.complete(given, "late, and stale")
        record = (await api.get(f"/tasks/{task_id}")).json()
        assert record["attempts"][0]["error"]["message"] == "declared overdue by api: it hangs"
        assert record["status"] in {"ASSIGNED", "PENDING"}


async def test_the_last_attempt_that_is_declared_overdue_fails_the_task(
    api: Alternating, redis: Redis, pool: str
) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id, _ = await running(api, agent, max_attempts=1)
        assert (await api.post(f"/tasks/{task_id}/timeout")).json()["status"] == "FAILED"
        ended = (await api.get(f"/tasks/{task_id}/result")).json()
        assert (ended["status"], ended["reason"]) == ("FAILED", "timeout")
        assert_problem(await api.post(f"/tasks/{task_id}/timeout"), "not-running", 409)


async def test_another_attempt_than_the_one_that_is_meant_is_not_hit(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id, _ = await running(api, agent)
        assert_problem(await api.post(f"/tasks/{task_id}/timeout", json={"attempt": 2}), "not-running", 409)
        assert (await api.get(f"/tasks/{task_id}")).json()["status"] == "RUNNING"


async def test_what_does_not_run_cannot_be_overdue(api: Alternating, pool: str) -> None:
    task_id = await submitted(api)
    assert_problem(await api.post(f"/tasks/{task_id}/timeout"), "not-running", 409)
    assert_problem(await api.post(f"/tasks/{pool}.nothing/timeout"), "unknown-task", 404)
    assert_problem(await api.post("/tasks/nowhere.x/timeout"), "unknown-pool", 404)
    assert_problem(await api.post("/tasks/x/timeout"), "invalid", 422, "path.task_id")
    assert_problem(await api.post(f"/tasks/{task_id}/timeout", json={"attempt": 0}), "invalid", 422, "body.attempt")


async def test_a_failed_task_is_tried_again(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id = await failed(api, agent)
        told = await api.post(f"/tasks/{task_id}/retry", json={"reason": "disk is back", "priority": "HIGH"})
        assert (told.status_code, told.json()["task_id"]) == (200, task_id)
        again = await agent.next()
        assert (again.task_id, again.attempt) == (task_id, 2)
        assert_problem(await api.post(f"/tasks/{task_id}/retry"), "not-dead", 409)
        await agent.complete(again, 1)
        record = (await api.get(f"/tasks/{task_id}/result", params={"wait": 10})).json()
        assert record["status"] == "COMPLETED"
        past = (await api.get(f"/tasks/{task_id}")).json()
        assert (past["priority"], past["requeues"][0]["why"], past["requeues"][0]["by"]) == (
            "HIGH",
            "disk is back",
            "api",
        )
        assert_problem(await api.post(f"/tasks/{task_id}/retry"), "not-dead", 409)
    assert_problem(await api.post(f"/tasks/{pool}.nothing/retry"), "unknown-task", 404)


async def test_a_submission_that_was_wrong_cannot_be_tried_again(api: Alternating, redis: Redis, pool: str) -> None:
    task_id = f"{pool}.wrong"
    body = f'{{"v": 1, "id": "{task_id}", "capability": "no name"}}'
    await redis.xadd(f"callboard:{{{pool}}}:tasks:medium", {"__data__": body})

    async def rejected() -> bool:
        return bool((await api.get(f"/tasks/{task_id}")).status_code == 200)

    await eventually(rejected)
    assert_problem(await api.post(f"/tasks/{task_id}/retry"), "never-valid", 409)


async def test_priorities_are_changed(api: Alternating) -> None:
    one, other, third = [await submitted(api, tags=[tag]) for tag in ("x", "y", "y")]
    for task_id in (one, other, third):
        await api.get(f"/tasks/{task_id}")
    told = await api.post(f"/tasks/{one}/reprioritise", json={"priority": "URGENT"})
    assert (told.status_code, told.json()["requested"]) == (202, [one])
    told = await api.post("/tasks/reprioritise", json={"where": {"tags": ["y"]}, "priority": "LOW"})
    assert (told.status_code, told.json()["matched"]) == (202, 2)
    told = await api.post("/tasks/reprioritise", json={"task_ids": [third], "priority": "HIGH"})
    assert (told.status_code, told.json()["requested"]) == (202, [third])

    async def changed() -> bool:
        found = [(await api.get(f"/tasks/{task_id}")).json()["priority"] for task_id in (one, other, third)]
        return found == ["URGENT", "LOW", "HIGH"]

    await eventually(changed)


async def test_priorities_are_refused_that_cannot_be(api: Alternating, pool: str) -> None:
    assert_problem(await api.post("/tasks/reprioritise", json={"all": True}), "invalid", 422, "body.priority")
    unknown = await api.post(f"/tasks/{pool}.nothing/reprioritise", json={"priority": "LOW"})
    assert_problem(unknown, "unknown-task", 404)
    elsewhere = await api.post("/tasks/reprioritise", json={"task_ids": ["nowhere.x"], "priority": "LOW"})
    assert_problem(elsewhere, "unknown-pool", 404)


@pytest.mark.parametrize(("path", "body"), [("timeout", None), ("retry", None), ("reprioritise", {"priority": "LOW"})])
async def test_a_submission_that_waits_to_be_read_is_said_to_do_so(
    orphan: httpx.AsyncClient, path: str, body: Any
) -> None:
    task_id = await submitted(orphan)
    assert_problem(await orphan.post(f"/tasks/{task_id}/{path}", json=body), "not-read-yet", 503)


async def test_without_a_leader_nothing_is_said_to_be_done(orphan: httpx.AsyncClient, redis: Redis, pool: str) -> None:
    body = {"where": {"tags": ["x"]}, "priority": "LOW"}
    key = f"callboard:{{{pool}}}:task:{pool}.x"
    await redis.hset(key, mapping={"state": "FAILED/1//", "spec": '{"capability": "a"}', "run": "{}"})
    assert_problem(await orphan.post(f"/tasks/{pool}.x/retry"), "no-leader", 503)
    assert_problem(await orphan.post("/tasks/reprioritise", json=body, timeout=30), "no-leader", 503)
