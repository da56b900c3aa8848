"""Who may do what: tokens, scopes, pools, rates; and what keeps web pages out where no token is asked for."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from redis.asyncio import Redis

from bus.names import POOLS_KEY, TOKENS_KEY
from dispatcher.api.rates import Rates
from dispatcher.api.service import ApiError, ApiService
from dispatcher.api.settings import ApiSettings
from dispatcher.api.tokens import Tokens
from tests.dispatcher.api.conftest import assert_problem, serving
from tests.support.waiting import eventually


@pytest.fixture
async def tokens(redis: Redis) -> AsyncIterator[Tokens]:
    """Provide the tokens of the server; all are gone after the test."""
    yield Tokens(redis)
    await redis.delete(TOKENS_KEY)


@pytest.fixture
async def guarded(redis_url: str, led: str) -> AsyncIterator[httpx.AsyncClient]:
    """Provide a client of an API that asks for tokens."""
    async with serving(redis_url, led, require_token=True) as client:
        yield client


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


READS = (
    *(
        "/tasks",
        "/tasks/queue/status",
        "/tasks/{t}",
        "/tasks/{t}/explain",
        "/tasks/{t}/timeline",
        "/tasks/{t}/children",
        "/agents",
    ),
    *("/agents/load", "/agents/workload", "/agents/a", "/agents/a/status", "/status", "/metrics", "/events"),
    *("/dead", "/dead/{t}", "/schedules", "/schedules/s"),
)
REPORTS = ("start", "progress", "result")
OPERATIONS: list[tuple[str, str, Any, set[str]]] = [
    *(("GET", path, None, {"read"}) for path in READS),
    ("GET", "/tasks/{t}/result", None, {"read", "submit"}),
    ("GET", "/tasks/{t}/events", None, {"read", "submit"}),
    ("POST", "/tasks/results", {"task_ids": ["{t}"]}, {"read", "submit"}),
    ("POST", "/tasks/plan", {"capability": "a"}, {"read"}),
    ("POST", "/tasks/dispatch", {"capability": "a"}, {"submit"}),
    ("POST", "/tasks/cancel", {"task_ids": ["{t}"]}, {"operate"}),
    *(("POST", f"/tasks/{{t}}/{what}", {"session": "s", "attempt": 1}, {"agent:b"}) for what in REPORTS),
    ("GET", "/agents/b/assignments?session=s", None, {"agent:b"}),
    ("GET", "/agents/a/assignments?session=s", None, set()),
    ("POST", "/agents/b/heartbeat", {"session": "s"}, {"agent:b"}),
    ("POST", "/agents/a/heartbeat", {"session": "s"}, set()),
    ("POST", "/agents/register", {"agent_id": "b", "capabilities": [{"name": "n"}]}, {"agent:b"}),
    ("POST", "/agents/register", {"agent_id": "a", "capabilities": [{"name": "n"}]}, set()),
    ("DELETE", "/agents/b", None, {"operate", "agent:b"}),
    ("DELETE", "/agents/a", None, {"operate"}),
    *(("POST", f"/agents/a/{verb}", None, {"operate"}) for verb in ("pause", "resume", "drain", "restart")),
    ("PATCH", "/agents/a/capabilities", {"slots": 1}, {"operate"}),
    *(("POST", f"/tasks/{{t}}/{verb}", None, {"operate"}) for verb in ("timeout", "retry")),
    ("POST", "/tasks/{t}/reprioritise", {"priority": "LOW"}, {"operate"}),
    ("POST", "/tasks/reprioritise", {"task_ids": ["{t}"], "priority": "LOW"}, {"operate"}),
    *(("POST", f"/dead/{verb}", {"task_ids": ["{t}"]}, {"operate"}) for verb in ("requeue", "purge")),
    *(("POST", f"/schedules/s/{verb}", None, {"operate"}) for verb in ("pause", "resume", "trigger")),
    ("PUT", "/schedules/s", {"every": 60, "task": {"capability": "a"}}, {"operate"}),
    ("DELETE", "/schedules/s", None, {"operate"}),
]


def _text(value: object) -> str:
    """Name a case; a set in order, for all workers of a run must know each by the same name."""
    return str(sorted(value) if isinstance(value, set) else value)[:30]


@pytest.mark.parametrize(("method", "path", "body", "scopes"), OPERATIONS, ids=_text)
async def test_each_operation_wants_its_scope(
    guarded: httpx.AsyncClient, tokens: Tokens, pool: str, method: str, path: str, body: Any, scopes: set[str]
) -> None:
    path = path.replace("{t}", f"{pool}.nothing")
    if isinstance(body, dict) and "task_ids" in body:
        body = {**body, "task_ids": [f"{pool}.nothing"]}
    assert_problem(await guarded.request(method, path, json=body), "unauthenticated", 401)
    for scope in ("read", "submit", "operate", "agent:b", "admin"):
        token, _ = await tokens.create([scope])
        async with guarded.stream(method, path, json=body, headers=bearer(token)) as answer:
            allowed = answer.status_code != 403
        assert allowed == (scope in scopes or scope == "admin"), (scope, answer.status_code)


async def test_an_agents_token_reads_that_agent_only(guarded: httpx.AsyncClient, tokens: Tokens) -> None:
    token, _ = await tokens.create(["agent:worker-1"])
    assert_problem(await guarded.get("/agents/worker-1", headers=bearer(token)), "unknown-agent", 404)
    assert_problem(await guarded.get("/agents/worker-2", headers=bearer(token)), "forbidden", 403)
    assert_problem(await guarded.post("/agents/worker-1/restart", headers=bearer(token)), "forbidden", 403)


async def test_a_token_is_good_in_its_pools_only(
    guarded: httpx.AsyncClient, tokens: Tokens, redis: Redis, pool: str
) -> None:
    await redis.sadd(POOLS_KEY, f"{pool}x")
    token, _ = await tokens.create(["admin"], pools=[pool])
    assert (await guarded.get("/tasks", headers=bearer(token))).status_code == 200
    for path in (f"/tasks?pool={pool}x", f"/tasks/{pool}x.y", f"/agents/a?pool={pool}x"):
        assert_problem(await guarded.get(path, headers=bearer(token)), "forbidden", 403)
    cancelled = await guarded.post("/tasks/cancel", json={"task_ids": [f"{pool}x.y"]}, headers=bearer(token))
    assert_problem(cancelled, "forbidden", 403)
    pools = (await guarded.get("/status", headers=bearer(token))).json()["pools"]
    assert [one["pool"] for one in pools] == [pool]
    await redis.srem(POOLS_KEY, f"{pool}x")


async def test_a_token_is_kept_by_its_hash_only_and_refused_soon_after_it_is_revoked(
    guarded: httpx.AsyncClient, tokens: Tokens, redis: Redis
) -> None:
    token, record = await tokens.create(["read"], name="me")
    secret = token.rsplit("_", 1)[1]
    kept: Any = await redis.hget(TOKENS_KEY, record.id)
    assert kept is not None
    assert secret not in kept.decode()
    assert (await guarded.get("/agents", headers=bearer(token))).status_code == 200
    wrong = f"cb_{record.id}_{'A' * 43}"
    for bad in (wrong, "cb_000000000000_" + "A" * 43, "nonsense", "x" * 5000):
        answer = await guarded.get("/agents", headers=bearer(bad))
        assert_problem(answer, "unauthenticated", 401)
        assert answer.headers["www-authenticate"] == "Bearer"
    assert await tokens.revoke(record.id)
    assert not await tokens.revoke(record.id)

    async def refused() -> bool:
        return (await guarded.get("/agents", headers=bearer(token))).status_code == 401

    await eventually(refused)


async def test_probes_need_no_token(guarded: httpx.AsyncClient) -> None:
    assert (await guarded.get("/livez")).status_code == (await guarded.get("/readyz")).status_code == 200


async def test_a_token_that_asks_too_often_is_told_to_wait(redis_url: str, pool: str, tokens: Tokens) -> None:
    async with serving(redis_url, pool, require_token=True, rate=0.5, burst=3) as api:
        token, _ = await tokens.create(["read"])
        other, _ = await tokens.create(["read"])
        assert [(await api.get("/agents", headers=bearer(token))).status_code for _ in range(3)] == [200] * 3
        answer = await api.get("/agents", headers=bearer(token))
        assert_problem(answer, "too-many-requests", 429)
        assert answer.headers["retry-after"] == "2"
        assert (await api.get("/agents", headers=bearer(other))).status_code == 200


def test_a_bucket_fills_at_its_rate_and_not_beyond_its_burst() -> None:
    rates = Rates(rate=2, burst=2)
    assert [rates.wait("a", 0.0) for _ in range(3)] == [0, 0, 0.5]
    assert rates.wait("a", 0.5) == 0
    assert [rates.wait("a", 100.0) for _ in range(3)] == [0, 0, 0.5]


async def test_it_does_not_listen_beyond_loopback_without_a_token(redis_url: str, tokens: Tokens) -> None:
    import asyncio  # noqa: PLC0415 - for one event

    settings = ApiSettings(redis_url=redis_url, host="0.0.0.0", port=0)  # noqa: S104 - what is tested
    with pytest.raises(ApiError, match="callboard token create"):
        await ApiService(settings).run(asyncio.Event())
    assert settings.guarded
    with pytest.raises(ValueError, match="loopback only"):
        ApiSettings(host="0.0.0.0", require_token=False)  # noqa: S104 - the same
    assert await tokens.all() == []


async def test_a_web_page_of_another_site_may_not_use_loopback(orphan: httpx.AsyncClient) -> None:
    body = {"capability": "a"}
    there = {"Origin": "https://evil.example"}
    assert_problem(await orphan.post("/tasks/dispatch", json=body, headers=there), "cross-site", 403)
    assert_problem(await orphan.get("/tasks", headers={"Host": "evil.example"}), "wrong-host", 421)
    here = {"Origin": str(orphan.base_url).removesuffix("/api/v1/")}
    assert (await orphan.post("/tasks/dispatch", json=body, headers=here)).status_code == 202
    answer = await orphan.post(
        "/tasks/dispatch", content=b'{"capability": "a"}', headers={"Content-Type": "text/plain"}
    )
    assert_problem(answer, "invalid", 422)


async def test_cors_is_off_unless_a_site_is_named(redis_url: str, pool: str) -> None:
    site = "https://board.example"
    asked = {"Origin": site, "Access-Control-Request-Method": "GET"}
    async with serving(redis_url, pool) as api:
        assert "access-control-allow-origin" not in (await api.options("/tasks", headers=asked)).headers
    async with serving(redis_url, pool, cors_origins=site) as api:
        assert (await api.options("/tasks", headers=asked)).headers["access-control-allow-origin"] == site
        posted = await api.post("/tasks/dispatch", json={"capability": "a"}, headers={"Origin": site})
        assert posted.status_code == 202
        refused = await api.post("/tasks/dispatch", content=b"x" * 2_000_000, headers={"Origin": site})
        assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (413, site)


def test_pages_of_every_site_are_let_in_only_with_a_token() -> None:
    with pytest.raises(ValidationError, match="require_token"):
        ApiSettings(cors_origins=("*",))
    assert ApiSettings(cors_origins=("*",), require_token=True).cors_origins == ("*",)
