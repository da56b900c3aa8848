"""Submitting tasks over HTTP, looking at them; each request goes to another API process."""

import asyncio
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bus.names import PoolNames
from tests.dispatcher.api.conftest import Alternating, assert_problem, failed, serving, submitted
from tests.support.bus import running_dispatcher, wire_agent
from tests.support.waiting import eventually

DISPATCH = "/tasks/dispatch"


async def test_a_task_is_submitted_done_and_its_result_fetched(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        answer = await api.post(DISPATCH, json={"capability": "text.count", "payload": {"text": "a b"}})
        assert answer.status_code == 202
        receipt = answer.json()
        (task,) = receipt["tasks"]
        assert (receipt["pool"], task["known"]) == (pool, False)
        assert answer.headers["location"] == f"/api/v1/tasks/{task['id']}"
        unfinished = await api.get(f"/tasks/{task['id']}/result")
        assert unfinished.status_code == 202
        await agent.complete(await agent.next(), {"words": 2})
        ended = await api.get(f"/tasks/{task['id']}/result", params={"wait": 10})
        assert (ended.status_code, ended.json()["status"], ended.json()["output"]) == (200, "COMPLETED", {"words": 2})
        record = (await api.get(f"/tasks/{task['id']}")).json()
        assert (record["status"], record["agent_id"], record["spec"]["payload"]) == (
            "COMPLETED",
            "wire",
            {"text": "a b"},
        )
        moments = (await api.get(f"/tasks/{task['id']}/timeline")).json()["moments"]
        assert [one["what"] for one in moments] in (
            ["submitted", "assigned", "ended", "finished"],
            ["submitted", "assigned", "started", "ended", "finished"],
        )


async def test_a_batch_is_stored_in_its_order_and_a_key_makes_it_repeatable(api: Alternating) -> None:
    tasks = [{"capability": "text.count", "payload": n, "tags": [f"n{n}"]} for n in range(450)]
    headers = {"Idempotency-Key": "batch 7"}
    first = (await api.post(DISPATCH, json={"tasks": tasks}, headers=headers)).json()["tasks"]
    again = (await api.post(DISPATCH, json={"tasks": tasks}, headers=headers)).json()["tasks"]
    assert [one["id"] for one in first] == [one["id"] for one in again]
    assert {one["known"] for one in first} == {False}
    assert {one["known"] for one in again} == {True}
    assert (await api.get(f"/tasks/{first[449]['id']}")).json()["spec"]["payload"] == 449


async def test_the_key_of_a_task_and_of_its_request_may_not_differ(api: Alternating) -> None:
    body = {"capability": "a", "key": "one"}
    answer = await api.post(DISPATCH, json=body, headers={"Idempotency-Key": "two"})
    assert_problem(answer, "invalid", 422, "body.key")
    assert (await api.post(DISPATCH, json=body, headers={"Idempotency-Key": "one"})).status_code == 202


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"{", "body"),
        (b'{"capability": "a", "payload": NaN}', "body"),
        (b'{"capability": "a", "payload": "\\ud800"}', "body"),
        (b"[" * 5000, "body"),
        (b"{}", "body.capability"),
        (b'{"capability": "no name"}', "body.capability"),
        (b'{"capability": "a", "max_attempts": 0}', "body.max_attempts"),
        (b'{"capability": "a", "frob": 1}', "body.frob"),
        (b'{"capability": "a", "pool": "other"}', "body"),
        (b'{"tasks": []}', "body.tasks"),
        (b'{"tasks": [{"capability": "a"}, {"capability": "b", "delay": -1}]}', "body.tasks.1.delay"),
    ],
)
async def test_what_is_wrong_with_a_task_is_said_by_its_field(
    orphan: httpx.AsyncClient, body: bytes, field: str
) -> None:
    answer = await orphan.post(DISPATCH, content=body, headers={"Content-Type": "application/json"})
    assert_problem(answer, "invalid", 422, field)


async def test_more_than_a_thousand_tasks_are_refused(orphan: httpx.AsyncClient) -> None:
    answer = await orphan.post(DISPATCH, json={"tasks": [{"capability": "a"}] * 1001})
    assert_problem(answer, "invalid", 422, "body.tasks")


async def test_a_task_larger_than_a_message_may_be_is_refused(redis_url: str, pool: str) -> None:
    async with serving(redis_url, pool, max_body=4 * 1024 * 1024) as api:
        answer = await api.post(DISPATCH, json={"capability": "a", "payload": "x" * 1_100_000})
        assert_problem(answer, "body-too-large", 413)


async def test_an_unknown_task_is_said_to_be_so(api: Alternating, pool: str) -> None:
    for path in ("", "/result", "/result?wait=5", "/timeline", "/explain", "/events"):
        assert_problem(await api.get(f"/tasks/{pool}.nothing{path}"), "unknown-task", 404)
        assert_problem(await api.get(f"/tasks/nonsense{path}"), "invalid", 422, "path.task_id")
        assert_problem(await api.get(f"/tasks/elsewhere.x{path}"), "unknown-pool", 404)


async def test_without_a_leader_a_task_is_stored_and_questions_are_not_answered(orphan: httpx.AsyncClient) -> None:
    task_id = await submitted(orphan)
    assert_problem(await orphan.get(f"/tasks/{task_id}"), "not-read-yet", 503)
    waiting = await orphan.get(f"/tasks/{task_id}/result", params={"wait": 0.1})
    assert (waiting.status_code, waiting.json()["status"]) == (202, None)
    assert_problem(await orphan.get(f"/tasks/{task_id}/explain"), "no-leader", 503)
    assert_problem(await orphan.post("/tasks/plan", json={"capability": "a"}), "no-leader", 503)
    assert (await orphan.get("/tasks/queue/status")).json()["unread"] == 1


