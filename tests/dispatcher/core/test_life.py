"""A task's life: attempts, retries, timers, cancels, and what is said of it."""

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from pydantic_core import from_json

from bus.messages import TaskError
from bus.retries import RetryPolicy
from bus.states import TERMINAL, FailureReason, TaskPriority, TaskStatus, task_may_become
from dispatcher.core import lifecycle
from dispatcher.core.decisions import Decisions, Place
from dispatcher.core.events import Duplicate, Refused
from dispatcher.core.lifecycle import IllegalTransitionError
from dispatcher.core.model import Attempt, TaskState
from dispatcher.core.retry import backoff_ms
from tests.dispatcher.core.world import World, placed, stops, task_id

if TYPE_CHECKING:
    from collections.abc import Callable


def running(**fields: object) -> World:
    """Return a world in which task 1 runs on agent `a`."""
    world = World()
    world.step(world.sign_in(lease=600), world.task(**fields))  # type: ignore[arg-type] # fields of a submission
    world.step(world.started(1))
    assert world.status(1) is TaskStatus.RUNNING
    return world


def current(task: TaskState) -> Attempt:
    return task.current or Attempt(None, "", 0)


def reason(decisions: Decisions) -> str | None:
    return decisions.transitions[-1].reason


@pytest.mark.parametrize("began", [True, False])
@pytest.mark.parametrize("status", [TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED])
def test_nothing_ends_before_it_was_assigned_whatever_the_clocks(status: TaskStatus, *, began: bool) -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task(max_attempts=1))
    assigned_at = world.now
    said = [world.started(1), world.ended(1, status, output=None)] if began else [world.ended(1, status, output=None)]
    world.step(*[replace(event, at=assigned_at - 20) for event in said])
    run = world.run(1)
    (attempt,) = run.attempts
    assert (attempt.assigned_at, attempt.ended_at, run.finished_at) == (assigned_at,) * 3
    assert attempt.started_at in (None, assigned_at)


def test_from_submission_to_result() -> None:
    world = World()
    world.step(world.sign_in())
    world.step(world.task(reply_to="me"))
    assert world.stored[task_id(1)] == "ASSIGNED/1/a/a1"
    world.step(world.started(1), after=5)
    assert world.stored[task_id(1)] == "RUNNING/1/a/a1"
    world.pass_time(500)
    decisions = world.step(world.ended(1, duration=0.5))
    assert world.stored[task_id(1)] == "COMPLETED/1//"
    assert world.places[task_id(1)] is Place.DONE
    (answer,) = decisions.answers
    assert answer.client_id == "me"
    assert from_json(answer.outcome) == {
        "task_id": task_id(1), "status": "COMPLETED", "attempt": 1, "agent_id": "a", "output": 42,
    }  # fmt: skip
    (change,) = decisions.changes
    assert change.output == b"42"
    run = from_json(change.run)
    assert run["finished_at"] - run["enqueued_at"] == 505
    assert [attempt["outcome"] for attempt in run["attempts"]] == ["completed"]
    assert not world.scheduler.board.tasks


def test_progress_is_kept_and_told() -> None:
    world = running()
    decisions = world.step(world.started(1, progress=0.5, note="half way"))
    assert (decisions.transitions[0].progress, decisions.transitions[0].note) == (0.5, "half way")
    assert from_json(decisions.changes[0].run)["note"] == "half way"


def test_failures_are_retried_after_a_backoff_until_no_attempt_is_left() -> None:
    world = running(max_attempts=3)
    for attempt in (1, 2):
        decisions = world.step(world.failed(1), after=1_000)
        assert world.places[task_id(1)] is Place.DELAYED
        assert (world.guard(1).attempt, reason(decisions)) == (attempt, "error")
        due = world.scheduler.next_due
        assert due is not None
        assert world.now <= due < world.now + 1_000 * 2 ** (attempt - 1)
        assert placed(world.step(after=due - world.now - 1)) == []
        assert placed(world.step(after=1)) == [(1, "a")]
        world.step(world.started(1))
    decisions = world.step(world.failed(1))
    assert (world.status(1), reason(decisions)) == (TaskStatus.FAILED, FailureReason.ERROR)
    assert world.places[task_id(1)] is Place.DEAD
    run = from_json(decisions.changes[0].run)
    assert [a["error"]["message"] for a in run["attempts"]] == ["no", "no", "no"]
    assert run["error"]["type"] == "ValueError"


