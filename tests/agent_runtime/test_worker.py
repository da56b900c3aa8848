"""A worker on a real server; the leader is played by hand."""

import asyncio
import time
from collections.abc import Sequence
from threading import Event as ThreadEvent

import pytest
from pydantic import BaseModel

from agent_runtime import Agent, AgentDefinitionError, TaskContext, capability
from agent_runtime.process import ExitCode
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus.messages import Register, Unregister
from bus.requirement_text import parse_clauses
from bus.states import FailureReason, TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader
from tests.support.waiting import eventually


class Text(BaseModel):
    text: str


class Length(BaseModel):
    length: int


class Stage(Agent):
    """Has a capability for each thing a test needs."""

    slots = 2

    def __init__(self) -> None:
        self.entered: list[str] = []
        self.gate = asyncio.Event()
        self.thread_gate = ThreadEvent()
        self.happened: list[str] = []

    async def on_start(self) -> None:
        self.happened.append("start")

    async def on_stop(self) -> None:
        self.happened.append("stop")
        self.thread_gate.set()

    @capability("echo", version="1.2", languages=["en"])
    async def echo(self, task: Text) -> Length:
        return Length(length=len(task.text))

    @capability("wait")
    async def wait(self, task: Text, ctx: TaskContext) -> str:
        self.entered.append(task.text)
        await ctx.progress(0.5, "half way")
        await self.gate.wait()
        return task.text

    @capability("clean")
    async def clean(self, task: Text) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await self.gate.wait()

    @capability("alone", exclusive=True)
    async def alone(self, task: Text) -> str:
        self.entered.append(task.text)
        return task.text

    @capability("versions", version="1.0", languages=["de"])
    async def one(self, task: None) -> str:
        return "one"

    @capability("versions", version="2.0", languages=["en"])
    async def two(self, task: None) -> str:
        return "two"

    @capability("thread")
    def thread(self, task: Text, ctx: TaskContext) -> bool:
        self.entered.append(task.text)
        self.thread_gate.wait(10)
        return ctx.cancelled


async def test_an_agent_signs_in_with_its_capabilities_and_their_schemas(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    running = start_worker(Stage())
    signed = await leader.welcome()
    async with asyncio.timeout(30):
        await running.worker.ready.wait()
    assert signed.agent_id == "a1"
    assert signed.slots == 2
    echo = next(spec for spec in signed.capabilities if spec.name == "echo")
    assert echo.version == "1.2"
    assert echo.attributes == {"languages": ["en"]}
    assert echo.input_schema is not None
    assert set(echo.input_schema["properties"]) == {"text"}
    assert echo.output_schema is not None
    assert set(echo.output_schema["properties"]) == {"length"}


async def test_a_task_is_run_and_its_result_is_one_message(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "abc"})
    result = await leader.result(task_id)
    assert result.status is TaskStatus.COMPLETED
    assert result.output == {"length": 3}
    assert leader.started == set()
    assert len(leader.reports) == 1