async def test_a_waiting_task_is_explained_and_a_plan_made(api: Alternating) -> None:
    task_id = await submitted(api, capability="nobody.can")
    await api.get(f"/tasks/{task_id}")
    assert (await api.get(f"/tasks/{task_id}/explain")).json()["status"] == "PENDING"
    planned = await api.post("/tasks/plan", json={"capability": "nobody.can>=2[gpu >= 16]"})
    assert (planned.status_code, planned.json()["eligible"]) == (200, 0)


async def test_an_ended_task_is_explained_too(api: Alternating) -> None:
    task_id = await submitted(api)
    await api.get(f"/tasks/{task_id}")
    await api.post("/tasks/cancel", json={"task_ids": [task_id], "reason": "no need"})
    await api.get(f"/tasks/{task_id}/result", params={"wait": 10})
    explained = (await api.get(f"/tasks/{task_id}/explain")).json()
    assert (explained["status"], explained["ended_at"] > 0) == ("CANCELLED", True)
    assert "no need" in explained["text"]


async def _listed(api: Any, **params: Any) -> list[str]:
    found: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await api.get("/tasks", params={**params, **cursor})).json()
        found += [one["id"] for one in page["tasks"]]
        if page["next"] is None:
            return found
        cursor = {"cursor": page["next"]}


async def test_tasks_are_listed_page_by_page_while_they_move(api: Alternating, redis: Redis, pool: str) -> None:
    tasks = [{"capability": "text.count", "payload": n} for n in range(120)]
    ids = [one["id"] for one in (await api.post(DISPATCH, json={"tasks": tasks})).json()["tasks"]]
    await eventually(lambda: _all_accepted(redis, pool, 120))
    page = (await api.get("/tasks", params={"limit": 50})).json()
    seen = [one["id"] for one in page["tasks"]]
    async with wire_agent(redis, pool, "text.count", slots=30):
        await eventually(lambda: _handed_out(redis, pool, 30))
        seen += await _rest(api, page["next"], limit=50)
    assert set(seen) == set(ids)
    assert len(seen) <= 150, "only those that moved on are listed twice"


async def _rest(api: Any, cursor: str | None, **params: Any) -> list[str]:
    found: list[str] = []
    while cursor is not None:
        page = (await api.get("/tasks", params={**params, "cursor": cursor})).json()
        found += [one["id"] for one in page["tasks"]]
        cursor = page["next"]
    return found


async def _all_accepted(redis: Redis, pool: str, number: int) -> bool:
    return int(await redis.zcard(PoolNames(pool).pending)) == number  # type: ignore[arg-type] # a pool's name


async def _handed_out(redis: Redis, pool: str, number: int) -> bool:
    return int(await redis.zcard(PoolNames(pool).leases)) >= number  # type: ignore[arg-type] # a pool's name


async def test_lists_are_filtered(api: Alternating) -> None:
    red = await submitted(api, tags=["red"], priority="HIGH")
    blue = await submitted(api, capability="other.thing", tags=["blue"], delay=60)
    for task_id in (red, blue):
        await api.get(f"/tasks/{task_id}")
    assert set(await _listed(api)) == {red, blue}
    assert await _listed(api, tag="red") == await _listed(api, priority="HIGH") == [red]
    assert await _listed(api, capability="other.thing", status="PENDING", limit=1) == [blue]
    assert await _listed(api, status=["RUNNING", "FAILED"]) == await _listed(api, agent="nobody") == []


async def test_a_cursor_is_good_for_its_own_list_only(api: Alternating) -> None:
    for _ in range(2):
        await api.get(f"/tasks/{await submitted(api)}")
    cursor = (await api.get("/tasks", params={"limit": 1})).json()["next"]
    assert_problem(
        await api.get("/tasks", params={"cursor": cursor, "tag": "x"}), "invalid-cursor", 422, "query.cursor"
    )
    for nonsense in ("x", "", "bnVsbA==", "WyJ3IiwgIm5hbiIsICJ4IiwgIiJd"):
        assert_problem(await api.get("/tasks", params={"cursor": nonsense}), "invalid-cursor", 422)
    assert_problem(await api.get("/tasks", params={"limit": 0}), "invalid", 422, "query.limit")


async def test_a_wait_goes_on_while_another_takes_the_lead(redis_url: str, redis: Redis, pool: str) -> None:
    async with serving(redis_url, pool) as api:
        async with running_dispatcher(redis_url, pool):
            task_id = await submitted(api)
            await api.get(f"/tasks/{task_id}")
            waiting = asyncio.create_task(api.get(f"/tasks/{task_id}/result", params={"wait": 15}))
        async with running_dispatcher(redis_url, pool), wire_agent(redis, pool, "text.count") as agent:
            await agent.complete(await agent.next(), 7)
            assert (await waiting).json()["output"] == 7


async def test_a_failed_task_is_told_with_its_error(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id = await failed(api, agent)
        ended = (await api.get(f"/tasks/{task_id}/result")).json()
        assert (ended["status"], ended["reason"], ended["error"]["type"]) == ("FAILED", "error", "ValueError")
    assert await _listed(api, status="FAILED") == await _listed(api, reason="error", error="ValueError") == [task_id]


async def test_of_two_tasks_with_one_key_in_a_batch_the_second_is_known(orphan: httpx.AsyncClient) -> None:
    answer = await orphan.post(DISPATCH, json={"tasks": [{"capability": "a", "key": "k"}] * 2})
    assert [task["known"] for task in answer.json()["tasks"]] == [False, True]
