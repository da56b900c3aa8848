"""How the system says that it is well."""

import httpx

from tests.dispatcher.api.conftest import Alternating


async def test_status_says_who_leads_and_how_much_waits(api: Alternating, pool: str) -> None:
    await api.post("/tasks/dispatch", json={"capability": "nobody.can"})
    status = (await api.get("/status")).json()
    (found,) = [one for one in status["pools"] if one["pool"] == pool]
    assert found["leader"]
    assert found["epoch"] > 0
    assert 0 < found["lease_left"] <= 3
    assert set(found["backlog"]) >= {"results", "commands", "tasks:urgent"}
    assert status["version"]


async def test_readiness_says_what_was_looked_at(api: Alternating) -> None:
    ready = (await api.get("/readyz")).json()
    assert ready["ready"]
    assert all(check["ok"] for check in ready["checks"])


async def test_it_is_ready_without_a_leader_and_says_so(orphan: httpx.AsyncClient) -> None:
    ready = (await orphan.get("/readyz")).json()
    (leader,) = [check for check in ready["checks"] if check["name"] == "leader"]
    assert (ready["ready"], leader["ok"], leader["needed"]) == (True, False, False)


async def test_probes_and_metrics_are_at_the_root_too(orphan: httpx.AsyncClient) -> None:
    root = str(orphan.base_url).removesuffix("/api/v1/")
    for path in ("/livez", "/readyz", "/metrics"):
        assert (await orphan.get(root + path)).status_code == 200