@pytest.mark.parametrize("fields", [{"retryable": False}, {"reason": FailureReason.REJECTED}])
def test_what_cannot_help_is_not_tried_again(fields: dict[str, object]) -> None:
    world = running(max_attempts=10)
    world.step(world.failed(1, **fields))
    assert world.status(1) is TaskStatus.FAILED


def test_the_backoff_has_full_jitter_and_a_cap() -> None:
    policy = RetryPolicy(base=0.1, cap=1.0)
    world = World(retry=policy)
    board = world.scheduler.board
    for failures, bound in ((1, 100), (2, 200), (3, 400), (4, 800), (5, 1_000), (500, 1_000)):
        waits = [backoff_ms(policy, failures, board.rng) for _ in range(400)]
        assert 0 <= min(waits) < bound * 0.1
        assert bound * 0.9 < max(waits) < bound


def test_a_hand_back_costs_nothing() -> None:
    world = World()
    world.step(world.sign_in(), world.task(max_attempts=1))
    world.step(world.returned(1))
    assert world.stored[task_id(1)] == "ASSIGNED/2/a/a1"
    assert world.scheduler.board.tasks[task_id(1)].failures == 0


def test_a_hand_back_of_what_runs_is_not_taken() -> None:
    world = running()
    world.step(world.returned(1))
    assert world.status(1) is TaskStatus.RUNNING


def test_a_delayed_task_waits_for_its_time() -> None:
    world = World()
    world.step(world.sign_in(), world.task(delay=10))
    assert world.places[task_id(1)] is Place.DELAYED
    assert world.scheduler.next_due == world.now + 10_000
    assert placed(world.step(after=9_999)) == []
    assert placed(world.step(after=1)) == [(1, "a")]


def test_what_nobody_takes_in_time_expires_and_says_why() -> None:
    world = World()
    world.step(world.task("do", queue_timeout=5))
    decisions = world.step(after=5_000)
    assert (world.status(1), reason(decisions)) == (TaskStatus.FAILED, FailureReason.EXPIRED)
    error = from_json(decisions.changes[0].run)["error"]
    assert error["message"].endswith(
        "queue_timeout: no registered agent could ever run this: no agent offers 'do' (0 agents known)"
    )


def test_a_delay_does_not_count_as_waiting() -> None:
    world = World()
    world.step(world.task(delay=10, queue_timeout=5))
    world.step(after=14_999)
    assert world.status(1) is TaskStatus.PENDING
    world.step(after=1)
    assert world.status(1) is TaskStatus.FAILED


def test_what_was_handed_back_unbegun_expires_all_the_same() -> None:
    world = World()
    world.step(world.sign_in(), world.task(queue_timeout=5))
    world.step(world.command("drain"), world.returned(1))
    world.step(after=4_999)
    assert world.status(1) is TaskStatus.PENDING
    assert reason(world.step(after=1)) == FailureReason.EXPIRED


def test_what_is_handed_back_when_its_time_is_over_expires_at_once() -> None:
    world = World()
    world.step(world.sign_in(lease=60), world.task(queue_timeout=5))
    world.step(after=6_000)
    assert world.status(1) is TaskStatus.ASSIGNED
    assert reason(world.step(world.returned(1))) == FailureReason.EXPIRED


def test_what_was_begun_once_does_not_expire() -> None:
    world = running(queue_timeout=5)
    world.step(world.failed(1), after=4_000)
    world.step(world.command("drain"), after=60_000)
    assert world.status(1) is TaskStatus.PENDING