async def test_a_bad_payload_is_rejected_with_the_errors(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    result = await leader.result(await leader.assign(signed, "t", {"txt": 1}))
    assert result.status is TaskStatus.FAILED
    assert result.reason is FailureReason.REJECTED
    assert not result.retryable
    assert result.error is not None
    assert isinstance(result.error.details, list)
    assert result.error.details[0] == {"type": "missing", "loc": ["text"], "msg": "Field required"}


async def test_no_more_run_than_there_are_slots_and_the_lowest_score_goes_first(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    for name, score in (("a", 1), ("b", 2)):
        await leader.assign(signed, name, {"text": name}, capability="wait", score=score)
    await eventually(lambda: len(agent.entered) == 2)
    for name, score in (("late", 9), ("urgent", -5)):
        await leader.assign(signed, name, {"text": name}, capability="wait", score=score)
    last = f"{leader.names.pool}.late"
    await leader.wait_for(lambda: leader.heartbeats and last in dict(leader.heartbeats[-1].holding))
    assert agent.entered == ["a", "b"]
    agent.gate.set()
    await leader.result(last)
    assert agent.entered == ["a", "b", "urgent", "late"]


async def test_progress_is_reported_while_a_task_runs(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="wait")
    await leader.wait_started(task_id)
    update = next(u for report in leader.reports for u in report.updates)
    assert (update.progress, update.note) == (0.5, "half way")
    assert update.started_at is not None
    agent.gate.set()
    assert (await leader.result(task_id)).output == "x"


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
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="clean")
    await leader.wait_started(task_id)
    await leader.cancel(signed, task_id, confirm=True, grace=30)
    await leader.wait_for(lambda: "acknowledged" in leader.cancels(task_id))
    assert task_id not in leader.results, "it still cleans up"
    agent.gate.set()
    result = await leader.result(task_id)
    assert (result.status, result.abandoned) == (TaskStatus.CANCELLED, False)


async def test_a_thread_acknowledges_when_it_has_asked(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="thread")
    await leader.wait_started(task_id)
    await leader.cancel(signed, task_id, confirm=True, grace=30)
    await leader.wait_for(lambda: leader.cancels(task_id) == ["delivered"])
    agent.thread_gate.set()
    result = await leader.result(task_id)
    assert (result.status, result.abandoned) == (TaskStatus.CANCELLED, False)


async def test_code_that_does_not_stop_within_the_grace_is_reported_without_it(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    task_id = await leader.assign(signed, "t", {"text": "x"}, capability="thread")
    await leader.wait_started(task_id)
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


async def test_heartbeats_list_what_is_held_and_the_cursor(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    start_worker(agent, slots=1)
    signed = await leader.welcome()
    tasks = [await leader.assign(signed, n, {"text": n}, capability="wait") for n in ("a", "b")]
    await leader.wait_for(lambda: leader.heartbeats and len(leader.heartbeats[-1].holding) == 2)
    assert {task for task, _ in leader.heartbeats[-1].holding} == set(tasks)
    assert leader.heartbeats[-1].inbox != "0-0"
    agent.gate.set()
    await leader.wait_for(lambda: leader.heartbeats and not leader.heartbeats[-1].holding)


async def test_entries_of_other_sessions_are_not_run(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    start_worker(agent)
    signed = await leader.welcome()
    await leader.assign(signed, "old", {"text": "x"}, capability="wait", session="earlier")
    mine = await leader.assign(signed, "new", {"text": "abc"})
    await leader.result(mine)
    assert agent.entered == []


async def test_a_registration_that_is_not_answered_is_sent_again(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage())
    await leader.wait_for(lambda: len(leader.registrations) == 2)
    first, second = leader.registrations
    assert isinstance(first, Register)
    assert first == second


async def test_an_agent_that_was_forgotten_signs_in_again_with_the_same_session(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    await leader.forget(signed)
    again = await leader.welcome(count=2)
    assert again.session == signed.session
    assert (await leader.result(await leader.assign(again, "t", {"text": "abc"}))).output == {"length": 3}


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


async def test_an_agent_says_which_tasks_it_accepts(leader: HandLeader, start_worker: StartWorker) -> None:
    class Choosy(Stage):
        accepts = "fairness_key != batch, priority >= HIGH"

    start_worker(Choosy())
    assert (await leader.welcome()).accepts == parse_clauses("fairness_key != batch, priority >= HIGH")


def test_what_an_agent_accepts_may_be_set_later_and_is_checked_then() -> None:
    agent = Stage()
    agent.accepts = "region == eu"  # type: ignore[misc]
    with pytest.raises(AgentDefinitionError, match="a task has no 'region'"):
        Worker(agent, AgentSettings())


@pytest.mark.parametrize(("field", "value"), [("slots", 0), ("agent_id", "no spaces"), ("attributes", {"x": object()})])
def test_an_agent_that_cannot_be_registered_is_refused_at_once(field: str, value: object) -> None:
    agent = Stage()
    setattr(agent, field, value)
    with pytest.raises(AgentDefinitionError, match=f"Stage: its {field}.* cannot be registered"):
        Worker(agent, AgentSettings())


class Notes:
    """An observer that writes down what it is told."""

    def __init__(self) -> None:
        self.notes: list[tuple[object, ...]] = []

    def started(self, capability: str, count: int) -> None:
        assert count > 0
        self.notes.append(("started", capability))

    def finished(self, capability: str, status: str, reason: str, seconds: Sequence[float]) -> None:
        assert min(seconds) >= 0
        self.notes.append(("finished", capability, status, reason))

    def slots(self, used: int, total: int) -> None:
        self.notes.append(("slots", used, total))

    def heartbeat(self, ok: bool) -> None:
        self.notes.append(("heartbeat", ok))

    def reports(self, count: int, seconds: float) -> None:
        assert seconds > 0
        self.notes.append(("reports", count))

    def loop_lag(self, seconds: float) -> None:
        assert seconds >= 0

    def connected(self, ok: bool) -> None:
        self.notes.append(("connected", ok))


async def test_an_observer_is_told_what_happens(leader: HandLeader, start_worker: StartWorker) -> None:
    watcher = Notes()
    start_worker(Stage(), watcher)
    signed = await leader.welcome()
    await leader.result(await leader.assign(signed, "a", {"text": "abc"}))
    await leader.result(await leader.assign(signed, "b", None))
    await leader.wait_for(lambda: leader.heartbeats)
    told = {
        ("connected", True),
        ("started", "echo"),
        ("finished", "echo", "COMPLETED", ""),
        ("finished", "echo", "FAILED", "rejected"),
        ("slots", 0, 2),
        ("reports", 1),
        ("heartbeat", True),
    }
    await eventually(lambda: told <= set(watcher.notes))


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


async def test_the_version_that_was_matched_is_run_and_no_other(leader: HandLeader, start_worker: StartWorker) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    for name, matched, said in (("a", "1.0", "one"), ("b", "2.0", "two"), ("c", None, "two")):
        task = await leader.assign(signed, name, capability="versions", matched=matched)
        assert (await leader.result(task)).output == said
    wrong = await leader.result(await leader.assign(signed, "d", capability="versions", matched="3.0"))
    assert wrong.error is not None
    assert (wrong.error.type, wrong.retryable) == ("UnknownCapability", True)
    assert "versions 3.0" in wrong.error.message


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


async def test_a_refusal_of_the_server_is_told_as_an_error(
    leader: HandLeader, start_worker: StartWorker, caplog: pytest.LogCaptureFixture
) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    await leader.redis.set(leader.names.results, "of a wrong type")
    task = await leader.assign(signed, "a", {"text": "abc"})
    await eventually(lambda: "WRONGTYPE" in caplog.text)
    [told] = [record for record in caplog.records if "WRONGTYPE" in record.message]
    assert told.levelname == "ERROR"
    await leader.redis.delete(leader.names.results)
    assert (await leader.result(task)).output == {"length": 3}
