"""The census: what its agents find, how its questions are asked, and the whole of it by the command line."""

import asyncio
import io
import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psutil
import pytest
from rich.console import Console

from agent_runtime import Reject
from agent_runtime.testing import AgentKit
from bus.client import Client
from bus.errors import TaskFailedError
from callboard.demo.agents import LIBRARY, Ada, Ben, Cleo, Outline, outline_of, read, secrets_in, stats_of
from callboard.demo.census import AGENTS
from callboard.demo.display import show
from callboard.demo.findings import Handover, Ranked, Report, Wait, Worker
from callboard.demo.sources import OUTLINE, SCAN, STATS, question_about, questions
from tests.callboard.conftest import fetch

SOURCE = """\
import os, os.path
from re import compile

class A:
    def f(self, x):
        if x and os.sep or compile("a"):
            return [y for y in x]
        return None

def g(): ...
"""


def test_an_outline_counts_what_a_source_defines_and_needs() -> None:
    found = outline_of(SOURCE)
    assert (found.functions, found.classes, found.imports) == (2, 1, {"os": 2, "re": 1})
    assert found.most_complex is not None
    assert (found.most_complex.name, found.most_complex.complexity) == ("f", 5)


def test_a_source_that_does_not_parse_is_a_finding_and_no_failure() -> None:
    found = outline_of("def f(:\n")
    assert "SyntaxError" in (found.problem or "")
    assert outline_of("x = '\\N{NO SUCH}'").problem is not None
    assert outline_of("\x00").problem is not None


def test_what_looks_like_a_secret_is_shown_only_in_part() -> None:
    found = secrets_in('a = 1\npassword = "hunter2hunter2"\n-----BEGIN RSA PRIVATE KEY-----\n')
    assert [(f.line, f.kind) for f in found.findings] == [(2, "password in the source"), (3, "key or certificate")]
    assert "hunter2hunter2" not in found.model_dump_json()


def test_a_text_is_counted() -> None:
    stats = stats_of("# one\n\ntwo words\n")
    assert (stats.lines, stats.blank, stats.comments, stats.words) == (3, 1, 1, 4)


def test_a_file_outside_the_library_is_refused() -> None:
    with pytest.raises(Reject):
        read("../../../etc/passwd")
    with pytest.raises(Reject):
        read("no_such_module_at_all.py")


async def test_the_agents_answer_as_they_promise() -> None:
    async with AgentKit(Ada()) as kit:
        assert Outline.model_validate(await kit.run(OUTLINE, {"path": "ast.py"})).classes > 0
        with pytest.raises(TaskFailedError, match="not in the standard library"):
            await kit.run(STATS, {"path": "/etc/passwd"})


def test_each_file_is_one_question_and_every_capability_and_priority_is_used() -> None:
    asked = questions()
    assert len(asked) == len({question.path for question in asked}) > 500
    assert set(Counter(question.capability for question in asked)) == {OUTLINE, STATS, SCAN}
    assert len({question.priority for question in asked}) == 3
    assert all((LIBRARY / question.path).is_file() for question in asked)
    assert len(questions(50)) == 50
    assert question_about("ssl.py").capability == SCAN


def test_every_capability_is_offered_by_two_agents_so_that_any_one_may_die() -> None:
    offered = Counter(name.partition(" ")[0] for agent in (Ada, Ben, Cleo) for name in agent.capabilities)
    assert offered == {OUTLINE: 2, STATS: 2, SCAN: 2}


def report(**changes: Any) -> Report:
    """Return a report as a census might give it."""
    handover = Handover(
        agent_id="ben",
        pid=7,
        at_s=2.4,
        after_tasks=895,
        running=1,
        lost=4,
        begun=1,
        given_after_death=1,
        taken_over_by={"ada": 3, "cleo": 1},
        noticed_after_s=5.5,
    )
    return Report(
        python="3.11",
        server="redis 7.0.15",
        files=1790,
        counted=1790,
        complete=True,
        seconds=10.0,
        per_second=179.0,
        lines=1,
        functions=2,
        classes=3,
        words=4,
        retried=4,
        retried_because={"agent_lost": 4},
        failed=[],
        most_complex=[Ranked(what="re/_parser.py:516 _parse", number=122)],
        largest=[],
        most_imported=[],
        unparsable=[],
        suspicions=["x" * 200],
        workers=[Worker(agent_id="ben", done={OUTLINE: 3}, killed=True)],
        waits=[Wait(priority="HIGH", tasks=62, median_s=0.2)],
        handover=handover,
    ).model_copy(update=changes)


