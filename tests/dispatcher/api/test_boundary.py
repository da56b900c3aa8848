"""What holds of every request: its id, the size of its body, problems for whatever goes wrong."""

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import httpx
import pytest

from dispatcher.api import boundary, http_protocol
from dispatcher.api.routers import agents
from tests.dispatcher.api.conftest import assert_problem, serving
from tests.dispatcher.api.http_agent import HttpAgent
from tests.support.waiting import eventually


async def test_a_request_has_an_id_its_own_if_it_is_well_formed(orphan: httpx.AsyncClient) -> None:
    assert (await orphan.get("/livez", headers={"X-Request-ID": "my-1"})).headers["x-request-id"] == "my-1"
    for bad in ("a b", "x" * 65, "a/b"):
        made = (await orphan.get("/livez", headers={"X-Request-ID": bad})).headers["x-request-id"]
        assert made.isalnum()
    problem = assert_problem(await orphan.get("/nowhere", headers={"X-Request-ID": "my-2"}), "not-found", 404)
    assert problem["request_id"] == "my-2"


async def test_the_log_names_the_request_and_no_line_can_be_forged(
    orphan: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "callboard.api")
    await orphan.get("/nowhere%0Aforged", headers={"X-Request-ID": "my-3"})
    (line,) = [record.getMessage() for record in caplog.records if "my-3" in record.getMessage()]
    assert "answered 404" in line
    assert "\n" not in line


async def test_frameworks_own_errors_are_problems_too(orphan: httpx.AsyncClient) -> None:
    assert_problem(await orphan.get("/tasks/x/y/z"), "not-found", 404)
    answer = await orphan.put("/tasks")
    assert_problem(answer, "method-not-allowed", 405)
    assert answer.headers["allow"]


async def test_a_body_that_is_too_large_is_refused_announced_or_not(redis_url: str, pool: str) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 100

    async with serving(redis_url, pool, max_body=2000) as api:
        for body in (b" " * 2001, pieces()):
            answer = await api.post("/tasks/dispatch", content=body, headers={"Content-Type": "application/json"})
            assert_problem(answer, "body-too-large", 413)


async def test_a_body_that_does_not_arrive_is_given_up(
    orphan: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boundary, "BODY_S", 0.05)
    address = orphan.base_url
    reader, writer = await asyncio.open_connection(address.host, address.port)
    head = f"POST /api/v1/tasks/dispatch HTTP/1.1\r\nHost: {address.host}\r\nContent-Length: 10\r\n\r\n{{"
    writer.write(head.encode())
    assert b" 408 " in await reader.readline()
    writer.close()


async def test_a_defect_is_a_problem_with_its_traceback_in_the_log(
    orphan: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(agents, "_agents", broken)
    problem = assert_problem(await orphan.get("/agents"), "internal", 500)
    assert "ZeroDivisionError" not in str(problem)
    assert any(problem["request_id"] in record.getMessage() and record.exc_info for record in caplog.records)


async def test_an_answer_that_takes_too_long_is_given_up(
    redis_url: str, pool: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def endless(_: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(agents, "_agents", endless)
    async with serving(redis_url, pool, request_timeout=0.05) as api:
        assert_problem(await api.get("/agents"), "timed-out", 503)


async def test_who_waits_for_work_is_not_given_up(redis_url: str, led: str) -> None:
    async with serving(redis_url, led, request_timeout=0.1) as api:
        agent = HttpAgent(api)
        await eventually(partial(_registered, agent))
        assert await agent.poll(0.3) == []


async def _registered(agent: HttpAgent) -> bool:
    return (await agent.register()).status_code == 201


async def test_a_server_that_is_away_is_a_problem_to_try_again(pool: str) -> None:
    async with serving("redis://user:secret@127.0.0.1:1/0", pool) as api:
        for answer in (await api.get("/agents"), await api.get("/tasks"), await api.get("/status")):
            assert "secret" not in str(assert_problem(answer, "server-unavailable", 503))
        ready = await api.get("/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (503, False)
        assert (await api.get("/livez")).status_code == 200


async def _raw(api: httpx.AsyncClient, *pieces: bytes, close: bool = False) -> bytes:
    """Send bytes over a connection of their own; return what comes back until it is closed."""
    reader, writer = await asyncio.open_connection(api.base_url.host, api.base_url.port)
    for piece in pieces:
        writer.write(piece)
    if close:
        writer.close()
        await writer.wait_closed()
        return b""
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    return answer


async def test_half_a_request_asks_for_nothing(orphan: httpx.AsyncClient) -> None:
    head = b"POST /api/v1/tasks/dispatch HTTP/1.1\r\nHost: localhost\r\nIdempotency-Key: half\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    await _raw(orphan, head + b'{"capability": "a"}', close=True)
    answer = await orphan.post("/tasks/dispatch", json={"capability": "a", "key": "half"})
    assert [task["known"] for task in answer.json()["tasks"]] == [False]


async def test_a_head_without_an_end_is_cut_off(orphan: httpx.AsyncClient) -> None:
    line = b"X-Much: " + b"x" * 8_000 + b"\r\n"
    assert b" 400 " in await _raw(orphan, b"GET /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\n", *[line] * 9)
    assert b" 400 " in await _raw(orphan, b"GET /api/v1/tasks HTTP/1.1\r\nHost: localhost\r\nX-Much: ", b"x" * 70_000)


async def test_who_says_nothing_is_not_waited_for(orphan: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_S", 0.05)
    assert await _raw(orphan, b"GET /api/v1/tasks HTTP/1.1\r\n") == b""


async def test_a_misspelt_parameter_is_no_parameter(orphan: httpx.AsyncClient) -> None:
    assert_problem(await orphan.get("/tasks?stauts=FAILED"), "invalid", 422, "query.stauts")
    assert_problem(await orphan.get("/events?pol=a"), "invalid", 422, "query.pol")
    body = {"capability": "a"}
    assert_problem(await orphan.post("/tasks/dispatch?pol=a", json=body), "invalid", 422, "query.pol")


async def test_a_path_with_a_slash_behind_it_is_another(orphan: httpx.AsyncClient) -> None:
    assert_problem(await orphan.get("/tasks/"), "not-found", 404)


async def test_what_is_wrong_twice_is_told_once(orphan: httpx.AsyncClient) -> None:
    problem = assert_problem(await orphan.get("/tasks/nonsense"), "invalid", 422, "path.task_id")
    assert len(problem["errors"]) == 1
