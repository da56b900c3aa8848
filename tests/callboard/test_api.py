"""`callboard api` and `callboard token` as processes."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from time import perf_counter
from typing import Any

import pytest

from tests.callboard.commandline import CommandLine
from tests.callboard.conftest import Running, Start, fetch

AT = r"the API is at (http\S+)"


def served(start: Start, *arguments: str) -> tuple[Running, str]:
    running = start("api", "--port", "0", *arguments)
    return running, running.wait_for(AT)[1]


def test_it_serves_its_document_its_metrics_and_the_pool(callboard: CommandLine, start: Start) -> None:
    api, address = served(start, "--pool", callboard.pool)
    root = address.removesuffix("/api/v1")
    assert json.loads(fetch(f"{root}/openapi.json")[1])["info"]["title"] == "Callboard"
    assert json.loads(fetch(f"{address}/tasks/queue/status")[1])["pool"] == callboard.pool
    route = 'callboard_api_requests_total{method="GET",route="/tasks/queue/status",status="200"} 1.0'
    assert fetch(f"{address}/nowhere/at/all")[0] == 404
    metrics = fetch(f"{root}/metrics")[1]
    assert route in metrics
    assert 'route="other",status="404"' in metrics
    assert "nowhere" not in metrics
    assert api.end(signal.SIGTERM) == 0


def test_without_a_server_it_starts_and_says_that_it_is_not_ready(start: Start) -> None:
    api = start("api", "--port", "0", env={"CALLBOARD_REDIS_URL": "redis://127.0.0.1:1/0"})
    address = api.wait_for(AT)[1]
    status, body = fetch(f"{address}/readyz")
    assert (status, json.loads(body)["ready"]) == (503, False)
    assert api.end(signal.SIGINT) == 0


@pytest.mark.alone
def test_fifty_open_streams_do_not_keep_it_from_stopping(callboard: CommandLine, start: Start) -> None:
    api, address = served(start, "--pool", callboard.pool)
    streams = [urllib.request.urlopen(f"{address}/events", timeout=10) for _ in range(50)]  # noqa: S310 - ours
    assert {stream.readline() for stream in streams} == {b"retry: 1000\n"}
    began = perf_counter()
    assert api.end(signal.SIGTERM) == 0
    assert perf_counter() - began < 2
    for stream in streams:
        assert b"event: bye" in stream.read()
        stream.close()


def test_a_port_that_is_taken_is_said_to_be(callboard: CommandLine) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ran = callboard("api", "--port", str(other.getsockname()[1]))
    assert "choose another by --port" in ran.complaint(1)


def test_a_token_is_made_used_listed_and_revoked(callboard: CommandLine, start: Start) -> None:
    made = callboard("token", "create", "--scope", "read", "--name", "board", "--pool", callboard.pool, "--json").json
    try:
        _, address = served(start, "--pool", callboard.pool, "--require-token")
        assert fetch(f"{address}/tasks")[0] == 401
        asked = urllib.request.Request(f"{address}/tasks", headers={"Authorization": f"Bearer {made['token']}"})  # noqa: S310 - ours
        with urllib.request.urlopen(asked, timeout=5) as answer:  # noqa: S310 - ours
            assert answer.status == 200
        shown = callboard("token", "list").out
        assert made["id"] in shown
        assert made["token"] not in shown
        listed: list[Any] = callboard("token", "list", "--json").json
        assert {"digest", "token"}.isdisjoint(next(one for one in listed if one["id"] == made["id"]))
    finally:
        assert callboard("token", "revoke", made["id"]).code == 0
    assert "callboard token list" in callboard("token", "revoke", made["id"]).complaint(1)


@pytest.mark.parametrize("scope", ["everything", "agent:", "agent:no body"])
def test_what_is_no_scope_is_refused(callboard: CommandLine, scope: str) -> None:
    assert "scope" in callboard("token", "create", "--scope", scope).complaint(2)


def test_beyond_loopback_it_wants_a_token_and_off_is_no_answer(callboard: CommandLine) -> None:
    if callboard("token", "list", "--json").json:
        pytest.skip("another test has a token on this server at the moment")
    ran = callboard("api", "--host", "0.0.0.0", "--port", "0")  # noqa: S104 - what is refused
    assert "callboard token create --scope admin" in ran.complaint(1)


@pytest.mark.parametrize(
    "program",
    [
        "import agent_runtime.worker, callboard.commands.agent",
        "import callboard.commands.api, callboard.commands.token, callboard.commands.up",
    ],
)
def test_who_does_not_serve_does_not_import_fastapi(program: str) -> None:
    told = f"import sys; {program}; print('fastapi' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", told], capture_output=True, check=True, text=True)
    assert ran.stdout == "False\n"