def shown(found: Report) -> str:
    screen = io.StringIO()
    show(found, Console(file=screen, width=80))
    text = screen.getvalue()
    assert all(len(line) <= 80 for line in text.splitlines())
    return " ".join(text.split())


def test_the_report_says_what_the_death_of_an_agent_cost() -> None:
    text = shown(report())
    assert "4 tasks given out again, because their agent died" in text
    assert (
        "It had 3 tasks in its hands, and got 1 more until its lease ended: 1 it had begun, which costs one of their "
        "attempts; 3 it had not begun, which costs nothing. Others did them (3 by ada and 1 by cleo), at the latest "
        "5.5 s after they were given to it."
    ) in text


def test_the_report_says_why_else_tasks_were_given_out_again() -> None:
    text = shown(report(retried=6, retried_because={"agent_lost": 4, "error": 1, "returned": 1}))
    assert "6 tasks given out again: 4 because their agent died, 1 after an error, 1 handed back by a busy" in text
    assert "no task had to be given out again" in shown(report(retried=0, retried_because={}, handover=None))


def test_sources_are_parsed_by_one_thread_at_a_time() -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(outline_of, [SOURCE + "(" * 40 + "1" + ")" * 40] * 200))
    assert {outline.problem for outline in found} == {None}


@pytest.mark.timeout(120)
async def test_of_very_few_tasks_none_may_be_left_for_the_victim() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "callboard", "demo", "--json", "--limit", "2"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert json.loads(output)["counted"] == 2


@pytest.mark.timeout(120)
async def test_kept_it_says_where_everything_is_until_ctrl_c() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "callboard", "demo", "--keep", "--limit", "20"),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    lines = [line.decode().rstrip() async for line in until(process.stderr, b"--wait")]
    for name in ("dispatcher", "ada", "cleo"):
        (url,) = (line.split()[1] for line in lines if line.startswith(f"  {name} "))
        assert fetch(url)[0] == 200
    assert not any(line.startswith("  ben") for line in lines), "its page is gone"
    (url,) = (line.split("=")[1] for line in lines if "export CALLBOARD_REDIS_URL=" in line)
    async with Client(url) as bus:
        assert len(await bus.agents()) == len(AGENTS)
    process.send_signal(signal.SIGINT)
    assert await process.wait() == 0


async def until(stream: asyncio.StreamReader, end: bytes) -> AsyncIterator[bytes]:
    """Yield lines up to the one that has `end` in it."""
    async for line in stream:
        yield line
        if end in line:
            return


@pytest.mark.timeout(120)
async def test_the_census_is_complete_though_an_agent_was_killed_at_work() -> None:
    before = set(psutil.Process().children(recursive=True))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "callboard", "demo", "--json"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    found = json.loads(output)
    assert process.returncode == 0
    assert found["complete"]
    assert found["counted"] == found["files"] == len(questions())
    assert found["failed"] == []
    assert found["handover"]["running"] > 0, "it was killed with tasks running"
    assert found["handover"]["lost"] > 0
    assert found["handover"]["lost"] == sum(found["handover"]["taken_over_by"].values())
    assert set(found["handover"]["taken_over_by"]) <= {"ada", "cleo"}
    assert found["handover"]["begun"] + found["handover"]["given_after_death"] <= found["handover"]["lost"]
    assert found["retried_because"]["agent_lost"] == found["handover"]["lost"]
    assert sum(found["retried_because"].values()) == found["retried"]
    assert "error" not in found["retried_because"], "no task needs a second attempt but for the death"
    assert sum(sum(worker["done"].values()) for worker in found["workers"]) == found["files"]
    assert set(psutil.Process().children(recursive=True)) == before, "no process is left behind"
