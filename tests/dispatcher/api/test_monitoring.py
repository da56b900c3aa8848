"""How the system says that it is well."""

from typing import Any, Final

import httpx
from redis.asyncio import Redis

from bus.names import PoolNames
from tests.dispatcher.api.conftest import Alternating
from tests.support.waiting import eventually

LOOPS: Final = {"decide", "commit", "renew", "horizon", "intake", "standing"}


async def test_status_says_who_leads_and_how_much_waits(api: Alternating, pool: str) -> None:
    await api.post("/tasks/dispatch", json={"capability": "nobody.can"})
    status = (await api.get("/status")).json()
    (found,) = [one for one in status["pools"] if one["pool"] == pool]
    assert found["leader"]
    assert found["epoch"] > 0
    assert 0 < found["lease_left"] <= 3
    assert set(found["backlog"]) >= {"results", "commands", "tasks:urgent"}
    assert status["version"]


async def test_status_says_how_the_loops_of_the_leader_are_and_how_far_it_is_behind(
    api: Alternating, pool: str
) -> None:
    async def told() -> Any:
        pools = (await api.get("/status")).json()["pools"]
        return next(one for one in pools if one["pool"] == pool)

    async def published() -> bool:
        return {one["name"] for one in (await told())["loops"]} == LOOPS

    await eventually(published)
    found = await told()
    assert all(one["alive"] and one["age"] < 5 for one in found["loops"])
    assert 0 <= found["lag"] < 5


async def test_without_a_leader_no_loops_are_told_and_the_lag_grows(
    orphan: httpx.AsyncClient, redis: Redis, pool: str
) -> None:
    await redis.xadd(PoolNames(pool).results, {"__data__": "{}"}, id="1-1")  # type: ignore[arg-type] # a pool's name
    (found,) = [one for one in (await orphan.get("/status")).json()["pools"] if one["pool"] == pool]
    assert (found["leader"], found["loops"]) == (None, [])
    assert found["lag"] > 1_000_000


async def test_readiness_says_what_was_looked_at(api: Alternating) -> None:
    async def all_is_well() -> bool:  # a leader is seen by what it says, which takes a moment
        ready = (await api.get("/readyz")).json()
        return ready["ready"] and all(check["ok"] for check in ready["checks"])

    await eventually(all_is_well)


async def test_it_is_ready_without_a_leader_and_says_so(orphan: httpx.AsyncClient) -> None:
    ready = (await orphan.get("/readyz")).json()
    (leader,) = [check for check in ready["checks"] if check["name"] == "leader"]
    assert (ready["ready"], leader["ok"], leader["needed"]) == (True, False, False)


async def test_probes_and_metrics_are_at_the_root_too(orphan: httpx.AsyncClient) -> None:
    root = str(orphan.base_url).removesuffix("/api/v1/")
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await orphan.get(root + path)).status_code == 200
