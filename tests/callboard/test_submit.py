"""`callboard submit` and `callboard tasks`, end to end: dispatcher and agent are processes of their own."""

import json
import signal
from dataclasses import fields
from inspect import signature
from pathlib import Path

from bus.records import TaskCreate
from callboard.commands.submit import submit
from callboard.task_options import TaskOptions
from tests.callboard.commandline import CommandLine
from tests.callboard.conftest import Start


def test_the_id_alone_is_printed(working: CommandLine) -> None:
    ran = working.submit("text.count", '{"text": "a b c"}')
    assert ran.out == f"{ran.out.strip()}\n"
    assert ran.out.startswith(f"{working.pool}.")
    assert working("tasks", "result", ran.out.strip(), "--timeout", "10s").json == {"words": 3}


def test_an_id_as_json(working: CommandLine) -> None:
    found = working.submit("text.count", '{"text": "a"}', "--json").json
    assert set(found) == {"id", "pool"}
    assert found["pool"] == working.pool


def test_waiting_prints_the_output(working: CommandLine) -> None:
    assert working.submit("text.count", '{"text": "a b c"}', "--wait").json == {"words": 3}
    found = working.submit("text.count", '{"text": "ä"}', "--wait", "--json").json
    assert (found["status"], found["output"]) == ("COMPLETED", {"words": 1})


def test_a_task_that_fails(working: CommandLine) -> None:
    ran = working.submit("boom", '"no luck"', "--max-attempts", "1", "--wait", "--json")
    assert "failed (error): RuntimeError: no luck" in ran.complaint(1)
    found = json.loads(ran.out)
    assert (found["status"], found["reason"], found["error"]["message"]) == ("FAILED", "error", "no luck")


def test_a_payload_that_does_not_fit_is_rejected(working: CommandLine) -> None:
    assert "rejected" in working.submit("text.count", '{"txt": 1}', "--wait").complaint(1)


def test_waiting_has_an_end_and_the_task_goes_on(working: CommandLine) -> None:
    ran = working.submit("nobody.can", "1", "--wait", "--timeout", "300ms")
    assert "within 0.3 s; it goes on" in ran.complaint(1)
    task_id = ran.err.split()[2]
    found = working.record(task_id)
    assert (found["status"], found["waiting_because"] is not None) == ("PENDING", True)
    working("tasks", "cancel", task_id)


def test_a_payload_from_a_file_or_stdin(working: CommandLine) -> None:
    text = json.dumps({"text": "from a file"})
    (working.cwd / "payload.json").write_text(text)
    assert working.submit("text.count", "--file", "payload.json", "--wait").json == {"words": 3}
    assert working.submit("text.count", "--file", "-", "--wait", stdin=text).json == {"words": 3}


def test_many_from_stdin_are_told_as_they_end(working: CommandLine) -> None:
    lines = "".join(json.dumps({"text": "a " * n}) + "\n" for n in range(50))
    ran = working.submit("text.count", "-", "--wait", "--json", stdin=lines)
    assert ran.code == 0
    assert sorted(found["output"]["words"] for found in ran.ndjson) == list(range(50))
    assert len(working.submit("text.count", "--ndjson", stdin=lines).out.split()) == 50


def test_many_from_a_file_without_a_newline_at_its_end(working: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "many.ndjson").write_text('{"text": "a"}\n\n{"text": "b c"}')
    ran = working.submit("text.count", "--file", str(tmp_path / "many.ndjson"), "--ndjson", "--wait")
    assert sorted(line.split(" ", 1)[1] for line in ran.out.splitlines()) == ['{"words":1}', '{"words":2}']


def test_one_of_many_that_fails_is_told_among_them(working: CommandLine) -> None:
    ran = working.submit("text.count", "-", "--wait", "--json", stdin='{"text": "a"}\n7\n')
    assert ran.code == 1
    assert {found["status"] for found in ran.ndjson} == {"COMPLETED", "FAILED"}
    ran = working.submit("text.count", "-", "--wait", stdin='{"text": "a"}\n7\n')
    assert "rejected" in ran.complaint(1)
    assert len(ran.out.splitlines()) == 1


