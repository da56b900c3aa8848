"""`callboard dead`, and the conditions by which many tasks are meant at once."""

import re
from typing import Any

import pytest

from callboard.user import user
from tests.callboard.commandline import CommandLine


def failed(working: CommandLine, tag: str, number: int = 1, *options: str) -> list[str]:
    """Let tasks fail; return their ids."""
    lines = "".join(f'"boom {n}"\n' for n in range(number))
    ran = working.submit("fragile", "-", "--tag", tag, "--max-attempts", "2", "--wait", "--json", *options, stdin=lines)
    working.submit("fragile", '"well"', "--wait")  # else the agent would soon be given no more of it
    return sorted(one["id"] for one in ran.ndjson)


def dead(working: CommandLine, verb: str, *arguments: str) -> Any:
    return working("dead", verb, *arguments, "--pool", working.pool, "--json").json


def test_dead_letters_are_listed_by_any_condition(working: CommandLine) -> None:
    ids = failed(working, "listed", 3)
    assert {task["id"] for task in dead(working, "list", "--tag", "listed")} == set(ids)
    assert len(dead(working, "list", "--tag", "listed", "--limit", "2")) == 2
    conditions = ("--tag", "listed", "--capability", "fragile", "--error", "RuntimeError", "--failed-as", "error")
    assert len(dead(working, "list", *conditions, "--agent", "crew", "--ended-after", "1h")) == 3
    assert dead(working, "list", *conditions, "--ended-before", "1h") == []
    assert dead(working, "list", "--tag", "listed", "--failed-as", "timeout") == []
    shown = working("dead", "list", "--tag", "listed", "--pool", working.pool)
    assert re.search(rf"{ids[0]} +fragile +error +2 +crew +\S+ ago +RuntimeError: boom 0", shown.out), shown.out


def test_every_attempt_is_shown_with_its_agent_its_times_and_its_error(working: CommandLine) -> None:
    (task_id,) = failed(working, "shown")
    shown = working("dead", "show", task_id)
    assert shown.code == 0
    for attempt in (1, 2):
        assert re.search(
            rf"attempt {attempt} +error on crew\n +assigned .+, begun .+, ended .+\n +RuntimeError: boom 0\n", shown.out
        )
    assert shown.out.count("Traceback (most recent call last)") == 2
    record = working("dead", "show", task_id, "--json").json
    assert [one["error"]["type"] for one in record["attempts"]] == ["RuntimeError", "RuntimeError"]


def test_what_is_no_dead_letter_is_not_shown_as_one(working: CommandLine) -> None:
    done = working.submit("text.count", '{"text": "a"}', "--wait", "--json").json["id"]
    assert "COMPLETED, and no dead letter" in working("dead", "show", done).complaint(1)
    assert "no task" in working("dead", "show", f"{working.pool}.nobody").complaint(1)


def test_a_dead_letter_is_requeued_and_tells_of_it(working: CommandLine) -> None:
    (task_id,) = failed(working, "requeued")
    ran = working("dead", "requeue", task_id, "--priority", "high", "--reason", "fixed it", "--by", "alice")
    assert (ran.code, ran.out) == (0, "requeued 1 dead letter\n")
    assert working("tasks", "result", task_id).code == 1
    shown = working("dead", "show", task_id).out
    assert re.search(r"attempt 2 .*requeued .* by alice: fixed it\n +failed as error.*attempt 3 ", shown, re.DOTALL), (
        shown
    )
    assert re.search(r"attempt +2 of 2 \(4 in all\)\n", working("tasks", "get", task_id).out)
    listed = working("tasks", "list", "--tag", "requeued", "--pool", working.pool).out
    assert re.search(r"HIGH +2/2 +crew", listed), listed


def test_whoever_requeues_is_named_by_the_machine_too(working: CommandLine) -> None:
    (task_id,) = failed(working, "named")
    assert working("dead", "requeue", task_id).code == 0
    assert f" by {user()}\n" in working("dead", "show", task_id).out


def test_many_are_requeued_by_a_condition(working: CommandLine) -> None:
    ids = failed(working, "many", 3)
    assert set(dead(working, "requeue", "--tag", "many")["requeued"]) == set(ids)


def test_whoever_names_what_is_not_dead_is_told_so(working: CommandLine) -> None:
    done = working.submit("text.count", '{"text": "a"}', "--wait", "--json").json["id"]
    ran = working("dead", "requeue", done, f"{working.pool}.nobody")
    assert ran.code == 1
    assert ran.out.splitlines() == [
        "requeued 0 dead letters",
        f"{done} is not dead",
        f"{working.pool}.nobody is unknown",
    ]


def test_nothing_is_purged_without_a_yes(working: CommandLine) -> None:
    ids = failed(working, "purged", 2)
    ran = working("dead", "purge", "--tag", "purged", "--pool", working.pool)
    assert ran.complaint(1) == "2 dead letters would be deleted for good: add --yes to do it"
    assert len(dead(working, "list", "--tag", "purged")) == 2
    assert set(dead(working, "purge", "--tag", "purged", "--yes")["purged"]) == set(ids)
    assert dead(working, "list", "--tag", "purged") == []
    assert "no task" in working("tasks", "get", ids[0]).complaint(1)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("dead", "requeue"), "requeue what?"),
        (("dead", "purge", "--yes"), "purge what?"),
        (("tasks", "cancel"), "cancel what?"),
        (("tasks", "reprioritise", "high"), "reprioritise what?"),
        (("dead", "requeue", "default.a", "--tag", "x"), "leave one of them out"),
        (("dead", "requeue", "default.a", "--all"), "leave one of them out"),
        (("dead", "list", "--ended-after", "yesterday"), "'yesterday' is no instant: write e.g. 2026-11-25T08:00"),
        (("dead", "list", "--capability", "a b"), "capability: "),
        (("dead", "requeue", "nonsense"), "is not a task id"),
    ],
)
def test_what_is_not_clear_is_not_done(callboard: CommandLine, arguments: tuple[str, ...], complaint: str) -> None:
    assert complaint in callboard(*arguments).complaint(2)


def test_live_tasks_are_listed_cancelled_and_reprioritised_by_conditions(working: CommandLine) -> None:
    lines = "null\n" * 3
    ids = {one["id"] for one in working.submit("nobody.can", "-", "--tag", "live", "--json", stdin=lines).ndjson}
    other = working.submit("nobody.can", "null", "--tag", "other").out.strip()
    pool = ("--pool", working.pool)
    raised = working("tasks", "reprioritise", "high", "--tag", "live", *pool, "--json").json
    assert raised == {"requested": "reprioritise", "count": 3}
    listed = working("tasks", "list", "--capability", "nobody.can", "--of-priority", "high", *pool, "--json").json
    assert {one["id"] for one in listed} == ids
    ran = working("tasks", "cancel", "--tag", "live", "--status", "pending", "--reason", "no need", *pool)
    assert (ran.code, ran.out) == (0, "3 tasks cancelled\n")
    left = working("tasks", "list", "--capability", "nobody.can", "--status", "pending", *pool, "--json").json
    assert [one["id"] for one in left] == [other]
    assert working("tasks", "cancel", "--capability", "nobody.can", *pool, "--json").json["count"] == 1
