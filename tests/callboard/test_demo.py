"""The census: what its agents find, how its questions are asked, and the whole of it by the command line."""

import asyncio
import json
import sys
from collections import Counter

import psutil
import pytest

from agent_runtime import Reject
from agent_runtime.testing import AgentKit
from bus.errors import TaskFailedError
from callboard.demo.agents import LIBRARY, Ada, Ben, Cleo, Outline, outline_of, read, secrets_in, stats_of
from callboard.demo.sources import OUTLINE, SCAN, STATS, question_about, questions

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


@pytest.mark.timeout(120)
async def test_the_census_is_complete_though_an_agent_was_killed_at_work() -> None:
    before = set(psutil.Process().children(recursive=True))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "callboard", "demo", "--json"), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    report = json.loads(output)
    assert process.returncode == 0
    assert report["complete"]
    assert report["counted"] == report["files"] == len(questions())
    assert report["failed"] == []
    assert report["handover"]["running"] > 0, "it was killed with tasks running"
    assert report["handover"]["lost"] > 0
    assert report["handover"]["lost"] == sum(report["handover"]["taken_over_by"].values())
    assert set(report["handover"]["taken_over_by"]) <= {"ada", "cleo"}
    assert sum(sum(worker["done"].values()) for worker in report["workers"]) == report["files"]
    assert set(psutil.Process().children(recursive=True)) == before, "no process is left behind"
