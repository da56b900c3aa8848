"""Whatever is wrong is said in one line that tells what to do: exit code 2 for the command line, 1 for the rest."""

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from callboard.failures import without_secrets
from tests.callboard.commandline import CREW, PROGRAM, CommandLine, environment
from tests.callboard.conftest import Start

NOWHERE = "redis://user:secret@127.0.0.1:1/0"


@pytest.fixture
def taken() -> Iterator[int]:
    """Provide a port that is in use."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        yield other.getsockname()[1]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["frob"], "no command 'frob'"),
        (["tasks", "frob"], "no command 'frob'"),
        (["submit"], "CAPABILITY is missing"),
        (["up", "--agent"], "--agent lacks its value"),
        (["up", "agent.py"], "'agent.py' is one argument too many"),
        (["submit", "a", "word"], """write e.g. '{"text": "a b"}'"""),
        (["submit", "a", "{'text': 1}"], "in single quotes for the shell"),
        (["submit", "a", CREW.removesuffix(":Crew")], "write --file"),
        (["submit", "a", "--frob"], "no option --frob"),
        (["tasks", "list", "--frob"], "--frob"),
        (["submit", "a", "1", "--priority", "soon"], '"urgent"'),
        (["submit", "a", "1", "--max-attempts", "many"], "--max-attempts"),
        (["submit", "a", "1", "--max-attempts", "0"], "max-attempts"),
        (["submit", "a", "1", "--delay", "3 weeks"], "500ms"),
        (["submit", "a", "1", "--metadata", "x"], "name=value"),
        (["submit", "a", "1", "--resource", "gpu"], "--resource gpu=1"),
        (["submit", "a", "1", "--resource", "gpu=many"], "no number"),
        (["submit", "a", "1", "--limit", "x"], "--limit tenant-7=4"),
        (["submit", "a", "1", "--limit", "x=often"], "600/min"),
        (["submit", "a", "1", "--retry", "never"], "--retry is not JSON"),
        (["submit", "a", "1", "--retry", '{"bse": 1}'], "bse"),
        (["submit", "a", "1", "--requires", "gpu ~ 3"], "attribute operator value"),
        (["submit", "a b"], "capability"),
        (["schedules", "put", "s", "a", "--cron", "daily"], "five fields"),
        (["schedules", "put", "s", "a", "--every", "1ms"], "every: Input should be greater"),
        (["schedules", "put", "s", "a", "--cron", "0 3 * * *", "--timezone", "Berlin"], "Europe/Berlin"),
        (["schedules", "put", "s", "a"], "one of `cron` and `every`"),
        (["schedules", "pause", "no way"], "1-64 letters"),
        (["submit", "a[gpu is big]"], "'a[gpu ^is big]' is not a requirement: column 7"),
        (["submit", "a>=2", "--version", "<3"], "the version is given twice"),
        (["submit", "a", "1", "--timeout", "3s"], "add --wait"),
        (["submit", "a", "1", "--file", "x.json"], "twice"),
        (["submit", "a", "--file", "missing.json"], "cannot read missing.json"),
        (["submit", "a", "--file", "missing.json", "--ndjson"], "cannot read missing.json"),
        (["submit", "a", "-", "--key", "k"], "--key"),
        (["submit", "a", "1", "--pool", "A B"], "pool 'A B'"),
        (["submit", "a", "1", "--redis-url", "http://here"], "redis://"),
        (["submit", "a", "half a"], "column 1"),
        (["submit", "a", '{"text": }'], "column 10"),
        (["submit", "a", '{"a": 1,\n "b": x}'], "line 2, column 7"),
        (["tasks", "get", "x"], "<pool>.<id>"),
        (["tasks", "result", "x"], "<pool>.<id>"),
        (["tasks", "cancel", "x"], "<pool>.<id>"),
        (["tasks", "list", "--limit", "0"], "--limit"),
        (["tasks", "list", "--status", "GONE"], "--status"),
        (["up", "--redis-port", "70000"], "--redis-port"),
        (["up", "--pool", "A B"], "pool 'A B'"),
        (["dispatcher", "--leader-lease", "1s"], "at least 2 seconds"),
        (["dispatcher", "--pool", "A B"], "pool 'A B'"),
        (["dispatcher", "--head-starts", "HIGH=1s"], "must not decrease"),
        (["dispatcher", "--max-pending", "many"], "no number"),
        (["agent", CREW, "--lease", "1s"], "three times"),
        (["agent", CREW, "--id", "a b"], "agent id 'a b'"),
        (["agent", CREW, "--processes", "0"], "--processes"),
        (["agent", CREW, "--metadata", "x"], "name=value"),
        (["asyncapi", "--yaml", "--json"], "exclude each other"),
        (["asyncapi", "--pool", "A B"], "pool 'A B'"),
    ],
)
def test_a_wrong_command_line(callboard: CommandLine, arguments: list[str], says: str) -> None:
    assert says in callboard(*arguments, env={"CALLBOARD_REDIS_URL": NOWHERE}).complaint(2)


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit", "a", "1"],
        ["submit", "a", "-"],
        ["tasks", "list"],
        ["tasks", "get", "default.x"],
        ["tasks", "result", "default.x"],
        ["tasks", "cancel", "default.x"],
        ["agents", "list"],
        ["agents", "get", "x"],
        ["agents", "drain", "x"],
        ["agents", "restart", "x"],
        ["up"],
    ],
)
def test_a_server_that_does_not_answer(callboard: CommandLine, arguments: list[str]) -> None:
    line = callboard(*arguments, env={"CALLBOARD_REDIS_URL": NOWHERE}).complaint(1)
    assert "`callboard up`" in line
    assert "secret" not in line


def test_a_setting_in_the_environment_that_is_wrong(callboard: CommandLine) -> None:
    line = callboard("dispatcher", env={"CALLBOARD_LEADER_LEASE": "soon"}).complaint(2)
    assert "CALLBOARD_LEADER_LEASE" in line
    assert "'soon' is no duration: write e.g. 30, 500ms" in line
    assert "CALLBOARD_POOLS" in callboard("dispatcher", env={"CALLBOARD_POOLS": "a, no name"}).complaint(2)


def test_a_payload_that_is_too_large(callboard: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "large.json").write_text(json.dumps("x" * 1_100_000))
    assert "pass a reference" in callboard("submit", "a", "--file", "large.json").complaint(2)


def test_lines_that_are_not_json_tell_where_and_what_was_submitted(callboard: CommandLine) -> None:
    ran = callboard.submit("a", "-", stdin='1\n\n2\n{"a" 3}\n4\n')
    assert "line 4 is not JSON" in ran.complaint(2)
    assert "column 6; the 2 before it are submitted" in ran.err
    assert len(ran.out.splitlines()) == 2


def test_a_file_that_is_not_utf_8(callboard: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_bytes(b'"\xff"')
    assert "not UTF-8" in callboard("submit", "a", "--file", "odd.json").complaint(2)


def test_a_task_and_an_agent_that_are_not_there(working: CommandLine) -> None:
    assert "no task" in working("tasks", "get", f"{working.pool}.x").complaint(1)
    assert "no task" in working("tasks", "result", f"{working.pool}.x").complaint(1)
    for command in ("get", "drain", "restart"):
        assert "agents list" in working("agents", command, "nobody", "--pool", working.pool).complaint(1)


@pytest.mark.parametrize("target", ["nowhere:X", "missing.py:X", f"{CREW}s", ":X", "json:JSONDecoder"])
def test_an_agent_that_cannot_be_loaded(callboard: CommandLine, target: str) -> None:
    assert callboard("agent", target).complaint(1)


def test_an_agents_module_that_fails(callboard: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import nothing_of_this_name\n")
    line = callboard("agent", "broken:X").complaint(1)
    assert "nothing_of_this_name" in line
    assert "line 1" in line


def test_an_agent_that_nobody_can_make_is_not_tried_again(callboard: CommandLine, tmp_path: Path) -> None:
    start = "from agent_runtime import Agent, capability\nclass Odd(Agent):\n"
    rest = "    @capability('x')\n    async def x(self, task: int) -> int:\n        return task\n"
    (tmp_path / "greedy.py").write_text(f"{start}    def __init__(self, path): ...\n{rest}")
    (tmp_path / "plain.py").write_text(f"{start}    def on_start(self): ...\n{rest}")
    assert "its __init__ needs path" in callboard("agent", "greedy.py").complaint(1)
    assert "Odd.on_start: it is not an `async def`" in callboard("agent", "plain.py").complaint(1)


def test_an_agent_without_a_usable_id(callboard: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text(
        "from agent_runtime import Agent, capability\n"
        "class Odd(Agent):\n"
        "    agent_id = 'a b'\n"
        "    @capability('x')\n"
        "    async def x(self, task: int) -> int:\n"
        "        return task\n"
    )
    assert "'a b'" in callboard("agent", "odd:Odd").complaint(1)


def test_ports_in_use(callboard: CommandLine, taken: int) -> None:
    for command in (["dispatcher"], ["agent", CREW], ["agent", CREW, "--processes", "2"]):
        assert f"port {taken}" in callboard(*command, "--metrics-port", str(taken)).complaint(1)
    line = callboard("up", "--redis-port", str(taken), env={"CALLBOARD_REDIS_URL": ""}).complaint(1)
    assert f"port {taken}" in line
    assert line.endswith("choose another port (0 is any free one) by --redis-port")
    ran = callboard("demo", "--redis-port", str(taken))
    assert ran.code == 1
    assert ran.err.splitlines()[-1].endswith("by --redis-port")


def test_a_directory_that_is_none(callboard: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    line = callboard("up", "--data-dir", "file", "--redis-port", "0", env={"CALLBOARD_REDIS_URL": ""}).complaint(1)
    assert line.startswith(f"{tmp_path / 'file'}: File exists: check the path")


def test_data_of_another_server(callboard: CommandLine, tmp_path: Path) -> None:
    folder = tmp_path / "data" / "appendonlydir"
    folder.mkdir(parents=True)
    (folder / "appendonly.aof.1.base.rdb").write_bytes(b"NOSUCH999" + bytes(20))
    (folder / "appendonly.aof.1.incr.aof").touch()
    (folder / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
    )
    line = callboard("up", "--data-dir", "data", "--redis-port", "0", env={"CALLBOARD_REDIS_URL": ""}).complaint(1)
    assert line.startswith(f"the server cannot read the data in {tmp_path / 'data'}")
    assert line.endswith("by --data-dir")


def test_an_address_that_is_not_this_machines(callboard: CommandLine) -> None:
    assert callboard("dispatcher", "--metrics-host", "192.0.2.1").complaint(1)


def test_a_data_directory_in_use(callboard: CommandLine, start: Start, tmp_path: Path) -> None:
    env = {"CALLBOARD_REDIS_URL": ""}
    first = start("up", "--redis-port", "0", "--data-dir", "data", env=env)
    first.wait_for("Ctrl-C stops everything")
    second = callboard("up", "--redis-port", "0", "--data-dir", str(tmp_path / "data"), env=env)
    assert second.complaint(1).endswith("choose another data directory by --data-dir")


def python(callboard: CommandLine, program: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a program that does something to the command line before it is used."""
    return subprocess.run(
        [PROGRAM[0], "-c", program],
        env=environment(**env),
        cwd=callboard.cwd,
        capture_output=True,
        check=False,
        text=True,
    )


