"""Attempts that are told to stop, run out of time, or were over before they began."""

from bus.messages import Register
from bus.states import FailureReason, TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader
from tests.agent_runtime.stage import Stage


async def begun(leader: HandLeader, start_worker: StartWorker, capability: str) -> tuple[Stage, Register, str]:
    """Have a worker begin a task; return its agent, its registration and the task's id."""
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability=capability)
    await leader.wait_started(task_id)
    return agent, signed, task_id


async def test_a_cancel_stops_a_running_attempt(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="wait")
    await leader.wait_started(task_id)
    await leader.cancel(signed, task_id)
    assert (await leader.result(task_id)).status is TaskStatus.CANCELLED


async def test_a_cancelled_attempt_that_has_not_begun_is_dropped(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    start_worker(agent, slots=1)
    signed = await leader.welcome()
    first = await leader.assign(signed, "a", {"text": "a"}, capability="wait")
    await leader.wait_started(first)
    second = await leader.assign(signed, "b", {"text": "b"}, capability="wait")
    third = await leader.assign(signed, "c", {"text": "c"}, capability="wait")
    await leader.cancel(signed, second)
    await leader.wait_for(lambda: leader.heartbeats and set(dict(leader.heartbeats[-1].holding)) == {first, third})
    agent.gate.set()
    await leader.result(third)
    assert agent.entered == ["a", "c"]


async def test_what_is_cancelled_says_how_far_that_is_and_may_clean_up_within_its_grace(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent, signed, task_id = await begun(leader, start_worker, "clean")
    await leader.cancel(signed, task_id, confirm=True, grace=30)
    await leader.wait_for(lambda: "acknowledged" in leader.cancels(task_id))
    assert task_id not in leader.results, "it still cleans up"
    agent.gate.set()
    result = await leader.result(task_id)
    assert (result.status, result.abandoned) == (TaskStatus.CANCELLED, False)


async def test_a_thread_acknowledges_when_it_has_asked(leader: HandLeader, start_worker: StartWorker) -> None:
    agent, signed, task_id = await begun(leader, start_worker, "thread")
    await leader.cancel(signed, task_id, confirm=True, grace=30)
    await leader.wait_for(lambda: leader.cancels(task_id) == ["delivered"])
    agent.thread_gate.set()
    result = await leader.result(task_id)
    assert (result.status, result.abandoned) == (TaskStatus.CANCELLED, False)


async def test_code_that_does_not_stop_within_the_grace_is_reported_without_it(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    _, signed, task_id = await begun(leader, start_worker, "thread")
    await leader.cancel(signed, task_id, confirm=True, grace=0.1)
    result = await leader.result(task_id)
    assert (result.status, result.abandoned) == (TaskStatus.CANCELLED, True)
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].occupied == 1)


async def test_what_has_not_begun_is_reported_as_cancelled_and_never_begins(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    start_worker(agent, slots=1)
    signed = await leader.welcome()
    first = await leader.assign(signed, "a", {"text": "a"}, capability="wait")
    await leader.wait_started(first)
    second = await leader.assign(signed, "b", {"text": "b"}, capability="wait")
    await leader.cancel(signed, second, confirm=True)
    assert (await leader.result(second)).status is TaskStatus.CANCELLED
    agent.gate.set()
    await leader.result(first)
    assert agent.entered == ["a"]


async def test_run_timeout_ends_an_attempt_as_timeout(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="wait", run_timeout=0.05)
    result = await leader.result(task_id)
    assert result.status is TaskStatus.FAILED
    assert result.reason is FailureReason.TIMEOUT


async def test_a_thread_that_goes_on_keeps_its_slot_and_its_late_result_is_dropped(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    start_worker(agent, slots=1)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="thread", run_timeout=0.05)
    assert (await leader.result(task_id)).reason is FailureReason.TIMEOUT
    after = await leader.assign(signed, "u", {"text": "abc"})
    await leader.wait_for(lambda: leader.heartbeats and after in dict(leader.heartbeats[-1].holding))
    assert after not in leader.results
    agent.thread_gate.set()
    assert (await leader.result(after)).output == {"length": 3}
    assert [r.task_id for report in leader.reports for r in report.results] == [task_id, after]


async def test_a_cancel_that_is_read_together_with_its_assignment_is_heeded(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    running = start_worker(Stage(), slots=1)
    signed = await leader.welcome()
    await running.worker.ready.wait()
    entry = {"v": 1, "session": signed.session, "task_id": f"{leader.names.pool}.a", "attempt": 1}
    task = {"capability": "wait", "payload": {"text": "a"}}
    running.worker._slots.receive([{**entry, "score": 0, "task": task}])
    running.worker._instructed({**entry, "type": "cancel", "confirm": True})
    result = await leader.result(f"{leader.names.pool}.a")
    assert result.status is TaskStatus.CANCELLED
    after = await leader.assign(signed, "b", {"text": "abc"})
    assert (await leader.result(after)).output == {"length": 3}


async def test_a_run_timeout_of_nothing_frees_its_slot(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage(), slots=1)
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", {"text": "a"}, capability="wait", run_timeout=0)
    assert (await leader.result(task)).reason is FailureReason.TIMEOUT
    assert (await leader.result(await leader.assign(signed, "b", {"text": "abc"}))).output == {"length": 3}


async def test_a_slot_whose_code_does_not_stop_is_told_at_once_and_told_when_it_is_free(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    start_worker(agent, heartbeat_interval=60, lease=600)  # every beat but the first is one out of turn
    signed = await leader.welcome()
    task = await leader.assign(signed, "t", {"text": "x"}, capability="thread", run_timeout=0.05)
    assert (await leader.result(task)).reason is FailureReason.TIMEOUT
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].occupied == 1)
    agent.thread_gate.set()
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].occupied == 0)
    assert [beat.occupied for beat in leader.heartbeats] == [0, 1, 0]


async def test_code_that_stops_when_told_occupies_nothing(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    task = await leader.assign(signed, "t", {"text": "x"}, capability="wait", run_timeout=0.05)
    assert (await leader.result(task)).reason is FailureReason.TIMEOUT
    seen = len(leader.heartbeats)
    await leader.wait_for(lambda: len(leader.heartbeats) > seen + 2)
    assert {beat.occupied for beat in leader.heartbeats} == {0}


async def test_an_attempt_that_was_handed_back_never_times_out(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    running = start_worker(agent, lease=60.0)
    signed = await leader.welcome()
    await leader.wait_for(lambda: leader.heartbeats)  # the lease was looked at, too, and is not again for a minute
    running.worker._slots.lease_in_doubt = True
    entry = {"v": 1, "session": signed.session, "attempt": 1, "score": 0}
    names = [f"{leader.names.pool}.{name}" for name in ("alone", "thread")]
    running.worker._slots.receive(
        {**entry, "task_id": name, "task": {"capability": kind, "payload": {"text": kind}, "run_timeout": 0.02}}
        for name, kind in zip(names, ("alone", "thread"), strict=True)
    )
    # The thread does not stop, so that its timeout is told as late as one of what has not begun would be, or later.
    assert (await leader.result(names[1])).reason is FailureReason.TIMEOUT
    assert leader.returned == [names[0]]
    assert set(leader.results) == {names[1]}
    assert agent.entered == ["thread"]
