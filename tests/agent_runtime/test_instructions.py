"""Pause, resume, drain and restart in a worker: heeded once, confirmed at once, and taken back as long as possible."""

import asyncio
import time

import pytest

from agent_runtime import Agent, TaskContext, capability
from agent_runtime.process import ExitCode
from bus.messages import Heartbeat, Unregister
from bus.states import FailureReason
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader


class Waits(Agent):
    slots = 2

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @capability("echo")
    async def echo(self, task: int, ctx: TaskContext) -> int:
        await self.gate.wait()
        return task


async def heeded(leader: HandLeader, number: int) -> Heartbeat:
    """Wait until a heartbeat confirms an instruction, and return it."""
    await leader.wait_for(lambda: any(beat.obeys == number for beat in leader.heartbeats))
    return next(beat for beat in leader.heartbeats if beat.obeys == number)


async def test_each_instruction_is_confirmed_by_a_heartbeat_at_once(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    start_worker(Waits(), heartbeat_interval=60.0, lease=600.0)
    signed = await leader.welcome()
    began = time.monotonic()
    await leader.instruct(signed, "pause", number=7)
    beat = await heeded(leader, 7)
    assert (beat.paused, beat.draining) == (True, False)
    await leader.instruct(signed, "resume", number=8)
    assert not (await heeded(leader, 8)).paused
    assert time.monotonic() - began < 30


async def test_one_that_is_not_newer_than_the_last_is_left_out(leader: HandLeader, start_worker: StartWorker) -> None:
    running = start_worker(Waits())
    signed = await leader.welcome()
    await leader.instruct(signed, "resume", number=8)
    await leader.instruct(signed, "drain", number=7)  # read again from the beginning, or repeated by the leader
    await leader.instruct(signed, "pause", number=9)
    assert not (await heeded(leader, 9)).draining
    assert not running.task.done()


async def test_a_paused_agent_keeps_what_runs_and_does_what_it_is_given(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    """Who gets work is for the leader to say; an agent that refused it could hand one task back for ever."""
    agent = Waits()
    start_worker(agent)
    signed = await leader.welcome()
    first = await leader.assign(signed, "one", 1)
    await leader.wait_started(first)
    await leader.instruct(signed, "pause", number=1)
    await heeded(leader, 1)
    second = await leader.assign(signed, "two", 2)
    agent.gate.set()
    assert [(await leader.result(task)).output for task in (first, second)] == [1, 2]
    assert leader.returned == []


@pytest.mark.parametrize("kind", ["resume", "pause"])
async def test_a_drain_can_be_taken_back_while_something_runs(
    kind: str, leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Waits()
    running = start_worker(agent)
    signed = await leader.welcome()
    first = await leader.assign(signed, "one", 1)
    await leader.wait_started(first)
    await leader.instruct(signed, "drain", number=1)
    assert (await heeded(leader, 1)).draining
    refused = await leader.assign(signed, "two", 2)
    await leader.wait_for(lambda: refused in leader.returned)
    await leader.instruct(signed, kind, number=2)
    assert not (await heeded(leader, 2)).draining
    agent.gate.set()
    await leader.result(first)
    await leader.result(await leader.assign(signed, "three", 3))
    assert not running.task.done()


async def test_at_the_deadline_what_still_runs_is_given_up_and_the_session_ends(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    running = start_worker(Waits(), grace=60.0)
    signed = await leader.welcome()
    task = await leader.assign(signed, "one", 1)
    await leader.wait_started(task)
    await leader.instruct(signed, "drain", number=1, within=0.2)
    result = await leader.result(task)
    assert (result.reason, result.retryable) == (FailureReason.AGENT_LOST, True)
    assert await running.ended() is ExitCode.STOPPED
    await leader.read()
    assert isinstance(leader.registrations[-1], Unregister)


async def test_a_restart_with_a_deadline_waits_until_then_and_no_longer(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Waits()
    running = start_worker(agent, grace=0.0)
    signed = await leader.welcome()
    task = await leader.assign(signed, "one", 1)
    await leader.wait_started(task)
    await leader.instruct(signed, "restart", number=1, within=60.0)
    assert (await heeded(leader, 1)).draining
    agent.gate.set()
    assert (await leader.result(task)).output == 1
    assert await running.ended() is ExitCode.RESTART


async def test_the_latest_of_drain_and_restart_counts(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Waits()
    running = start_worker(agent)
    signed = await leader.welcome()
    await leader.wait_started(await leader.assign(signed, "one", 1))
    await leader.instruct(signed, "restart", number=1, within=60.0)
    await leader.instruct(signed, "drain", number=2)
    await heeded(leader, 2)
    agent.gate.set()
    assert await running.ended() is ExitCode.STOPPED


async def test_a_stop_is_not_taken_back(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Waits()
    running = start_worker(agent, grace=60.0)
    signed = await leader.welcome()
    await leader.wait_started(await leader.assign(signed, "one", 1))
    running.stop.set()
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].draining)
    await leader.instruct(signed, "resume", number=1)
    assert (await heeded(leader, 1)).draining
    agent.gate.set()
    assert await running.ended() is ExitCode.STOPPED
