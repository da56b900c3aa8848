"""`callboard up`: everything in one command, and nothing left of it."""

import json
import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.callboard.commandline import CREW, CommandLine
from tests.callboard.conftest import Running, Start, fetch
from tests.support.workers import USUAL_PORTS

pytestmark = USUAL_PORTS

OWN_SERVER = {"CALLBOARD_REDIS_URL": ""}


def up(start: Start, *arguments: str, env: dict[str, str] | None = None) -> tuple[Running, Any, list[psutil.Process]]:
    """Start everything; return it, what it says of itself, and all its processes."""
    env = OWN_SERVER if env is None else env
    running = start("up", "--json", "--data-dir", "data", "--redis-port", "0", *arguments, env=env)
    assert running.process.stdout is not None
    lines = []
    for line in running.process.stdout:
        lines.append(line)
        if line == "}\n":
            break
    assert lines, running.lines
    return running, json.loads("".join(lines)), psutil.Process(running.process.pid).children(recursive=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_leaves_nothing_running(start: Start, number: int) -> None:
    running, _, processes = up(start, "--agent", CREW)
    assert len(processes) == 5, "server, dispatcher, API, supervisor, agent"
    assert running.end(number) == 0
    assert not any(process.is_running() for process in processes)


def test_it_says_where_everything_is_and_that_works(callboard: CommandLine, start: Start, tmp_path: Path) -> None:
    running, facts, _ = up(start, "--agent", CREW, "--processes", "2", "--pool", "house")
    assert (facts["data_dir"], facts["pool"]) == (str(tmp_path / "data"), "house")
    assert fetch(facts["dispatcher"]["metrics"])[0] == 200
    assert fetch(f"{facts['api']}/agents")[0] == 200
    assert len(facts["agents"]) == 2
    for agent in facts["agents"]:
        assert "text.count" in agent["capabilities"]
        assert fetch(agent["metrics"])[0] == 200
    command = (
        "submit",
        "text.count",
        '{"text": "a b"}',
        "--wait",
        "--pool",
        "house",
        "--redis-url",
        facts["redis_url"],
    )
    assert callboard(*command).json == {"words": 2}
    one = ("agents", "get", facts["agents"][0]["id"], "--pool", "house", "--redis-url", facts["redis_url"])
    assert "callboard." not in callboard(*one).out, "by what `up` finds its agents is nobody's business"
    assert running.end(signal.SIGINT) == 0


def test_what_waited_is_done_after_the_next_start(callboard: CommandLine, start: Start) -> None:
    running, facts, _ = up(start)
    task_id = callboard("submit", "text.count", '{"text": "a b"}', "--redis-url", facts["redis_url"]).out.strip()
    assert running.end(signal.SIGINT) == 0
    running, facts, _ = up(start, "--agent", CREW)
    assert callboard("tasks", "result", task_id, "--redis-url", facts["redis_url"]).json == {"words": 2}
    assert running.end(signal.SIGINT) == 0


def test_people_read_a_table(start: Start) -> None:
    running = start("up", "--redis-port", "0", "--data-dir", "data", env=OWN_SERVER)
    running.wait_for("Ctrl-C stops everything")
    assert running.end(signal.SIGINT) == 0
    assert running.process.stdout is not None
    shown = running.process.stdout.read()
    for part in ("Callboard is up", "redis://127.0.0.1:", "data", "/metrics"):
        assert part in shown


def test_a_server_that_is_there_is_used(redis_url: str, pool: str, start: Start, tmp_path: Path) -> None:
    running, facts, processes = up(start, "--pool", pool, env={"CALLBOARD_REDIS_URL": redis_url})
    assert (facts["redis_url"], facts["data_dir"]) == (redis_url, None)
    assert "CALLBOARD_REDIS_URL" in facts["server"]
    assert len(processes) == 2, "the dispatcher and the API"
    assert not (tmp_path / "data").exists()
    assert running.end(signal.SIGINT) == 0


def test_killed_it_takes_everything_with_it(start: Start) -> None:
    running, _, processes = up(start, "--agent", CREW)
    running.process.kill()
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive


def test_a_dispatcher_that_dies_ends_it_in_one_line(start: Start) -> None:
    running, _, processes = up(start, "--agent", CREW)
    (dispatcher,) = (process for process in processes if "dispatcher" in process.cmdline())
    dispatcher.kill()
    assert running.process.wait(25) == 1
    running.wait_for(r"^callboard: the dispatcher has ended \(SIGKILL\): everything is stopped")
    assert sum(line.startswith("callboard: ") for line in running.lines) == 1
    assert not any(process.is_running() for process in processes)


def test_an_agent_that_cannot_be_loaded_ends_it(callboard: CommandLine) -> None:
    ran = callboard("up", "--redis-port", "0", "--data-dir", "data", "--agent", "nowhere:X", env=OWN_SERVER)
    assert ran.code == 1
    lines = [line for line in ran.err.splitlines() if line.startswith("callboard: ")]
    assert "no module 'nowhere'" in lines[0]
    assert "the agent nowhere:X has ended (exit code 1)" in lines[1]
    assert "Traceback" not in ran.err


def test_a_drained_agent_does_not_end_it(callboard: CommandLine, start: Start) -> None:
    running, facts, _ = up(start, "--agent", CREW)
    callboard("agents", "drain", facts["agents"][0]["id"], "--redis-url", facts["redis_url"])
    running.wait_for("has ended as it was told to")
    assert running.process.poll() is None
    assert running.end(signal.SIGINT) == 0


def test_the_second_ctrl_c_does_not_wait_for_tasks(callboard: CommandLine, start: Start) -> None:
    running, facts, processes = up(start, "--agent", CREW, env=OWN_SERVER | {"CALLBOARD_GRACE": "PT600S"})
    url = ("--redis-url", facts["redis_url"])
    task_id = callboard("submit", "slow", "600", *url).out.strip()
    while (ran := callboard("tasks", "get", task_id, "--json", *url)).code or ran.json["status"] != "RUNNING":
        pass
    running.process.send_signal(signal.SIGINT)
    running.wait_for("stopping")
    assert running.end(signal.SIGINT) == 130
    _, alive = psutil.wait_procs(processes, timeout=10)
    assert not alive
