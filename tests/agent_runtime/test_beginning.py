"""When an attempt may begin: announced, read of, still this agent's, not recalled."""

import pytest

from bus.states import FailureReason, TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader
from tests.agent_runtime.stage import Stage


async def test_a_repeated_attempt_is_announced_before_it_is_begun(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    start_worker(Stage(), slots=1)
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", {"text": "abc"}, attempt=2)
    assert (await leader.result(task)).output == {"length": 3}
    assert [len(report.updates) for report in leader.reports] == [1, 0]
    other = await leader.assign(signed, "b", {"text": "abc"}, attempt=2, capability="wait", run_timeout=0)
    assert (await leader.result(other)).reason is FailureReason.TIMEOUT
    assert (await leader.result(await leader.assign(signed, "c", {"text": "abc"}))).output == {"length": 3}


@pytest.mark.parametrize(
    ("state", "begun"),
    [
        ("RUNNING/1/a1/{session}", True),
        ("ASSIGNED/2/a2/other", False),
        ("PENDING/1//", False),
        ("COMPLETED/2/a2/other", False),
        ("ASSIGNED/1/a1/other", False),
    ],
)
async def test_a_task_that_may_be_tried_once_is_not_begun_when_it_was_given_to_another_meanwhile(
    leader: HandLeader, start_worker: StartWorker, state: str, begun: bool
) -> None:
    agent = Stage()
    start_worker(agent, slots=1)
    signed = await leader.welcome()
    task_id = f"{leader.names.pool}.a"
    await leader.redis.hset(leader.names.task(task_id), "state", state.format(session=signed.session))
    task = await leader.assign(signed, "a", {"text": "abc"}, max_attempts=1)
    assert task == task_id
    result = await leader.result(task)
    assert result.status is (TaskStatus.COMPLETED if begun else TaskStatus.FAILED)
    assert begun or (result.reason is FailureReason.AGENT_LOST)
    await leader.redis.delete(leader.names.task(task_id))


@pytest.mark.parametrize(("then", "begun"), [("RUNNING/1/a1/{session}", True), ("PENDING/1//", False)])
async def test_a_task_that_may_be_tried_once_is_begun_only_when_the_leader_has_read_that_it_begins(
    leader: HandLeader, start_worker: StartWorker, then: str, begun: bool
) -> None:
    agent = Stage()
    start_worker(agent, slots=1)
    signed = await leader.welcome()
    record = leader.names.task(f"{leader.names.pool}.a")
    await leader.redis.hset(record, "state", f"ASSIGNED/1/a1/{signed.session}")
    task = await leader.assign(signed, "a", {"text": "abc"}, max_attempts=1)
    # It is said again, lest it was lost; meanwhile the leader has decided, and stores it only now.
    await leader.wait_for(lambda: len([report for report in leader.reports if report.updates]) == 2)
    assert not [report for report in leader.reports if report.results]
    await leader.redis.hset(record, "state", then.format(session=signed.session))
    result = await leader.result(task)
    assert result.status is (TaskStatus.COMPLETED if begun else TaskStatus.FAILED)
    assert begun or (result.reason is FailureReason.AGENT_LOST)
    await leader.redis.delete(record)


async def test_exclusive_work_is_not_begun_when_it_was_given_to_another_meanwhile(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    task_id = f"{leader.names.pool}.a"
    await leader.redis.hset(leader.names.task(task_id), "state", "RUNNING/2/a2/other")
    await leader.assign(signed, "a", {"text": "a"}, capability="alone")
    result = await leader.result(task_id)
    assert (result.status, result.reason) == (TaskStatus.FAILED, FailureReason.AGENT_LOST)
    assert agent.entered == []
    await leader.redis.delete(leader.names.task(task_id))


async def test_a_recalled_attempt_goes_back_once_if_it_has_not_begun_and_only_then(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    start_worker(agent, slots=1)
    signed = await leader.welcome()
    first = await leader.assign(signed, "a", {"text": "a"}, capability="wait")
    await leader.wait_started(first)
    second = await leader.assign(signed, "b", {"text": "b"}, capability="wait")
    third = await leader.assign(signed, "c", {"text": "c"}, capability="wait")
    await leader.wait_for(lambda: leader.heartbeats and len(leader.heartbeats[-1].holding) == 3)
    for task in (first, second, second, f"{leader.names.pool}.unknown"):
        await leader.recall(signed, task)
    await leader.wait_for(lambda: leader.returned)
    await leader.wait_for(lambda: leader.heartbeats and set(dict(leader.heartbeats[-1].holding)) == {first, third})
    await leader.recall(signed, second)
    agent.gate.set()
    await leader.result(third)
    assert (await leader.result(first)).output == "a"
    assert leader.returned == [second]
    assert agent.entered == ["a", "c"]


@pytest.mark.parametrize("used", [0, 1])
async def test_a_recall_in_the_very_step_of_its_assignment_finds_it_not_begun(
    used: int, leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    running = start_worker(agent, slots=1)
    signed = await leader.welcome()
    await running.worker.ready.wait()
    names = [f"{leader.names.pool}.{name}" for name in ("a", "b")][: used + 1]
    for name in names:
        entry = {"v": 1, "session": signed.session, "task_id": name, "attempt": 1}
        task = {"capability": "wait", "payload": {"text": name}}
        running.worker._slots.receive([{**entry, "score": 0, "task": task}])
    running.worker._instructed({**entry, "type": "recall"})
    agent.gate.set()
    await leader.wait_for(lambda: leader.returned and len(leader.results) == used)
    await running.worker._reporter.wait_until_idle()
    await leader.read()
    assert leader.returned == names[used:]
    assert agent.entered == names[:used]
    assert set(leader.results) == set(names[:used])
