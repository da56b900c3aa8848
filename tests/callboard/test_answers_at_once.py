"""What the command line tells without a server."""

import json
import resource
import subprocess
import sys

import pytest

from callboard.cli import build_app
from tests.callboard.commandline import CommandLine

NOWHERE = "redis://127.0.0.1:1/0"
COMMANDS = ["up", "demo", "dispatcher", "agent", "submit", "tasks", "agents", "api", "token", "asyncapi", "version"]


@pytest.fixture(name="callboard")
def without_server(tmp_path: object) -> CommandLine:
    return CommandLine(NOWHERE, "default", tmp_path)  # type: ignore[arg-type] # a Path


def test_help_takes_less_than_half_a_second(callboard: CommandLine) -> None:
    def took() -> float:  # of a processor: what else the machine does is not its fault
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert "dispatcher" in callboard.anew("--help").out
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(took() for _ in range(5)) < 0.5


def test_help_imports_nothing_slow() -> None:
    program = "import sys; from callboard.cli import main; main(['--help']); print(*sys.modules, file=sys.stderr)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True)
    assert not {"redis", "pydantic", "faststream", "prometheus_client"} & set(ended.stderr.split())


def test_a_commands_own_help_tells_more_than_the_list(callboard: CommandLine) -> None:
    for command, text in (
        ("submit", "The exit code is 1 if a task that was waited for has failed."),
        ("up", "The second Ctrl-C does not wait for tasks that still run."),
        ("agent", "An agent's id outlives the crash of its process."),
    ):
        assert text in " ".join(callboard(command, "--help").out.split())
        assert text not in callboard("--help").out


def test_without_a_command_help_is_shown(callboard: CommandLine) -> None:
    assert callboard().out == callboard("--help").out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(callboard: CommandLine, command: str) -> None:
    ran = callboard(command, "--help")
    assert (ran.code, ran.err) == (0, "")
    assert f"callboard {command}" in ran.out


@pytest.mark.parametrize("command", [*COMMANDS, "tasks list", "tasks result", "agents get", "agents drain"])
def test_help_names_no_type_and_no_flag_that_nobody_needs(callboard: CommandLine, command: str) -> None:
    shown = callboard(*command.split(), "--help").out
    for word in ("FLOAT", "TIMEDELTA", "--empty-", "--no-", "False"):
        assert word not in shown
    assert "1m30s" in shown or "DURATION" not in shown


def test_help_lists_every_command() -> None:
    assert set(COMMANDS) <= set(build_app())


def test_version_tells_what_is_installed(callboard: CommandLine) -> None:
    versions = callboard("version", "--json").json
    assert set(versions) >= {"callboard", "python", "redis", "pydantic", "faststream"}
    assert callboard("version").out.startswith(f"callboard {versions['callboard']}\n")


def test_what_people_try_who_know_other_programs(callboard: CommandLine) -> None:
    assert callboard("--version").out == callboard("-V").out == callboard("version").out
    assert callboard("help").out == callboard("--help").out
    assert "callboard submit" in callboard("help", "submit").out


def test_asyncapi_is_a_document_of_every_channel(callboard: CommandLine) -> None:
    found = callboard("asyncapi").json
    assert found["asyncapi"].startswith("3.")
    addresses = json.dumps(found["channels"])
    for part in ("tasks:urgent", "results", "heartbeats", "registrations", "commands", "assignments", "events"):
        assert f"callboard:{{default}}:{part}" in addresses or part in addresses


def test_asyncapi_names_the_streams_of_the_pool(callboard: CommandLine) -> None:
    assert "callboard:{elsewhere}:" in callboard("asyncapi", "--pool", "elsewhere", "--json").out


def test_asyncapi_is_yaml_if_that_is_wanted(callboard: CommandLine) -> None:
    ran = callboard("asyncapi", "--yaml")
    assert ran.code == 0
    assert '"info":\n  "title": "Callboard"\n' in ran.out
