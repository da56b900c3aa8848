"""`callboard agents`, and `callboard agent`, which supervises."""

import signal
from pathlib import Path

import psutil

from agent_runtime.exit_codes import ExitCode
from tests.callboard.commandline import CREW, CommandLine
from tests.callboard.conftest import Start, fetch


def test_every_agent_is_listed(working: CommandLine) -> None:
    (found,) = working("agents", "list", "--json", "--pool", working.pool).json
    assert (found["agent_id"], found["slots"]) == ("crew", 8)
    table = working("agents", "list", "--pool", working.pool).out
    assert "crew" in table
    assert "text.count" in table


def test_an_empty_pool_says_how_to_start_an_agent(callboard: CommandLine) -> None:
    assert "callboard agent module:Class" in callboard("agents", "list", "--pool", callboard.pool).out
    assert callboard("agents", "list", "--json", "--pool", callboard.pool).json == []


def test_one_agent(working: CommandLine) -> None:
    found = working("agents", "get", "crew", "--json", "--pool", working.pool).json
    status, page = fetch(found["metadata"]["metrics"])
    assert status == 200
    assert 'agent_id="crew"' in page or 'agent="crew"' in page
    shown = working("agents", "get", "crew", "--pool", working.pool).out
    for part in ("agent crew", "capability text.count", "1.2", found["metadata"]["metrics"]):
        assert part in shown


def test_an_agent_at_rest_is_small(callboard: CommandLine, start: Start) -> None:
    start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    start("agent", CREW, "--pool", callboard.pool, "--id", "rests").wait_for("is signed in")
    found = callboard("agents", "get", "rests", "--json", "--pool", callboard.pool).json
    assert psutil.Process(found["metadata"]["pid"]).memory_info().rss < 50 * 1024 * 1024


def test_an_agent_is_healthy_when_it_is_signed_in(callboard: CommandLine, start: Start) -> None:
    agent = start("agent", CREW, "--pool", callboard.pool)
    address = agent.wait_for(r"metrics at (http\S+)/metrics")[1]
    assert fetch(f"{address}/healthz")[0] == 503
    dispatcher = start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    agent.wait_for("is signed in")
    while fetch(f"{address}/healthz") != (200, "ok\n"):
        assert agent.process.poll() is None
    assert agent.end(signal.SIGTERM) == 0
    assert dispatcher.end(signal.SIGINT) == 0


def test_processes_restarts_and_drains(callboard: CommandLine, start: Start) -> None:
    start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    two = ("--processes", "2", "--id", "pair", "--slots", "3", "--metadata", "rack=7")
    agent = start("agent", CREW, "--pool", callboard.pool, *two)
    for number in (1, 2):
        agent.wait_for(f"pair-{number} is signed in")
    found = callboard("agents", "get", "pair-1", "--json", "--pool", callboard.pool).json
    assert (found["slots"], found["metadata"]["rack"]) == (3, "7")

    asked = callboard("agents", "restart", "pair-1", "--pool", callboard.pool, "--json").json
    assert (asked["agent_id"], asked["requested"], asked["state"]) == ("pair-1", "restart", "requested")
    agent.wait_for("agent process 1 restarts as it was told")
    until_signed_in(callboard, "pair-1", but_not=found["session"])
    anew = callboard("agents", "get", "pair-1", "--json", "--pool", callboard.pool).json
    assert anew["metadata"]["metrics"] == found["metadata"]["metrics"]
    assert anew["metadata"]["pid"] != found["metadata"]["pid"]

    for number in (1, 2):
        assert f"pair-{number}" in callboard("agents", "drain", f"pair-{number}", "--pool", callboard.pool).out
    assert agent.process.wait(20) == 0


def until_signed_in(callboard: CommandLine, agent_id: str, *, but_not: str) -> None:
    """Return when the agent has another session."""
    while callboard("agents", "get", agent_id, "--json", "--pool", callboard.pool).json["session"] == but_not:
        pass


def test_a_killed_process_is_started_again_under_its_id(callboard: CommandLine, start: Start) -> None:
    start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    agent = start("agent", CREW, "--pool", callboard.pool)
    agent_id = agent.wait_for(r"agent (\S+) is signed in")[1]
    (before,) = callboard("agents", "list", "--json", "--pool", callboard.pool).json
    psutil.Process(before["metadata"]["pid"]).kill()
    agent.wait_for("ended with SIGKILL")
    until_signed_in(callboard, agent_id, but_not=before["session"])
    assert len(callboard("agents", "list", "--json", "--pool", callboard.pool).json) == 1


