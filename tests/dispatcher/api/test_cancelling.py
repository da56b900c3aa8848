"""Cancelling over HTTP: some tasks by their ids, or all that meet conditions; and what has come of each."""

import asyncio
from typing import Any

import httpx
import pytest
from pydantic_core import from_json
from redis.asyncio import Redis

from tests.dispatcher.api.conftest import Alternating, assert_problem, serving, submitted
from tests.support.bus import WireAgent, wire_agent
from tests.support.waiting import eventually

CANCEL = "/tasks/cancel"


async def running(api: Any, agent: WireAgent, **fields: Any) -> tuple[str, Any]:
    """Return a task that runs in `agent`, and its assignment."""
    task_id = await submitted(api, **fields)
    given = await agent.next()
    await agent.report(updates=({"task_id": task_id, "attempt": given.attempt, "status": "RUNNING"},))

    async def runs() -> bool:
        return bool((await api.get(f"/tasks/{task_id}")).json()["status"] == "RUNNING")

    await eventually(runs)
    return task_id, given


async def test_what_waits_is_cancelled_at_once_and_told_from_ended_and_unknown(api: Alternating, pool: str) -> None:
    task_id = await submitted(api)
    await api.get(f"/tasks/{task_id}")
    unknown = f"{pool}.nothing"
    asked = {"task_ids": [task_id, unknown, task_id], "reason": "no need"}
    told = await api.post(CANCEL, json=asked)
    assert (told.status_code, told.json()) == (
        200,
        {
            "cancelled": [{"task_id": task_id, "step": "finished"}],
            "over": [],
            "unknown": [unknown],
            "matched": None,
        },
    )
    record = (await api.get(f"/tasks/{task_id}")).json()
    assert (record["status"], record["reason"], record["cancellation"]["by"]) == ("CANCELLED", "no need", "api")
    again = (await api.post(CANCEL, json=asked)).json()
    assert (again["cancelled"], again["over"]) == ([], [{"task_id": task_id, "status": "CANCELLED"}])


async def test_each_step_of_what_runs_is_told_and_the_end_waited_for(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id, given = await running(api, agent)

        async def step(wait: float = 0) -> str:
            told = (await api.post(CANCEL, json={"task_ids": [task_id]}, params={"wait": wait})).json()
            (one,) = told["cancelled"]
            return str(one["step"])

        assert await step() == "requested"
        update = {"task_id": task_id, "attempt": given.attempt, "status": "RUNNING"}
        for word in ("delivered", "acknowledged"):
            await agent.report(updates=({**update, "cancel": word},))

            async def heard(word: str = word) -> bool:
                return await step() == word

            await eventually(heard)
        waiting = asyncio.create_task(step(wait=10))
        await eventually(lambda: is_watched(redis, pool, task_id))
        await agent.report(results=({"task_id": task_id, "attempt": given.attempt, "status": "CANCELLED"},))
        assert await waiting == "finished"


async def is_watched(redis: Redis, pool: str, task_id: str) -> bool:
    run: Any = await redis.hget(f"callboard:{{{pool}}}:task:{task_id}", "run")
    return bool(from_json(run).get("watchers"))


async def test_code_that_does_not_stop_is_given_up_after_its_grace(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id, _ = await running(api, agent)
        told = await api.post(CANCEL, json={"task_ids": [task_id], "grace": 0.1}, params={"wait": 15})
        assert told.json()["cancelled"] == [{"task_id": task_id, "step": "given_up"}]


async def test_a_result_that_was_on_its_way_counts(api: Alternating, redis: Redis, pool: str) -> None:
    async with wire_agent(redis, pool, "text.count") as agent:
        task_id, given = await running(api, agent)
        asking = asyncio.create_task(api.post(CANCEL, json={"task_ids": [task_id]}, params={"wait": 10}))

        async def requested() -> bool:
            return (await api.get(f"/tasks/{task_id}")).json()["cancellation"] is not None

        await eventually(requested)
        await agent.complete(given, 7)
        assert (await asking).json()["over"] == [{"task_id": task_id, "status": "COMPLETED"}]


async def test_all_that_meet_conditions_are_cancelled_and_counted(api: Alternating) -> None:
    night = [await submitted(api, tags=["night"], payload=n) for n in range(3)]
    day = await submitted(api, tags=["day"])
    for task_id in (*night, day):
        await api.get(f"/tasks/{task_id}")
    told = (await api.post(CANCEL, json={"where": {"tags": ["night"], "status": ["PENDING"]}})).json()
    assert told["matched"] == 3
    assert [(await api.get(f"/tasks/{one}")).json()["status"] for one in night] == ["CANCELLED"] * 3
    assert (await api.get(f"/tasks/{day}")).json()["status"] == "PENDING"
    assert (await api.post(CANCEL, json={"all": True})).json()["matched"] == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"task_ids": []},
        {"where": {}},
        {"task_ids": ["default.x"], "where": {"tags": ["x"]}},
        {"task_ids": ["default.x"], "all": True},
        {"where": {"tags": ["x"]}, "grace": 1},
    ],
)
async def test_which_tasks_are_meant_must_be_said_in_one_way(orphan: httpx.AsyncClient, body: Any) -> None:
    assert_problem(await orphan.post(CANCEL, json=body), "invalid", 422, "body")


async def test_a_condition_that_is_not_known_cancels_nothing(orphan: httpx.AsyncClient) -> None:
    answer = await orphan.post(CANCEL, json={"where": {"tagz": ["x"]}})
    assert_problem(answer, "invalid", 422, "body.where.tagz")
    assert_problem(await orphan.post(CANCEL, json={"task_ids": ["x"]}), "invalid", 422, "body.task_ids.0")
    assert_problem(await orphan.post(CANCEL, json={"task_ids": ["nowhere.x"]}), "unknown-pool", 404)
    assert_problem(await orphan.post(CANCEL, json={"all": True}, params={"pool": "nowhere"}), "unknown-pool", 404)


async def test_without_a_leader_a_cancel_is_stored_and_said_not_to_be_done(
    orphan: httpx.AsyncClient, pool: str
) -> None:
    assert_problem(await orphan.post(CANCEL, json={"task_ids": [f"{pool}.x"]}), "no-leader", 503)


async def test_a_wait_may_take_longer_than_other_requests(redis_url: str, redis: Redis, led: str) -> None:
    async with serving(redis_url, led, request_timeout="1s") as api, wire_agent(redis, led, "text.count") as agent:
        task_id, _ = await running(api, agent)
        waited = await api.get(f"/tasks/{task_id}/result", params={"wait": 1.5})
        assert waited.status_code == 202, waited.text
