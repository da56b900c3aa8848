"""The commands on the page of benchmarks work, and print the fields that it tells of."""

import json
import re
import shlex
import subprocess
import sys
from typing import Final

import pytest

from tests.callboard.commandline import environment
from tests.docs.pages import ROOT, blocks, steps

PAGE: Final = ROOT / "benchmarks" / "README.md"
COMMANDS: Final = [step.command for block in blocks(PAGE) for step in steps(block)]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_run_prints_one_line_with_the_fields_of_the_page(command: str) -> None:
    _, *arguments = shlex.split(command.replace("20000", "2000"))
    ran = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, env=environment(), check=True, capture_output=True, text=True
    )
    (line,) = ran.stdout.splitlines()
    printed = json.loads(line)
    told = {name for row in re.findall(r"^\| (`.+?`) \|", PAGE.read_text(), re.MULTILINE) for name in row.split(", ")}
    assert {f"`{name}`" for name in printed} == told
    assert (printed["tasks"], printed["failed"]) == (2000, 0)


def test_a_run_of_one_batch_prints_null_where_there_is_nothing_to_divide_by() -> None:
    program = [sys.executable, "-m", "benchmarks.throughput", "--tasks", "1"]
    ran = subprocess.run(program, cwd=ROOT, env=environment(), check=True, capture_output=True, text=True)
    printed = json.loads(ran.stdout)
    assert (printed["drain_per_s"], printed["failed"]) == (None, 0)
    assert printed["end_to_end_per_s"] > 0


def test_its_help_says_how_many_tasks_make_sense() -> None:
    program = [sys.executable, "-m", "benchmarks.throughput"]
    ran = subprocess.run([*program, "--help"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert "less than about 10000 says little" in " ".join(ran.stdout.split())
    ran = subprocess.run([*program, "--tasks", "0"], cwd=ROOT, check=False, capture_output=True, text=True)
    assert ran.returncode == 2
    assert "at least one task is needed" in ran.stderr