def test_a_process_that_hangs_shows_where_and_is_started_again(callboard: CommandLine, start: Start) -> None:
    start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    agent = start("agent", CREW, "--pool", callboard.pool, "--hang", "1500ms", "--heartbeat-interval", "200ms")
    agent_id = agent.wait_for(r"agent (\S+) is signed in")[1]
    (before,) = callboard("agents", "list", "--json", "--pool", callboard.pool).json
    callboard.submit("block", "300", "--max-attempts", "1")
    agent.wait_for("in block$")
    agent.wait_for("ended with exit code 1")
    until_signed_in(callboard, agent_id, but_not=before["session"])


def test_an_id_of_the_class_is_kept(callboard: CommandLine, start: Start, tmp_path: Path) -> None:
    (tmp_path / "named.py").write_text(
        "from agent_runtime import Agent, capability\n"
        "class Named(Agent):\n"
        "    agent_id = 'the-one'\n"
        "    @capability('x')\n"
        "    async def x(self, task: int) -> int:\n"
        "        return task\n"
    )
    agent = start("agent", "named:Named", "--pool", callboard.pool)
    agent.wait_for("agent the-one starts")
    assert agent.end(signal.SIGINT) == 0


def test_a_second_signal_does_not_wait_for_tasks(callboard: CommandLine, start: Start) -> None:
    start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    agent = start("agent", CREW, "--pool", callboard.pool, "--grace", "10m")
    agent.wait_for("is signed in")
    task_id = callboard.submit("slow", "600").out.strip()
    while callboard.record(task_id)["status"] != "RUNNING":
        pass
    agent.process.send_signal(signal.SIGTERM)
    while callboard("agents", "list", "--json", "--pool", callboard.pool).json[0]["status"] != "DRAINING":
        pass
    assert agent.end(signal.SIGTERM) == 0


def test_an_agent_that_crashes_at_its_start_is_tried_again(
    callboard: CommandLine, start: Start, tmp_path: Path
) -> None:
    (tmp_path / "weak.py").write_text(
        "from agent_runtime import Agent, capability\n"
        "class Weak(Agent):\n"
        "    async def on_start(self): raise OSError('no model yet')\n"
        "    @capability('x')\n"
        "    async def x(self, task: int) -> int:\n"
        "        return task\n"
    )
    agent = start("agent", "weak:Weak", "--pool", callboard.pool)
    agent.wait_for("no model yet")
    agent.wait_for(r"ended with exit code 1 .*again in")
    assert agent.end(signal.SIGTERM) == ExitCode.STOPPED


def test_an_agent_is_paused_changed_resumed_and_drained(callboard: CommandLine, start: Start) -> None:
    start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0")
    agent = start("agent", CREW, "--pool", callboard.pool, "--id", "crew")
    agent.wait_for("is signed in")
    here = ("crew", "--pool", callboard.pool)
    paused = callboard("agents", "pause", *here, "--note", "disk swap", "--by", "alice", "--for", "10m", "--wait")
    assert "crew: pause done by alice (disk swap)" in paused.out
    assert "paused by alice: disk swap, 10 min left" in callboard("agents", "list", "--pool", callboard.pool).out
    shown = callboard("agents", "get", *here).out
    assert "paused by alice: disk swap" in shown
    task_id = callboard.submit("text.count", '{"text": "a b"}').out.strip()
    assert "1 paused by alice: disk swap" in callboard("tasks", "explain", task_id).out

    changes = ("--attribute", 'models=["a", "b"]', "--attribute", "region=eu", "--slots", "3", "--disable", "slow")
    done = callboard("agents", "update", *here, *changes, "--wait", "--json").json
    assert (done["requested"], done["state"], done["error"]) == ("update", "done", None)
    found = callboard("agents", "get", *here, "--json").json
    assert (found["slots"], found["attributes"]["models"], found["attributes"]["region"]) == (3, ["a", "b"], "eu")
    assert "slow" not in [spec["name"] for spec in found["capabilities"]]
    assert "Must be >= 1" in callboard("agents", "update", *here, "--slots", "0").complaint(2)
    assert "none can set" in callboard("agents", "update", *here, "--attribute", "agent.id=x").complaint(2)
    refused = callboard("agents", "update", *here, "--disable", "nothing", "--wait")
    assert refused.code == 1
    assert "it has no capability nothing" in refused.out

    assert callboard("agents", "resume", *here, "--wait", "--json").json["state"] == "done"
    assert callboard("tasks", "result", task_id).out
    drained = callboard("agents", "drain", *here, "--deadline", "5s", "--wait")
    assert "drain done" in drained.out
    assert agent.process.wait(20) == 0


def test_an_update_of_nothing_says_what_can_be_changed(callboard: CommandLine) -> None:
    assert "--attribute" in callboard("agents", "update", "crew").complaint(2)
