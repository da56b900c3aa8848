"""The auditor finds what it is there for: it is shown journals in which one thing is wrong."""

import time
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.auditor import Evidence, judge
from tests.chaos.journal import Journal
from tests.chaos.strikes import Strike

ASKED = {"n": 1, "key": None, "once": False, "fails": 0, "exclusive": False, "cancel": False}
OUTCOME = {"n": 1, "task_id": "chaos.x", "status": "COMPLETED", "attempt": 1, "reason": None}
RESULT = {"n": 1, "token": "one"}


class Scene:
    """Journals of one submitter and one agent."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._producer = Journal(folder / "producer-p1.jsonl")
        self._agent = Journal(folder / "agent-a1-1.jsonl")

    def asked(self, **more: Any) -> None:
        self._producer.write("asked", **ASKED | more)
        self.receipt()

    def receipt(self, task: str = "chaos.x") -> None:
        self._producer.write("receipt", n=1, task=task)

    def begin(self, which: str = "one", attempt: int = 1, *, exclusive: bool = False) -> None:
        about = {"task": "chaos.x", "n": 1, "agent": "a1", "pid": 1}
        self._agent.write("begin", token=which, attempt=attempt, exclusive=exclusive, **about)

    def end(self, which: str = "one", what: str = "end") -> None:
        self._agent.write(what, token=which)

    def outcome(self, **more: Any) -> None:
        self._producer.write("outcome", **OUTCOME | {"output": RESULT} | more)

    def lost(self, error: str) -> None:
        self._producer.write("lost", n=1, task="chaos.x", error=error)

    def findings(self, *strikes: Strike) -> str:
        return "\n".join(judge(Evidence(self._folder), strikes))


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_task_that_ends_as_it_was_executed_is_well(scene: Scene) -> None:
    scene.asked()
    scene.begin()
    scene.end()
    scene.outcome()
    assert scene.findings() == ""


def test_a_task_without_an_outcome_is_lost(scene: Scene) -> None:
    scene.asked()
    scene.begin()
    scene.end()
    assert "never told how it ended" in scene.findings()


def test_a_task_that_ends_twice(scene: Scene) -> None:
    scene.asked()
    scene.begin()
    scene.end()
    scene.outcome()
    scene.outcome()
    assert "ended 2 times" in scene.findings()


def test_a_result_that_nobody_made(scene: Scene) -> None:
    scene.asked()
    scene.outcome()
    assert "no execution that has ended" in scene.findings()


def test_a_result_of_an_execution_that_was_not_the_attempt_that_is_told(scene: Scene) -> None:
    scene.asked()
    scene.begin(attempt=2)
    scene.end()
    scene.outcome()
    assert "of another execution" in scene.findings()


def test_a_key_of_two_tasks(scene: Scene) -> None:
    scene.asked(key="k")
    scene.receipt("chaos.y")
    assert "one key, and several tasks" in scene.findings()


def test_a_failure_without_a_cause(scene: Scene) -> None:
    scene.asked()
    scene.begin()
    scene.outcome(status="FAILED", reason="agent_lost", output=None)
    assert "there is no cause" in scene.findings()


def test_an_attempt_that_is_begun_twice(scene: Scene) -> None:
    scene.asked()
    scene.begin()
    scene.end()
    scene.begin("two")
    scene.end("two")
    scene.outcome()
    assert "begun twice" in scene.findings()


def test_a_task_that_may_be_tried_once_and_is_begun_again(scene: Scene) -> None:
    scene.asked(once=True)
    scene.begin()
    scene.begin("two", 2)
    scene.end("two")
    scene.outcome(attempt=2, output=RESULT | {"token": "two"})
    assert "may be tried only once" in scene.findings()


@pytest.mark.parametrize(
    ("fault", "exclusive", "well"),
    [
        (None, False, False),
        ("agent deaf", False, True),
        ("agent deaf", True, False),
        ("agent stopped beyond its lease", True, True),
        ("two agents with one id", False, True),
        ("two agents with one id", True, False),
        ("server killed", False, False),
    ],
)
def test_two_attempts_at_once_unless_a_fault_explains_it(
    scene: Scene, fault: str | None, exclusive: bool, well: bool
) -> None:
    scene.asked()
    scene.begin(exclusive=exclusive)
    scene.begin("two", 2, exclusive=exclusive)
    scene.end()
    scene.end("two")
    scene.outcome(attempt=2, output=RESULT | {"token": "two"})
    strikes = [] if fault is None else [Strike(fault, "a1", 0.0)]
    assert ("its agent was well" not in scene.findings(*strikes)) is well


@pytest.mark.parametrize("fault", ["everything flushed", "server restarted empty"])
def test_what_the_server_has_lost_may_be_lost_if_that_is_told(scene: Scene, fault: str) -> None:
    now = time.monotonic()
    scene.asked()
    scene.lost("UnknownTaskError('chaos.x')")
    assert "its submitter was told" in scene.findings()
    assert "its submitter was told" in scene.findings(Strike(fault, "server", now - 100, now - 50))
    assert "its submitter was told" in scene.findings(Strike("server killed", "server", now - 1, now))
    assert scene.findings(Strike(fault, "server", now - 1, now)) == ""


def test_what_the_server_has_lost_and_nobody_was_told_of_is_lost(scene: Scene) -> None:
    now = time.monotonic()
    scene.asked()
    assert "never told how it ended" in scene.findings(Strike("everything flushed", "server", now - 1, now))


def test_what_began_before_the_server_lost_everything_may_begin_anew(scene: Scene) -> None:
    now = time.monotonic()
    scene.asked(once=True)
    scene.begin()
    scene.begin("two")
    scene.end("two")
    scene.outcome(output=RESULT | {"token": "two"})
    assert "begun twice" in scene.findings(Strike("server killed", "server", now, now))
    assert scene.findings(Strike("everything flushed", "server", now, now)) == ""


def test_poison_that_was_begun_once_needs_three_agents_to_which_something_was_done(scene: Scene) -> None:
    scene.asked()
    scene.begin()
    now = time.monotonic()
    lost = [
        {"agent_id": name, "attempt": n, "lost_at": round(time.time() * 1000)}
        for n, name in enumerate(("a1", "a2", "a3"))
    ]
    scene.outcome(status="FAILED", reason="poison", error={"type": "Poison", "message": "", "details": lost})
    strikes = [Strike("agent killed", "a1", now - 1, now), Strike("agent deaf", "a2", now - 7, now)]
    assert "it is poison" in scene.findings(*strikes)
    assert scene.findings(*strikes, Strike("agent gone", "a3", now - 9, now)) == ""
    assert "it is poison" in scene.findings(*strikes, Strike("agent gone", "a3", now - 50, now - 40))
