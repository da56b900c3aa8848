"""No guarantee without a test, and none is marked that no mutant stands for."""

import ast
import re
from pathlib import Path
from typing import Final

from tests.docs.pages import ROOT
from tests.mutants.catalogue import MUTANTS

PAGE: Final = (ROOT / "docs" / "guarantees.md").read_text()


def promises() -> list[tuple[str, str]]:
    """Return each promise with its test."""
    tables = re.findall(r"^\| promise \| test \|\n\|---\|---\|\n((?:\|.*\|\n)+)", PAGE, re.MULTILINE)
    rows = [line.strip("| ").split(" | ") for table in tables for line in table.splitlines()]
    return [(promise, test.strip("`")) for promise, test in rows]


def is_there(test: str) -> bool:
    """Tell whether there is a test of this name."""
    path, _, name = test.partition("::")
    nodes = ast.walk(ast.parse((ROOT / path).read_text())) if Path(ROOT / path).exists() else ()
    return any(isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name for node in nodes)


def test_each_promise_names_a_test_that_exists() -> None:
    assert len(promises()) > 40
    assert [test for _, test in promises() if not is_there(test)] == []


def test_each_mark_has_a_mutant_and_each_mutant_a_mark() -> None:
    marked = {test for promise, test in promises() if promise.startswith("† ")}
    assert marked == {mutant.test for mutant in MUTANTS}


def test_each_mutant_still_fits_the_program() -> None:
    unfit = [mutant.name for mutant in MUTANTS if (ROOT / mutant.file).read_text().count(mutant.old) != 1]
    assert unfit == []
