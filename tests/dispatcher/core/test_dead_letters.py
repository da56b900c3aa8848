"""Dead letters come back to life by an operator's command, and by nothing else; or they are deleted."""

from typing import Any

import pytest
from pydantic_core import from_json

from bus.messages import TaskError
from bus.retries import RetryPolicy
from bus.states import FailureReason, TaskPriority, TaskStatus
from dispatcher.core import lifecycle
from dispatcher.core.decisions import Decisions, Place
from dispatcher.core.events import Refused
from dispatcher.core.lifecycle import IllegalTransitionError
from tests.dispatcher.core.world import World, placed, task_id


def dead(world: World, **fields: Any) -> World:
    """Return the world with task 1 FAILED after its only attempt."""
    world.step(world.sign_in(), world.task(max_attempts=1, **fields))
    world.step(world.started(1))
    world.step(world.failed(1))
    assert world.status(1) is TaskStatus.FAILED
    return world


def answer(decisions: Decisions) -> dict[str, list[int]]:
    """Return the answer to the operator, as numbers of tasks."""
    (reply,) = decisions.replies
    assert reply.client_id == "operator"
    told = from_json(reply.body)["dead"]
    return {name: [int(one[-4:]) for one in ids] for name, ids in told.items() if ids}


def test_a_requeued_task_is_the_same_task_with_its_past_and_all_of_its_attempts() -> None:
    world = dead(World())
    failed_at = world.now
    decisions = world.step(world.requeue(1, reason="bug is fixed"), after=60_000)
    assert answer(decisions) == {"done": [1]}
    assert [(change.before, change.after) for change in decisions.changes] == [("FAILED/1//", "ASSIGNED/2/a/a1")]
    run = world.run(1)
    (attempt,) = run.attempts
    assert (attempt.agent_id, attempt.outcome, attempt.error) == (
        "a",
        "error",
        TaskError(type="ValueError", message="no"),
    )
    (past,) = run.requeues
    assert (past.by, past.why, past.reason, past.ended_at) == ("somebody", "bug is fixed", "error", failed_at)
    assert (run.enqueued_at, run.failures, run.error, run.reason) == (past.at, 0, None, None)
    world.step(world.started(1))
    decisions = world.step(world.ended(1))
    assert (world.status(1), [change.place for change in decisions.changes]) == (TaskStatus.COMPLETED, [Place.DONE])


def test_its_attempts_are_counted_anew_and_numbered_on() -> None:
    world = dead(World(retry=RetryPolicy(base=0.001)))
    world.step(world.requeue(1))
    world.step(world.started(1))
    decisions = world.step(world.failed(1))
    assert [change.after for change in decisions.changes] == ["FAILED/2//"]
    assert [one.attempt for one in world.run(1).attempts] == [1, 2]


def test_a_report_of_an_earlier_life_is_stale() -> None:
    world = World()
    world.step(world.sign_in(), world.task(max_attempts=1))
    late = world.ended(1)
    world.step(world.failed(1))
    world.step(world.requeue(1))
    assert world.status(1) is TaskStatus.ASSIGNED
    assert world.step(late).stale == ["result"]


def test_it_may_come_back_with_another_priority() -> None:
    world = dead(World(), priority=TaskPriority.LOW)
    world.step(world.sign_out())
    world.step(world.requeue(1, priority=TaskPriority.URGENT))
    assert world.run(1).priority is TaskPriority.URGENT
    world.step(world.task(priority=TaskPriority.HIGH))
    assert placed(world.step(world.sign_in(session="a2", slots=2))) == [(1, "a"), (2, "a")]


def test_what_is_not_dead_is_left_alone_and_told_apart() -> None:
    world = dead(World())
    world.step(world.task(), world.task("nobody"))
    world.step(world.ended(2))
    decisions = world.step(world.requeue(1, 2, 3, 9, 1))
    assert answer(decisions) == {"done": [1], "not_dead": [2, 3], "unknown": [9]}


def test_a_submission_that_was_refused_cannot_run_whatever_is_asked() -> None:
    world = World()
    world.step(Refused(task_id(1), b"{}", TaskError(type="Refused", message="too large"), None, world.now))
    assert answer(world.step(world.requeue(1))) == {"refused": [1]}
    assert answer(world.step(world.purge(1))) == {"done": [1]}


def test_a_task_that_its_agent_rejected_can_be_requeued() -> None:
    world = World()
    world.step(world.sign_in(), world.task())
    world.step(world.failed(1, reason=FailureReason.REJECTED, retryable=False))
    assert answer(world.step(world.requeue(1))) == {"done": [1]}


def test_two_requeues_in_one_pass_are_one() -> None:
    world = dead(World())
    first, second = world.requeue(1), world.requeue(1)
    second.command = second.command.model_copy(update={"by": "else"})
    decisions = world.step(first, second)
    answers = [from_json(reply.body)["dead"] for reply in decisions.replies]
    assert (answers[0]["done"], answers[1]["not_dead"]) == ([task_id(1)], [task_id(1)])
    assert len(decisions.changes) == 1


def test_a_command_that_is_read_again_after_its_leader_died_requeues_once() -> None:
    world = dead(World())
    command = world.requeue(1)
    world.step(command)
    assert answer(world.step(type(command)(command.command, {}, command.at))) == {"done": [1]}, "it is live"
    world.step(world.started(1))
    world.step(world.failed(1))
    again = world.requeue(1)
    again.at = command.at
    assert answer(world.step(again)) == {"done": [1]}
    assert world.status(1) is TaskStatus.FAILED, "it failed again, which nobody wants to be undone yet"
    world.pass_time(1)
    assert answer(world.step(world.requeue(1))) == {"done": [1]}
    assert world.status(1) is TaskStatus.ASSIGNED


