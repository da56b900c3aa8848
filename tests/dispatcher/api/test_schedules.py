"""Schedules over HTTP: made, changed, listed, paused, resumed, triggered, deleted."""

from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from bus.names import PoolNames
from tests.dispatcher.api.conftest import Alternating, assert_problem

NIGHTLY: dict[str, Any] = {
    "cron": "0 3 * * *",
    "timezone": "Europe/Berlin",
    "task": {"capability": "text.count>=1", "payload": {"text": "a b"}, "tags": ["night"]},
}


async def test_a_schedule_is_made_changed_shown_and_deleted(api: Alternating) -> None:
    made = await api.put("/schedules/nightly", json=NIGHTLY)
    assert made.status_code == 200, made.text
    assert made.json()["spec"]["task"]["version"] == ">=1"
    assert made.json()["progress"]["next_due"] is not None
    changed = (await api.put("/schedules/nightly", json={**NIGHTLY, "overlap": "queue"})).json()
    assert changed["spec"]["overlap"] == "queue"
    kept = (await api.put("/schedules/nightly", json=NIGHTLY, params={"if_absent": True})).json()
    assert kept["spec"]["overlap"] == "queue"
    assert (await api.get("/schedules/nightly")).json()["spec"] == kept["spec"]
    assert (await api.delete("/schedules/nightly")).json() == {"schedule_id": "nightly"}
    assert_problem(await api.get("/schedules/nightly"), "unknown-schedule", 404)


async def test_schedules_are_listed_page_by_page(api: Alternating) -> None:
    for name in ("c", "a", "b"):
        assert (await api.put(f"/schedules/{name}", json=NIGHTLY)).status_code == 200
    page = (await api.get("/schedules", params={"limit": 2})).json()
    assert ([one["spec"]["id"] for one in page["schedules"]], page["next"]) == (["a", "b"], "b")
    rest = (await api.get("/schedules", params={"limit": 2, "cursor": page["next"]})).json()
    assert ([one["spec"]["id"] for one in rest["schedules"]], rest["next"]) == (["c"], None)


async def test_a_schedule_is_paused_resumed_and_triggered(api: Alternating) -> None:
    await api.put("/schedules/s", json={"every": 3600, "task": {"capability": "nobody.can"}})
    paused = (await api.post("/schedules/s/pause", json={"reason": "audit"})).json()
    assert (paused["progress"]["paused"], paused["progress"]["reason"]) == (True, "audit")
    assert not (await api.post("/schedules/s/resume")).json()["progress"]["paused"]
    triggered = await api.post("/schedules/s/trigger")
    task_id = triggered.json()["task_id"]
    assert (await api.get(f"/tasks/{task_id}")).json()["schedule"]["id"] == "s"
    assert_problem(await api.post("/schedules/s/trigger"), "schedule-busy", 409)


async def test_of_an_unknown_schedule_nothing_can_be_asked(api: Alternating) -> None:
    for verb in ("pause", "resume", "trigger"):
        assert_problem(await api.post(f"/schedules/nothing/{verb}"), "unknown-schedule", 404)
        assert_problem(await api.post(f"/schedules/nothing/{verb}?pool=nowhere"), "unknown-pool", 404)
    assert_problem(await api.delete("/schedules/nothing"), "unknown-schedule", 404)
    assert_problem(await api.get("/schedules/-"), "invalid", 422, "path.schedule_id")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"task": {"capability": "a"}}, "body"),
        ({"cron": "0 3 * * *", "every": 5, "task": {"capability": "a"}}, "body"),
        ({"cron": "at noon", "task": {"capability": "a"}}, "body"),
        ({"cron": "0 3 * * *", "timezone": "Mars/Olympus", "task": {"capability": "a"}}, "body"),
        ({"every": 5, "task": {"capability": "a", "key": "k"}}, "body"),
        ({"every": 5, "task": {"capability": "a", "payload": "x" * 70_000}}, "body"),
        ({"every": 5, "task": {"capability": "no name"}}, "body.task.capability"),
        ({"every": 0, "task": {"capability": "a"}}, "body.every"),
        ({"every": 5}, "body.task"),
    ],
)
async def test_what_cannot_be_is_refused_by_its_field(orphan: httpx.AsyncClient, body: Any, field: str) -> None:
    assert_problem(await orphan.put("/schedules/s", json=body), "invalid", 422, field)


async def test_without_a_leader_no_schedule_is_said_to_be_in_force(orphan: httpx.AsyncClient) -> None:
    assert_problem(await orphan.put("/schedules/s", json=NIGHTLY), "no-leader", 503)
    assert (await orphan.get("/schedules")).json() == {"schedules": [], "next": None}


async def test_a_schedule_that_cannot_be_read_is_said_to_be_so(
    orphan: httpx.AsyncClient, redis: Redis, pool: str
) -> None:
    names = PoolNames(pool)  # type: ignore[arg-type] # a pool's name
    await redis.hset(names.notes("schedules"), "odd", "{}")
    await redis.hset(names.notes("schedule-progress"), "odd", "{}")
    for path in ("", "/odd"):
        assert_problem(await orphan.get(f"/schedules{path}"), "unreadable-schedule", 500)