def test_no_server_program_at_all(callboard: CommandLine) -> None:
    nothing = "import sys, bus.embedded as e; e.find_server_binary = lambda: None; from callboard.cli import main; "
    ended = python(callboard, f"{nothing} sys.exit(main(['up']))")
    assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
    assert "or set CALLBOARD_REDIS_URL to a server that runs" in ended.stderr
    ended = python(callboard, f"{nothing} sys.exit(main(['demo']))")
    assert "install redis-server or valkey-server" in ended.stderr
    assert "CALLBOARD_REDIS_URL" not in ended.stderr, "the demonstration does not look at it"


def test_a_broken_installation(callboard: CommandLine) -> None:
    for broken in ("pydantic", "redis", "faststream"):
        program = f"import sys; sys.modules[{broken!r}] = None; from callboard.cli import main; "
        ended = python(callboard, f"{program} sys.exit(main(['asyncapi']))")
        assert (ended.returncode, len(ended.stderr.splitlines())) == (1, 1)
        assert "install Callboard anew" in ended.stderr
        assert broken in ended.stderr


def test_a_server_that_refuses(callboard: CommandLine, redis_url: str) -> None:
    line = callboard("tasks", "list", env={"CALLBOARD_REDIS_URL": redis_url.removesuffix("/0") + "/99"}).complaint(1)
    assert "99" in line or "DB index" in line