def test_lines_are_submitted_as_they_arrive(working: CommandLine) -> None:
    command = ("submit", "text.count", "-", "--wait", "--pool", working.pool)
    with working.start(*command, stdin=None) as running:
        assert running.stdin is not None
        assert running.stdout is not None
        for words in (1, 2):
            running.stdin.write(json.dumps({"text": "a " * words}) + "\n")
            running.stdin.flush()
            assert f'{{"words":{words}}}' in running.stdout.readline()
        running.stdin.close()
        assert running.wait(20) == 0


def test_what_is_asked_of_a_task_arrives(callboard: CommandLine, working: CommandLine) -> None:
    options = {"--requires": "gpu >= 16", "--key": callboard.pool, "--run-timeout": "1m30s", "--queue-timeout": "2h"}
    more = {"--priority": "HIGH", "--max-attempts": "5", "--tag": "t", "--metadata": "who=me", "--delay": "1d"}
    arguments = [part for item in (options | more).items() for part in item]
    task_id = working.submit("text.count", "{}", *arguments, "--tag", "u").out.strip()
    assert working.submit("text.count", "{}", "--key", callboard.pool).out.strip() == task_id
    found = working.record(task_id)
    spec = found["spec"]
    assert (spec["run_timeout"], spec["queue_timeout"], spec["max_attempts"]) == (90, 7200, 5)
    assert (found["priority"], found["tags"], found["metadata"]) == ("HIGH", ["t", "u"], {"who": "me"})
    assert spec["requires"] == [{"attribute": "gpu", "op": ">=", "value": 16}]
    working("tasks", "cancel", task_id)


def test_all_that_is_asked_of_an_agent_may_stand_in_one_text(working: CommandLine) -> None:
    found = working.submit("text.count>=1[agent.id != nobody, zone ~ eu:2]", '{"text": "a b"}', "--wait", "--json").json
    assert (found["status"], found["output"]) == ("COMPLETED", {"words": 2})
    more = ("--requires", "(gpu >= 16 | tpu exists)", "--prefers", "ram ~ >= 8:3")
    task_id = working.submit("nobody.can>=2[gpu exists]", "1", *more).out.strip()
    spec = working.record(task_id)["spec"]
    either = [{"attribute": "gpu", "op": ">=", "value": 16}, {"attribute": "tpu", "op": "exists", "value": None}]
    assert (spec["capability"], spec["version"]) == ("nobody.can", ">=2")
    assert spec["requires"] == [{"attribute": "gpu", "op": "exists", "value": None}, {"any_of": either}]
    assert spec["prefers"] == [{"attribute": "ram", "op": ">=", "value": 8, "weight": 3}]
    working("tasks", "cancel", task_id)


def test_everything_that_a_task_may_ask_for_is_an_option() -> None:
    options = {*signature(submit).parameters, *(field.name for field in fields(TaskOptions))}
    named_otherwise = {"tags": "tag", "resources": "resource", "limits": "limit"}
    assert {named_otherwise.get(name, name) for name in TaskCreate.model_fields} <= options


def test_room_limits_and_retries_arrive(working: CommandLine) -> None:
    options = ("--slots", "2", "--resource", "gpu=1", "--resource", "mem_gb=1.5", "--progress-timeout", "1m")
    more = ("--limit", "a=4", "--limit", "b=600/min", "--limit", "b=9", "--retry", '{"cap": 60}')
    task_id = working.submit("nobody.can", "1", *options, *more, "--estimated-duration", "2m").out.strip()
    spec = working.record(task_id)["spec"]
    assert (spec["slots"], spec["resources"]) == (2, {"gpu": 1, "mem_gb": 1.5})
    assert (spec["progress_timeout"], spec["estimated_duration"], spec["retry"]["cap"]) == (60, 120, 60)
    found = {limit["key"]: (limit.get("rate"), limit.get("concurrency")) for limit in spec["limits"]}
    assert found == {"a": (None, 4), "b": ("600/min", 9)}
    working("tasks", "cancel", task_id)


def test_where_there_is_no_room_the_option_that_waits_for_it_is_named(callboard: CommandLine, start: Start) -> None:
    start("dispatcher", "--pool", callboard.pool, "--metrics-port", "0", "--max-pending", "narrow=1,5")
    callboard.record(callboard.submit("narrow", "1").out.strip())
    text = callboard.submit("narrow", "2").complaint(1)
    assert "no more than 1 may" in text
    assert "`--wait-for-room 1m`" in text
    assert "wait_for_room" not in text
    text = callboard.submit("narrow", "-", stdin="2\n3\n").complaint(1)
    assert "`--wait-for-room 1m` do that; 0 are submitted" in text