def test_what_runs_too_long_is_stopped_after_the_grace_and_counts_as_an_attempt() -> None:
    world = running(run_timeout=60, max_attempts=1)
    world.horizon(after=64_999)
    assert world.status(1) is TaskStatus.RUNNING
    decisions = world.horizon(after=1)
    assert stops(decisions) == [("a", task_id(1), 1)]
    assert (world.status(1), reason(decisions)) == (TaskStatus.FAILED, FailureReason.TIMEOUT)


def test_the_run_timeout_is_over_only_when_all_reports_are_read() -> None:
    world = running(run_timeout=60)
    done = world.ended(1)
    world.step(after=1_000_000)  # the clock alone proves nothing
    assert world.status(1) is TaskStatus.RUNNING
    world.step(done)
    world.horizon()
    assert world.status(1) is TaskStatus.COMPLETED


@pytest.mark.parametrize("status", [TaskStatus.PENDING, TaskStatus.ASSIGNED, TaskStatus.RUNNING])
def test_cancel(status: TaskStatus) -> None:
    world = World()
    world.step(world.task(reply_to="me"))
    if status is not TaskStatus.PENDING:
        world.step(world.sign_in())
    if status is TaskStatus.RUNNING:
        world.step(world.started(1))
    assert world.status(1) is status
    decisions = world.step(world.cancel(1, reason="changed my mind"))
    assert stops(decisions) == ([] if status is TaskStatus.PENDING else [("a", task_id(1), 1)])
    if status is not TaskStatus.PENDING:
        decisions = world.step(world.stopped(1))
    assert (world.status(1), reason(decisions)) == (TaskStatus.CANCELLED, "changed my mind")
    assert decisions.changes[0].release == ("a" if status is TaskStatus.ASSIGNED else None)
    assert len(decisions.answers) == 1


def test_a_cancel_that_overtakes_its_task_holds_for_a_minute() -> None:
    world = World()
    world.step(world.sign_in(), world.cancel(1, 2, reason="early"))
    decisions = world.step(world.task(number=1), after=59_000)
    assert (world.status(1), reason(decisions), placed(decisions)) == (TaskStatus.CANCELLED, "early", [])
    world.step(after=1_001)
    assert placed(world.step(world.task(number=2))) == [(2, "a")]
    assert not world.scheduler.board.tombstones


def test_what_comes_in_the_pass_that_ends_a_task_comes_too_late() -> None:
    world = running(reply_to="one")
    decisions = world.step(
        world.stopped(1),
        world.cancel(1),
        world.ended(1),
        world.started(1),
        world.watch(1, "two"),
        world.task(number=1),
    )
    assert [(change.before, change.after) for change in decisions.changes] == [("RUNNING/1/a/a1", "CANCELLED/1//")]
    assert [answer.client_id for answer in decisions.answers] == ["one"]
    assert decisions.stale == ["result", "update"]


def test_a_terminal_state_is_for_ever() -> None:
    world = running()
    late = world.ended(1), world.failed(1), world.started(1), world.cancel(1)
    world.step(world.ended(1))
    decisions = world.step(*late)
    assert decisions.changes == []
    assert decisions.stale == ["result", "result", "update"]


@pytest.mark.parametrize("what", ["attempt", "session", "agent_id"])
def test_reports_that_are_not_of_the_present_attempt_are_stale(what: str) -> None:
    world = running()
    report = world.ended(1).message
    if what == "attempt":
        report = report.model_copy(update={"results": (report.results[0].model_copy(update={"attempt": 2}),)})
    else:
        report = report.model_copy(update={what: "b"})
    decisions = world.step(type(world.ended(1))(report, world.now))
    assert (decisions.stale, decisions.changes) == (["result"], [])
    assert world.status(1) is TaskStatus.RUNNING


def test_who_watches_is_told_once() -> None:
    world = World()
    world.step(world.task(reply_to="one"), world.watch(1, "two"), world.watch(1, "two"), world.watch(9, "two"))
    decisions = world.step(world.cancel(1))
    assert [answer.client_id for answer in decisions.answers] == ["one", "two"]


