"""A worker on a real server; the leader is played by hand."""

import asyncio
from collections.abc import Sequence

import pytest

from agent_runtime import AgentDefinitionError
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus.messages import Register
from bus.requirement_text import parse_clauses
from bus.states import FailureReason, TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader
from tests.agent_runtime.stage import Stage
from tests.support.waiting import eventually


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