def test_cancelling(working: CommandLine) -> None:
    ids = [working.submit("nobody.can", "1").out.strip() for _ in range(2)]
    assert working("tasks", "cancel", *ids, "--reason", "no need", "--json").json == {
        "requested": "cancel",
        "ids": ids,
    }
    ran = working("tasks", "result", ids[0], "--timeout", "10s", "--json")
    assert "cancelled: no need" in ran.complaint(1)
    assert json.loads(ran.out)["status"] == "CANCELLED"


def test_another_priority(working: CommandLine) -> None:
    task_id = working.submit("nobody.can", "1").out.strip()
    working("tasks", "get", task_id)  # accepted
    ran = working("tasks", "reprioritise", "urgent", task_id)
    assert (ran.err, ran.out) == ("", "asked for 1 task to be URGENT\n")
    while working("tasks", "get", task_id, "--json").json["priority"] != "URGENT":
        pass
    working("tasks", "cancel", task_id, "--wait")
    assert "Choose from" in working("tasks", "reprioritise", "now", task_id).complaint(2)


def test_whoever_steers_what_is_not_live_is_told_so(working: CommandLine) -> None:
    ended = working.submit("text.count", '{"text": "a"}', "--wait", "--json").json["id"]
    live, unknown = working.submit("nobody.can", "1").out.strip(), f"{working.pool}.nobody"
    working("tasks", "get", live)  # accepted
    ran = working("tasks", "reprioritise", "urgent", ended, unknown)
    assert (ran.code, ran.err) == (1, "")
    assert f"{ended} has ended as COMPLETED" in ran.out
    assert f"{unknown} is not known" in ran.out
    ran = working("tasks", "reprioritise", "urgent", ended, live, "--json")
    assert (ran.code, ran.json["ids"], ran.json["over"]) == (0, [live], {ended: "COMPLETED"})
    ran = working("tasks", "cancel", unknown, "--wait")
    assert ran.code == 1
    assert "is not known" in ran.out
    assert working("tasks", "cancel", live, ended, "--wait").code == 0


def test_why_a_task_waits(working: CommandLine) -> None:
    task_id = working.submit("text.count>=9", '{"text": "a"}').out.strip()
    working("tasks", "get", task_id)  # accepted
    found = working("tasks", "explain", task_id, "--json").json
    assert found["groups"] == [{"count": found["agents"], "why": "is of version 1.2, not >=9"}]
    assert "nearest is" in working("tasks", "explain", task_id).out
    working("tasks", "cancel", task_id)
    ended = working.submit("text.count", '{"text": "a"}', "--wait", "--json").json["id"]
    text = working("tasks", "explain", ended, "--json").json["text"]
    assert text.startswith("COMPLETED at ")
    assert "on crew, in attempt 1; attempt 1 was placed there as the only one that could do it" in text
    assert "no task" in working("tasks", "explain", f"{working.pool}.nobody").complaint(1)


def test_what_would_become_of_a_task(working: CommandLine) -> None:
    assert "would go to" in working("tasks", "plan", "text.count>=1", "--pool", working.pool).out
    assert "would wait" in working("tasks", "plan", "nobody.can", "--pool", working.pool).out
    for option, words in (
        (("--slots", "99"), "has only 8 of 99 slots"),
        (("--resource", "gpu=1"), "has no gpu"),
        (("--version", ">=9"), "is of version 1.2, not >=9"),
        (("--requires", "gpu >= 16"), "lacks gpu >= 16"),
        (("--fail-fast", "--requires", "gpu >= 16"), "would fail at once"),
        (
            ("--prefers", "region ~ eu", "--sticky", "k", "--limit", "a=3", "--priority", "urgent"),
            "would go to crew now",
        ),
    ):
        assert words in working("tasks", "plan", "text.count", *option, "--pool", working.pool).out, option
    assert "resources" in working("tasks", "plan", "text.count", "--resource", "gpu=-1", "--pool", "x").complaint(2)
    assert "column" in working("tasks", "plan", "text.count[", "--pool", working.pool).complaint(2)


