"""How things are shown: tables, YAML, log lines."""

import io
import json
import logging
import re
import sys
from typing import Any

import pytest

from callboard import output
from callboard.logs import HumanFormatter, JsonFormatter, set_up
from callboard.yaml_text import to_yaml

COLUMNS = ("id", "status", "agent", "what")
ROWS = [("default.0123456789", "RUNNING", None, "a text that is long"), ("default.1", "FAILED", "me", "")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown(monkeypatch: pytest.MonkeyPatch, columns: int | None, **options: Any) -> str:
    screen = Terminal() if columns else io.StringIO()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("COLUMNS", str(columns or 20))
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    output.print_table(COLUMNS, ROWS, **options)
    return re.sub(r"\x1b\[\d*m", "", screen.getvalue())


def test_through_a_pipe_a_row_is_a_line_and_nothing_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, None, caption="the end").splitlines()
    assert lines[1].split(maxsplit=2) == ["default.0123456789", "RUNNING", "a text that is long"]
    assert len(lines) == 4
    assert lines[-1] == "the end"


def test_on_a_narrow_terminal_spare_columns_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, 52, spare=("agent",))
    assert "agent" not in text
    assert "default.0123456789" in text
    assert all(len(line) <= 52 for line in text.splitlines())


def test_on_a_very_narrow_terminal_rows_become_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 30, spare=("agent",)).splitlines()
    assert lines[:2] == ["default.0123456789", "  status RUNNING"]
    assert "  agent me" in lines


def test_yaml() -> None:
    value: Any = {"a": [1, {"b": None, "c": []}, [True]], "d: e": {"f": "x\ny"}, "g": {}}
    lines = ['"a":', "  - 1", '  - "b": null', '    "c": []', "  - - true", '"d: e":', '  "f": "x\\ny"', '"g": {}', ""]
    assert to_yaml(value) == "\n".join(lines)


def test_log_lines() -> None:
    try:
        raise KeyError("x")  # noqa: TRY301 - it is logged
    except KeyError:
        record = logging.LogRecord("callboard.agent", logging.WARNING, "f", 1, "so %s", ("odd",), sys.exc_info())
    assert "warning agent: so odd\nTraceback" in HumanFormatter().format(record)
    found = json.loads(JsonFormatter().format(record))
    assert (found["level"], found["logger"], found["message"]) == ("warning", "callboard.agent", "so odd")
    assert "KeyError" in found["error"]


def test_libraries_are_not_heard_below_warning() -> None:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    try:
        set_up("debug")
        assert logging.getLogger("faststream").level == logging.WARNING
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)