def test_a_wrong_submission_becomes_a_failed_task() -> None:
    world = World()
    error = TaskError(type="ValidationError", message="priority: ...")
    decisions = world.step(Refused(task_id(1), b"{}", error, "me", world.now))
    assert (world.status(1), reason(decisions)) == (TaskStatus.FAILED, FailureReason.REJECTED)
    assert from_json(decisions.answers[0].outcome)["error"]["message"] == "priority: ..."


def test_what_the_ledger_had_before_is_forgotten_without_a_word() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    decisions = world.step(Duplicate(task_id(1)))
    assert decisions.changes == []
    assert not world.agent().tasks
    assert not world.scheduler.board.tasks


def test_only_moves_of_the_table_are_made() -> None:
    """Every function of a task's life, tried in every status: a move the table lacks is refused."""
    moves: dict[TaskStatus, Callable[[World, TaskState], None]] = {
        TaskStatus.RUNNING: lambda w, t: lifecycle.start(w.scheduler.board, t, current(t), w.now),
        TaskStatus.COMPLETED: lambda w, t: lifecycle.complete(w.scheduler.board, t, current(t), b"1", w.now, 1.0),
        TaskStatus.CANCELLED: lambda w, t: lifecycle.cancel(w.scheduler.board, t, "", w.now),
        TaskStatus.FAILED: lambda w, t: lifecycle.fail(w.scheduler.board, t, FailureReason.ERROR, None, w.now),
        TaskStatus.PENDING: lambda w, t: lifecycle.requeue(w.scheduler.board, t, "x", w.now),
        TaskStatus.ASSIGNED: lambda w, t: lifecycle.assign(
            w.scheduler.board, t, w.agent(), w.scheduler.board.fleet.class_of(t.terms), None
        ),
    }
    assert set(moves) == set(TaskStatus)
    for before in TaskStatus:
        for after, move in moves.items():
            world = World()
            world.step(world.sign_in(), world.task(priority=TaskPriority.LOW))
            task = world.scheduler.board.tasks[task_id(1)]
            task.status = before
            if before in TERMINAL or before is TaskStatus.PENDING:
                task.current = None
                world.agent().tasks.clear()
            if task_may_become(before, after):
                move(world, task)
                assert task.status is after
            else:
                with pytest.raises(IllegalTransitionError, match=f"{before} -> {after}"):
                    move(world, task)


def test_a_word_on_a_cancel_does_not_hide_what_else_is_said() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    world.step(world.started(1))
    world.step(world.cancel(1, grace=100))
    world.step(world.started(1, cancel="delivered"))
    world.step(world.started(1, cancel="delivered", waiting=True, extend=30.0))
    assert (world.run(1).waiting, world.run(1).extended_ms) == (True, 30_000)


def test_a_second_cancel_of_what_is_not_known_yet_lasts_as_long_as_the_first() -> None:
    world = World()
    world.step(world.sign_in(lease=3_600), world.cancel(1))
    world.step(world.cancel(1), after=59_000)
    world.step(after=5_000)
    world.step(world.task(number=1))
    assert world.status(1) is TaskStatus.CANCELLED


def test_a_piece_of_output_is_told_in_its_order_and_kept_nowhere() -> None:
    world = World()
    world.step(world.sign_in(lease=600), world.task())
    began = world.step(world.started(1, chunk="a"))
    assert [(one.status, one.chunk) for one in began.transitions] == [
        (TaskStatus.RUNNING, None),
        (TaskStatus.RUNNING, "a"),
    ]
    later = world.step(world.started(1, chunk="b"), world.started(1, chunk="c", note="half way"))
    assert [one.chunk for one in later.transitions] == ["b", "c"]
    alone = world.step(world.started(1, chunk="d"))
    assert ([one.chunk for one in alone.transitions], alone.changes) == (["d"], [])
    assert (world.run(1).note, b"half way" in world.runs[task_id(1)]) == ("half way", True)
