"""A worker that stops: superseded, drained, restarted, told to by its process."""

import time

from agent_runtime.process import ExitCode
from bus.messages import Unregister
from bus.states import FailureReason, TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader
from tests.agent_runtime.stage import Stage
from tests.support.waiting import eventually


async def test_a_superseded_agent_stops_without_a_word(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    running = start_worker(agent)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="wait")
    await leader.wait_started(task_id)
    await leader.supersede(signed)
    assert await running.ended() is ExitCode.SUPERSEDED
    await leader.read()
    assert not any(isinstance(message, Unregister) for message in leader.registrations)
    assert agent.happened == ["start", "stop"]


async def test_a_superseded_agent_hands_back_what_has_not_begun_and_says_what_has_ended(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    running = start_worker(Stage(), slots=1)
    signed = await leader.welcome()
    runs = await leader.assign(signed, "a", {"text": "a"}, capability="wait")
    await leader.wait_started(runs)
    waits = await leader.assign(signed, "b", {"text": "b"}, capability="wait")
    await leader.wait_for(lambda: leader.heartbeats and len(leader.heartbeats[-1].holding) == 2)
    await leader.supersede(signed, quiet_ms=300)
    assert await running.ended() is ExitCode.SUPERSEDED
    await leader.read()
    assert waits in leader.returned
    assert leader.results[runs].reason == "agent_lost"


async def test_stop_hands_back_what_has_not_begun_and_finishes_the_rest(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    running = start_worker(agent, slots=1)
    signed = await leader.welcome()
    first = await leader.assign(signed, "a", {"text": "a"}, capability="wait")
    await leader.wait_started(first)
    second = await leader.assign(signed, "b", {"text": "b"}, capability="wait")
    await leader.wait_for(lambda: leader.heartbeats and len(leader.heartbeats[-1].holding) == 2)
    running.stop.set()
    await leader.wait_for(lambda: second in leader.returned)
    late = await leader.assign(signed, "c", {"text": "c"}, capability="wait")
    await leader.wait_for(lambda: late in leader.returned)
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].draining)
    agent.gate.set()
    assert (await leader.result(first)).output == "a"
    assert await running.ended() is ExitCode.STOPPED
    await leader.read()
    assert isinstance(leader.registrations[-1], Unregister)
    assert agent.happened == ["start", "stop"]
    assert agent.entered == ["a"]


async def test_what_does_not_end_within_the_grace_is_cancelled_and_may_be_tried_elsewhere(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    running = start_worker(Stage(), grace=0.05)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "a", {"text": "a"}, capability="wait")
    await leader.wait_started(task_id)
    running.stop.set()
    result = await leader.result(task_id)
    assert (result.status, result.reason, result.retryable) == (TaskStatus.FAILED, FailureReason.AGENT_LOST, True)
    assert await running.ended() is ExitCode.STOPPED


async def test_drain_waits_for_running_tasks_however_long(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    running = start_worker(agent, grace=0.0)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "a", {"text": "a"}, capability="wait")
    await leader.wait_started(task_id)
    await leader.instruct(signed, "drain")
    await leader.wait_for(lambda: sum(beat.draining for beat in leader.heartbeats) > 2)
    agent.gate.set()
    assert (await leader.result(task_id)).output == "a"
    assert await running.ended() is ExitCode.STOPPED


async def test_restart_ends_with_its_own_exit_code(leader: HandLeader, start_worker: StartWorker) -> None:
    running = start_worker(Stage())
    signed = await leader.welcome()
    await leader.instruct(signed, "restart")
    assert await running.ended() is ExitCode.RESTART


async def test_an_agent_without_a_server_can_be_stopped(start_worker: StartWorker) -> None:
    agent = Stage()
    running = start_worker(agent, redis_url="redis://127.0.0.1:1/0")
    await eventually(lambda: agent.happened == ["start"])
    began = time.monotonic()
    running.stop.set()
    assert await running.ended() is ExitCode.STOPPED
    assert time.monotonic() - began < 5
