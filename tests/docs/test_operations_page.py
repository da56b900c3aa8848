"""The page on operations is what the settings classes and the exit codes say."""

import inspect
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import pytest
from pydantic_settings import BaseSettings

from agent_runtime.exit_codes import ExitCode
from agent_runtime.settings import AgentSettings
from bus.names import PREFIX
from callboard import failures
from callboard.commands.agent import agent
from callboard.commands.api import api
from callboard.commands.dispatcher import METRICS_PORT, dispatcher
from dispatcher.api.settings import ApiSettings
from dispatcher.commit_call import LedgerLimits
from dispatcher.settings import DispatcherSettings
from tests.docs.pages import ROOT

PAGE: Final = (ROOT / "docs" / "operations.md").read_text()
OPTIONS: Final = {"dispatcher_id": "id", "agent_id": "id", "pools": "pool"}
COMPUTED: Final = {"redis_url": "where `callboard up` listens", "dispatcher_id": "host and process id"}
UNITS: Final = (("day", 86_400), ("h", 3600), ("min", 60), ("s", 1), ("ms", 0.001))


def default_of(settings: type[BaseSettings], name: str) -> str:
    value: Any = settings.model_fields[name].default
    if name in COMPUTED:
        return COMPUTED[name]
    if isinstance(value, timedelta):
        seconds = value.total_seconds()
        unit, size = next((unit, size) for unit, size in UNITS if seconds >= size)
        return f"{seconds / size:g} {unit}"
    return "" if value is None else ", ".join(value) if isinstance(value, tuple) else str(value)


@pytest.mark.parametrize(
    ("settings", "command"), [(DispatcherSettings, dispatcher), (AgentSettings, agent), (ApiSettings, api)]
)
def test_the_tables_of_settings_are_those_of_the_classes(
    settings: type[BaseSettings], command: Callable[..., Any]
) -> None:
    table = ""
    for name, field in settings.model_fields.items():
        option = OPTIONS.get(name, name)
        assert option in inspect.signature(command).parameters
        prefix = f"{PREFIX}_" if name == "redis_url" else settings.model_config["env_prefix"]
        variable = f"{prefix}{name}".upper()
        flag = option.replace("_", "-")
        table += f"| `{variable}` | `--{flag}` | {default_of(settings, name)} | {field.description} |\n"
    heading = f"Of `callboard {command.__name__}`:\n\n| variable | option | default | meaning |\n|---|---|---|---|\n"
    assert f"{heading}{table}\n" in PAGE, f"it should read:\n{heading}{table}"


def test_the_exit_codes_are_those_of_the_commands_and_of_agents_processes() -> None:
    codes = {0, failures.FAILED, failures.USAGE, failures.INTERRUPTED, failures.PIPE_CLOSED, *ExitCode}
    rows = [line for line in PAGE.splitlines() if line.startswith("| ") and line.split("|")[1].strip().isdigit()]
    assert sorted(int(row.split("|")[1]) for row in rows) == sorted(codes)


def test_the_numbers_in_its_text_are_those_of_the_code() -> None:
    limits = LedgerLimits()
    for number in (METRICS_PORT, f"{limits.events_cap:,}", f"{limits.rejected_cap:,}", failures.TRACEBACK_VARIABLE):
        assert str(number) in PAGE