def test_a_purged_record_is_gone() -> None:
    world = dead(World())
    decisions = world.step(world.purge(1))
    (change,) = decisions.changes
    assert (change.before, change.after, change.place) == ("FAILED/1//", "", Place.GONE)
    assert (answer(decisions), decisions.purged) == ({"done": [1]}, 1)
    assert answer(world.step(world.purge(1))) == {"unknown": [1]}


def test_only_dead_letters_are_purged() -> None:
    world = dead(World())
    world.step(world.task(), world.task("nobody"))
    world.step(world.ended(2))
    assert answer(world.step(world.purge(1, 2, 3))) == {"done": [1], "not_dead": [2, 3]}


@pytest.mark.parametrize("first", ["requeue", "purge"])
def test_of_a_requeue_and_a_purge_in_one_pass_the_first_counts(first: str) -> None:
    world = dead(World())
    events = [world.requeue(1), world.purge(1)]
    decisions = world.step(*(events if first == "requeue" else reversed(events)))
    answers = [{k: v for k, v in from_json(r.body)["dead"].items() if v} for r in decisions.replies]
    assert answers == [{"done": [task_id(1)]}, {"not_dead" if first == "requeue" else "unknown": [task_id(1)]}]
    assert len(decisions.changes) == 1


def test_a_task_that_is_purged_and_submitted_in_one_pass_is_a_new_one() -> None:
    world = dead(World())
    decisions = world.step(world.purge(1), world.task(number=1))
    (change,) = decisions.changes
    assert (change.before, change.after) == ("FAILED/1//", "ASSIGNED/1/a/a1")
    assert change.spec is not None
    assert change.handover is not None
    assert world.run(1).attempts == ()


def test_it_is_known_again_though_the_clock_of_the_first_leader_was_behind() -> None:
    world = dead(World())
    command = world.requeue(1)
    command.at = written = world.now + 5
    world.step(command, after=0)
    assert (world.run(1).requeues[-1].at, world.run(1).enqueued_at) == (written, world.now)
    world.step(world.started(1))
    world.step(world.failed(1))
    again = world.requeue(1)
    again.at = written
    assert answer(world.step(again, after=1_000)) == {"done": [1]}
    assert (world.status(1), len(world.run(1).requeues)) == (TaskStatus.FAILED, 1)


def test_a_requeued_task_may_wait_for_its_queue_timeout_again_however_often_it_ran_before() -> None:
    world = dead(World(), queue_timeout=10)
    world.step(world.sign_out())
    world.pass_time(9_000)
    world.step(world.requeue(1))
    world.step(after=2_000)  # the timer of its first life
    assert world.status(1) is TaskStatus.PENDING
    world.step(after=8_000)
    assert (world.status(1), world.run(1).reason) == (TaskStatus.FAILED, FailureReason.EXPIRED)


def test_a_timer_of_a_delay_in_an_earlier_life_does_not_let_it_wait_twice() -> None:
    world = World()
    world.step(world.task(delay=10, queue_timeout=0.001))
    world.scheduler.board.tasks[task_id(1)].terms = world.scheduler.board.terms.of(world.headers[task_id(1)])
    lifecycle.expire(world.scheduler.board, world.scheduler.board.tasks[task_id(1)], "now")
    world.step()
    world.headers[task_id(1)] = world.headers[task_id(1)].model_copy(update={"queue_timeout": None})
    world.step(world.requeue(1))
    world.step(after=11_000)
    (cls,) = [cls for cls in world.scheduler.board.fleet.classes.values() if cls.waiting]
    assert cls.waiting == 1


def test_poison_is_judged_anew() -> None:
    world = World()
    world.step(world.task(max_attempts=10))

    def kill(agent: str) -> None:
        world.step(world.sign_in(agent, lease=5))
        world.step(world.started(1))
        world.horizon(after=6_000)

    for agent in "abc":
        kill(agent)
    assert (world.status(1), world.run(1).reason) == (TaskStatus.FAILED, FailureReason.POISON)
    world.step(world.requeue(1))
    (past,) = world.run(1).requeues
    assert past.error is not None
    assert past.error.type == "Poison"
    kill("d")
    assert world.status(1) is TaskStatus.PENDING
    kill("e")
    kill("f")
    assert world.run(1).reason == FailureReason.POISON
    assert len(world.run(1).attempts) == 6


def test_who_had_watched_it_is_not_told_of_its_next_life_and_its_submitter_is() -> None:
    world = World()
    world.step(world.sign_in(), world.task(max_attempts=1, reply_to="submitter"), world.watch(1, "watcher"))
    world.step(world.failed(1))
    world.step(world.requeue(1))
    assert [one.client_id for one in world.step(world.ended(1)).answers] == ["submitter"]


def test_nothing_but_a_dead_letter_comes_to_life() -> None:
    for status in TaskStatus:
        world = World()
        world.step(world.task())
        task = world.scheduler.board.tasks[task_id(1)]
        task.status, task.line = status, None
        if status is TaskStatus.FAILED:
            lifecycle.revive(world.scheduler.board, task, "")
            assert task.status is TaskStatus.PENDING
        else:
            with pytest.raises(IllegalTransitionError):
                lifecycle.revive(world.scheduler.board, task, "")
