"""`callboard dispatcher` as a process."""

import json
import signal
import socket
from contextlib import suppress

import pytest

from tests.callboard.commandline import CommandLine
from tests.callboard.conftest import Start, fetch
from tests.support.workers import USUAL_PORTS


def test_it_shows_its_metrics_and_its_health(callboard: CommandLine, start: Start) -> None:
    dispatcher = start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0", "--id", "d1")
    address = dispatcher.wait_for(rf"d1 serves pools {callboard.pool}; metrics at (http\S+)/metrics")[1]
    while fetch(f"{address}/healthz") != (200, "ok\n"):
        assert dispatcher.process.poll() is None
    assert f'pool="{callboard.pool}"' in fetch(f"{address}/metrics")[1]
    assert dispatcher.end(signal.SIGTERM) == 0


def test_without_a_server_it_waits_and_says_so(start: Start) -> None:
    env = {"CALLBOARD_REDIS_URL": "redis://127.0.0.1:1/0"}
    dispatcher = start("dispatcher", "--metrics-port", "0", env=env)
    address = dispatcher.wait_for(r"metrics at (http\S+)/metrics")[1]
    assert fetch(f"{address}/healthz")[0] == 503
    assert dispatcher.end(signal.SIGINT) == 0


@USUAL_PORTS
def test_another_port_is_taken_when_the_usual_one_is_in_use(callboard: CommandLine, start: Start) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # then somebody else has it already
            other.bind(("127.0.0.1", 9464))
            other.listen()
        dispatcher = start("dispatcher", "--pool", callboard.pool)
        port = dispatcher.wait_for(r"port 9464 is taken: the metrics are on port (\d+)")[1]
        assert fetch(f"http://127.0.0.1:{port}/metrics")[0] == 200
    assert dispatcher.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("level", ["debug", "info"])
def test_its_log_can_be_json(callboard: CommandLine, start: Start, level: str) -> None:
    dispatcher = start(
        "dispatcher", "--pool", callboard.pool, "--metrics-port", "0", "--log-json", "--log-level", level
    )
    dispatcher.wait_for("leading with epoch")
    assert dispatcher.end(signal.SIGTERM) == 0
    for line in dispatcher.lines:
        found = json.loads(line)
        assert {"time", "level", "logger", "message", "pid"} <= set(found)


def test_a_second_one_takes_over(callboard: CommandLine, start: Start) -> None:
    first = start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    first.wait_for("leading with epoch")
    second = start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    second.wait_for("serves pools")
    assert first.end(signal.SIGTERM) == 0
    second.wait_for("leading with epoch")
    assert second.end(signal.SIGTERM) == 0
