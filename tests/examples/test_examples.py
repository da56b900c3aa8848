"""The examples print what they promise, with a server, a dispatcher and their agents as processes."""

import ast
import re
from pathlib import Path

import pytest

from bus import AgentStatus, Client
from tests.docs.newcomer import Newcomer
from tests.docs.pages import ROOT
from tests.support.waiting import eventually
from tests.support.workers import USUAL_PORTS

pytestmark = USUAL_PORTS

FILES = sorted((ROOT / "examples").glob("*.py"))


async def test_a_task_is_submitted_and_its_result_printed(newcomer: Newcomer) -> None:
    await newcomer.type("callboard up --agent examples/agent.py")
    ran = await newcomer.type('python examples/submit.py "to be or not to be"')
    assert re.fullmatch(r"stored as default\.\w+\n6 words, counted by counter-\w+ in attempt 1\n", ran.printed), (
        ran.printed
    )
    assert ran.code == 0


async def test_without_a_server_one_line_says_what_to_do(newcomer: Newcomer) -> None:
    ran = await newcomer.type("CALLBOARD_REDIS_URL=redis://127.0.0.1:1/0 python examples/submit.py")
    assert re.fullmatch(r"no Redis server answers at .*: start one with `callboard up`.*\n", ran.printed), ran.printed
    assert ran.code == 1


async def test_what_fails_is_tried_again_and_what_is_wrong_is_not(newcomer: Newcomer) -> None:
    await newcomer.type("callboard up --agent examples/retries.py")
    ran = await newcomer.type("python examples/retries.py")
    assert ran.printed.splitlines() == [
        "Oslo: 4 degrees",
        "  attempt 1: error",
        "  attempt 2: error",
        "  attempt 3: completed",
        "Rome: error: the station in Rome does not answer",
        "  attempt 1: error",
        "  attempt 2: error",
        "Atlantis: rejected: there is no station in Atlantis",
        "  attempt 1: rejected",
    ]
    assert ran.code == 0


async def test_an_urgent_task_overtakes_a_batch(newcomer: Newcomer) -> None:
    await newcomer.type("callboard up --agent examples/many.py")
    ran = await newcomer.type("python examples/many.py")
    found = re.fullmatch(
        r"61 pictures, among them small-0.jpg, small-1.jpg\n"
        r"submitted last, done as number (\d+): portrait.jpg\n",
        ran.printed,
    )
    assert found, ran.printed
    assert int(found[1]) <= 16, "it waits at most for what runs and for what the agent was given ahead"
    assert ran.code == 0


async def test_a_tree_of_tasks_waits_for_itself_on_few_slots(newcomer: Newcomer) -> None:
    await newcomer.type("callboard up --agent examples/children.py")
    ran = await newcomer.type("python examples/children.py")
    lines = ran.printed.splitlines()
    assert lines[:2] == ["24 words", "24 of them by attempt 1"]
    assert sorted(lines[2:]) == sorted(["  12 of them by attempt 1"] * 2 + ["    6 of them by attempt 1"] * 4)
    assert ran.code == 0


async def test_an_agent_that_only_knows_the_wire_works_and_takes_its_leave(newcomer: Newcomer) -> None:
    await newcomer.type("callboard up")
    await newcomer.type("python examples/wire_agent.py")
    assert (await newcomer.type("callboard submit text.shout '\"hello\"' --wait")).printed == '"HELLO"\n'
    assert "failed (rejected)" in (await newcomer.type("callboard submit text.shout 7 --wait")).printed
    assert (await newcomer.type("callboard agents drain wire-1")).code == 0
    async with Client(newcomer.url) as bus:

        async def stopped() -> bool:
            return (await bus.agent("wire-1")).status is AgentStatus.STOPPED

        await eventually(stopped)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_head_of_an_example_tells_how_to_run_it(file: Path) -> None:
    head = ast.get_docstring(ast.parse(file.read_text())) or ""
    assert f"examples/{file.name}" in re.findall(r"(?:callboard up --agent|python) (\S+\.py)", head)


def test_the_agent_that_only_knows_the_wire_imports_nothing_of_callboards() -> None:
    tree = ast.parse((ROOT / "examples" / "wire_agent.py").read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "os", "time", "uuid", "typing", "redis"}