def test_a_reader_that_is_gone_is_no_error(working: CommandLine) -> None:
    for command in (["tasks", "list"], ["asyncapi"], ["agents", "list", "--json"]):
        writer = subprocess.Popen(
            [*PROGRAM, *command],
            env=environment(CALLBOARD_REDIS_URL=working.url),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        assert writer.stderr is not None
        writer.stdout.close()
        assert writer.stderr.read() == ""
        writer.stderr.close()
        assert writer.wait(20) == 141


def test_a_fault_of_our_own_is_one_line_too(callboard: CommandLine) -> None:
    program = (
        "import sys\n"
        "import callboard.commands.version as module\n"
        "def version(): raise KeyError('x')\n"
        "module.version = version\n"
        "from callboard.cli import main\n"
        "sys.exit(main(['version']))\n"
    )
    for env, lines in ({}, 1), ({"CALLBOARD_TRACEBACK": "1"}, 5):
        ended = python(callboard, program, **env)
        assert ended.returncode == 1
        assert "unexpected KeyError: 'x': set CALLBOARD_TRACEBACK=1" in ended.stderr
        assert (len(ended.stderr.splitlines()) > 1) == (lines > 1)


def test_passwords_are_hidden() -> None:
    assert without_secrets("at redis://me:pass@host:1/0 now") == "at redis://***@host:1/0 now"
