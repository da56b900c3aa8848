"""The page on the REST API shows every operation, and has every problem and scope in its tables."""

import re
from typing import Final

from dispatcher.api.app import build_app
from dispatcher.api.problems import KINDS
from dispatcher.api.settings import ApiSettings
from dispatcher.api.site import Site
from tests.docs.pages import ROOT

PAGE: Final = (ROOT / "docs" / "api.md").read_text()


def test_every_operation_is_shown_by_curl() -> None:
    commands = [line for line in PAGE.splitlines() if line.startswith("$ curl")]
    for path, operations in build_app(Site(ApiSettings())).openapi()["paths"].items():
        pattern = re.compile(re.sub(r"\\{\w+\\}", r"[\\w.-]+", re.escape(f"127.0.0.1:8420{path}")) + r"(?:['? ]|$)")
        for method in operations:
            shown = [line for line in commands if _method(line) == method and pattern.search(line)]
            assert shown, f"{method.upper()} {path} is not shown"


def _method(command: str) -> str:
    said = re.search(r" -X ([A-Z]+) ", command)
    return "get" if said is None else said[1].lower()


def test_every_problem_is_in_the_table() -> None:
    table = "| type | status | title |\n|---|---|---|\n"
    table += "".join(f"| `{kind.slug}` | {kind.status} | {kind.title} |\n" for kind in KINDS)
    assert table in PAGE, f"it should read:\n{table}"
