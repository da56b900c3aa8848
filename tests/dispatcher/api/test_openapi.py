"""The document is complete, and whatever it allows is answered as it says: schemathesis tries it on the live API."""

import json
import signal
import urllib.request
from collections.abc import Iterator
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi import checks

from dispatcher.api.app import build_app
from dispatcher.api.problems import KINDS
from dispatcher.api.settings import ApiSettings
from dispatcher.api.site import Site
from tests.callboard.commandline import CREW, CommandLine
from tests.callboard.conftest import Running
from tests.support.server import RunningServer

load_all_checks()

CHECKS: Final[list[Any]] = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
    checks.response_headers_conformance,
]
STREAMS: Final = ("/api/v1/events", "/api/v1/tasks/{task_id}/events")
"""Their answers do not end; tests/dispatcher/api/test_events.py follows them."""
POOL: Final = "topenapi"


class LiveApi:
    """An API process of a pool in which somebody works, and a task and an agent that it knows."""

    def __init__(self, root: str, task_id: str) -> None:
        self.root = root
        self.known = {"task_id": task_id, "agent_id": "crew"}


@pytest.fixture(scope="module")
def live(redis_server: RunningServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveApi]:
    """Provide the API, a dispatcher and an agent, each a process."""
    commands = CommandLine(redis_server.url, POOL, tmp_path_factory.mktemp("live"))
    options = ("--pool", POOL)
    started = [
        Running(commands.start("dispatcher", *options, "--metrics-port", "0")),
        Running(commands.start("agent", CREW, *options, "--id", "crew")),
        Running(commands.start("api", *options, "--port", "0", "--max-wait", "100ms")),
    ]
    try:
        root = started[2].wait_for(r"the API is at (http\S+)/api/v1")[1]
        started[1].wait_for("crew is signed in")
        ran = commands("submit", "text.count", '{"text": "a b"}', "--pool", POOL, "--wait", "--json")
        yield LiveApi(root, ran.json["id"])
    finally:
        for running in reversed(started):
            running.close(signal.SIGTERM)


DOCUMENT: Final = build_app(Site(ApiSettings())).openapi()  # connects to nothing
schema = schemathesis.openapi.from_dict(DOCUMENT).exclude(path=list(STREAMS))


@pytest.mark.timeout(120)
@schema.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_the_document_allows_is_answered_as_it_says(case: Any, live: LiveApi) -> None:
    case.call_and_validate(base_url=live.root, checks=CHECKS, timeout=10)
    known = {name: value for name, value in live.known.items() if name in (case.path_parameters or {})}
    if known and case.method == "GET":
        case.path_parameters = {**case.path_parameters, **known}
        case.call_and_validate(base_url=live.root, checks=CHECKS, timeout=10)


def test_every_field_and_every_operation_is_described() -> None:
    for name, model in DOCUMENT["components"]["schemas"].items():
        for field, schema in model.get("properties", {}).items():
            assert "description" in schema, f"{name}.{field}: describe it, or add it to dispatcher/api/openapi.py"
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            assert operation["summary"], (method, path)
            assert operation["description"], (method, path)
            for parameter in operation.get("parameters", ()):
                assert parameter.get("description"), (method, path, parameter["name"])


def test_every_body_that_may_be_sent_has_an_example() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            for media in operation.get("requestBody", {}).get("content", {}).values():
                kinds = [media["schema"], *media["schema"].get("anyOf", ())]
                (name,) = [kind["$ref"].rpartition("/")[2] for kind in kinds if "$ref" in kind]
                assert DOCUMENT["components"]["schemas"][name].get("examples"), (method, path, name)


def test_every_problem_is_declared_somewhere_and_no_other() -> None:
    told = json.dumps(DOCUMENT["paths"])
    undeclared = {kind.slug for kind in KINDS if f'"{kind.type}"' not in told}
    assert undeclared == {"not-found", "method-not-allowed"}, "they are of no operation"


def test_the_document_is_served_with_a_page_to_read_it(live: LiveApi) -> None:
    for path in ("/openapi.json", "/docs"):
        with urllib.request.urlopen(live.root + path, timeout=5) as answer:  # noqa: S310 - ours
            assert answer.status == 200
