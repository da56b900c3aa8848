"""`callboard schedules`: what people make, see and steer."""

import re

from tests.callboard.commandline import CommandLine


def test_a_schedule_from_its_making_to_its_end(working: CommandLine) -> None:
    pool = ("--pool", working.pool)
    task = ("count", "text.count", '{"text": "a b"}')
    made = working("schedules", "put", *task, "--cron", "30 2 * * *", "--timezone", "Europe/Berlin", *pool)
    lines = made.out.splitlines()
    assert lines[0] == "schedule count is active, due at"
    assert len(lines) == 4
    assert all(re.fullmatch(r"  \d{4}-\d\d-\d\d 0[23]:[03]0:00\+0[12]:00", line) for line in lines[1:])
    assert "30 2 * * * Europe/Berlin" in working("schedules", "list", *pool).out
    found = working("schedules", "get", "count", "--json", *pool).json
    assert (found["state"], len(found["upcoming"])) == ("active", 3)
    assert working("schedules", "pause", "count", "--reason", "holidays", *pool).out == "schedule count is paused\n"
    shown = working("schedules", "get", "count", *pool).out
    for part in ("holidays", "paused", '{"text":"a b"}'):
        assert part in shown
    assert working("schedules", "resume", "count", *pool).out == "schedule count is active\n"
    task_id = working("schedules", "trigger", "count", *pool).out.strip()
    assert working("tasks", "result", task_id, "--json").json["output"] == {"words": 2}
    assert "count, due " in working("tasks", "get", task_id).out
    assert working("schedules", "delete", "count", *pool).out == "schedule count is deleted\n"
    assert "callboard schedules put --help" in working("schedules", "list", *pool).out
    assert working("schedules", "list", "--json", *pool).json == []


def test_an_interval_and_a_row_that_ends(working: CommandLine) -> None:
    pool = ("--pool", working.pool)
    when = ("--every", "1h", "--start", "2090-01-01T00:00:00Z", "--max-runs", "2")
    made = working("schedules", "put", "row", "text.count", *when, "--overlap", "queue", "--json", *pool).json
    assert made["upcoming"] == ["2090-01-01 00:00:00+00:00", "2090-01-01 01:00:00+00:00"]
    assert (made["spec"]["overlap"], made["spec"]["every"]) == ("queue", 3600.0)
    working("schedules", "delete", "row", *pool)