def test_a_question_that_nobody_can_answer(redis_url: str) -> None:
    empty = CommandLine(redis_url, "tnobody", Path.cwd())
    text = empty("tasks", "plan", "x", "--pool", "tnobody").complaint(1)
    assert "does a dispatcher run" in text
    assert "stored" not in text


def test_a_wish_that_nobody_answers_is_stored_and_says_so(redis_url: str) -> None:
    empty = CommandLine(redis_url, "tnobody", Path.cwd())
    text = empty("schedules", "pause", "x", "--pool", "tnobody").complaint(1)
    assert "within 3 s" in text
    assert "is stored" in text
    assert "do not ask again" in text


def test_listing(working: CommandLine) -> None:
    done = working.submit("text.count", '{"text": "a"}', "--wait", "--json").json["id"]
    waiting = working.submit("nobody.can", "1").out.strip()
    working("tasks", "get", waiting)
    ids = {
        task["id"]: task for task in working("tasks", "list", "--limit", "500", "--json", "--pool", working.pool).json
    }
    assert ids[done]["status"] == "COMPLETED"
    table = working("tasks", "list", "--status", "completed", "--limit", "500", "--pool", working.pool).out
    assert done in table
    assert waiting not in table
    assert f"in pool {working.pool}" in table
    working("tasks", "cancel", waiting)


def test_a_note_is_listed_only_while_its_task_runs(working: CommandLine) -> None:
    task_id = working.submit("slow", "60").out.strip()

    def line() -> str:
        table = working("tasks", "list", "--limit", "500", "--pool", working.pool).out
        return next((row for row in table.splitlines() if row.startswith(task_id)), "")

    while "50% half way" not in line():
        pass
    working("tasks", "cancel", task_id, "--reason", "seen")
    while "CANCELLED" not in line():
        pass
    assert "half way" not in line()
    assert "seen" in line()
    shown = working("tasks", "get", task_id).out
    assert "last note" in shown
    assert "progress" not in shown


def test_one_task_for_people(working: CommandLine) -> None:
    done = working.submit("text.count", '{"text": "a"}', "--wait", "--json").json["id"]
    shown = working("tasks", "get", done).out
    for part in (f"task {done}", "COMPLETED", '{"words":1}', '{"text":"a"}', "crew"):
        assert part in shown


def test_ctrl_c_while_waiting_is_quiet(working: CommandLine) -> None:
    waiting = working.start("submit", "nobody.can", "1", "--wait", "--pool", working.pool)
    listed = ""
    while "nobody.can" not in listed:
        listed = working("tasks", "list", "--status", "pending", "--pool", working.pool).out
    waiting.send_signal(signal.SIGINT)
    with waiting:
        assert (*waiting.communicate(timeout=20), waiting.returncode) == ("", "", 130)


def test_a_sticky_task_says_why_it_went_where_it_went(working: CommandLine) -> None:
    working.submit("text.count", '{"text": "a"}', "--sticky", "k", "--wait")
    task_id = working.submit("text.count", '{"text": "a"}', "--sticky", "k", "--fail-fast").out.strip()
    working("tasks", "result", task_id, "--timeout", "10s")
    assert "could do it: " in working.record(task_id)["placed_because"]
    assert "placed because" in working("tasks", "get", task_id).out


def test_what_nobody_could_ever_run_says_so(working: CommandLine) -> None:
    assert (
        "no registered agent could ever run this" in working("tasks", "plan", "nobody.can", "--pool", working.pool).out
    )


def test_a_running_attempt_is_declared_overdue(working: CommandLine) -> None:
    task_id = working.submit("slow", "60", "--max-attempts", "1", "--json").json["id"]
    while working.record(task_id)["status"] != "RUNNING":
        pass
    ran = working("tasks", "timeout", task_id, "--reason", "it hangs", "--by", "alice")
    assert (ran.code, ran.out) == (0, f"attempt 1 of {task_id} has timed out; the task is FAILED\n")
    assert "declared overdue by alice: it hangs" in working("dead", "show", task_id).out
    assert "does not run (the task is FAILED)" in working("tasks", "timeout", task_id).complaint(1)
    assert "<pool>.<id>" in working("tasks", "timeout", "x").complaint(2)
