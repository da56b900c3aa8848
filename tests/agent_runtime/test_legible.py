"""Whatever a capability returns, raises or notes: the report that tells of it can be read."""

import asyncio
from typing import Any

import pytest
from pydantic_core import to_json

from agent_runtime import Agent, Reject, TaskContext, capability
from agent_runtime.legible import why_illegible, why_illegible_details
from agent_runtime.testing import AgentKit
from bus.errors import TaskFailedError
from bus.messages import Outcome, Reply, Report, TaskError, TaskResult
from bus.states import FailureReason, TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader


def _deep(levels: int) -> list[Any]:
    found: list[Any] = []
    for _ in range(levels - 1):
        found = [found]
    return found


class Stage(Agent):
    slots = 8

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @capability("deep")
    async def deep(self, task: int) -> Any:
        return _deep(task)

    @capability("long")
    async def long(self, task: int) -> Any:
        return int("7" * task) if task <= 4300 else 10 ** (task - 1)

    @capability("reject")
    async def reject(self, task: int) -> None:
        raise Reject("no", _deep(task))

    @capability("huge")
    async def huge(self, task: None) -> None:
        raise Reject("no", 10**5000)

    @capability("note")
    async def note(self, task: str, ctx: TaskContext) -> str:
        await ctx.progress(0.5, "half a pair: \ud800")
        await self.gate.wait()
        return task


async def test_an_output_that_cannot_be_read_fails_alone_and_is_not_tried_again(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    start_worker(Stage())
    signed = await leader.welcome()
    given = [("a", 3, "deep"), ("b", 220, "deep"), ("c", 5000, "long"), ("d", 220, "reject"), ("e", 4, "deep")]
    tasks = [await leader.assign(signed, name, payload, capability=kind) for name, payload, kind in given]
    tasks.append(await leader.assign(signed, "f", None, capability="huge"))
    await leader.wait_for(lambda: set(tasks) <= set(leader.results))
    good, deep, long, reject, also_good, huge = [leader.results[task] for task in tasks]
    assert (good.output, also_good.output) == (_deep(3), _deep(4))
    for bad, words in ((deep, "recursion limit"), (long, "number out of range")):
        assert (bad.status, bad.reason, bad.retryable) == (TaskStatus.FAILED, FailureReason.ERROR, False)
        assert bad.error is not None
        assert bad.error.type == "InvalidOutput"
        assert words in bad.error.message
    for rejected in (reject, huge):
        assert rejected.reason is FailureReason.REJECTED
        assert rejected.error is not None
        assert "left out" in str(rejected.error.details)


@pytest.mark.parametrize("levels", [1, 150, *range(190, 206), 254])
async def test_what_passes_at_the_limit_can_be_read_by_everybody(levels: int) -> None:
    async with AgentKit(Stage()) as kit:
        if levels > 198:
            with pytest.raises(TaskFailedError, match="InvalidOutput"):
                await kit.run("deep", levels)
            return
        output = await kit.run("deep", levels)
    result = TaskResult(task_id="p.t", attempt=1, status=TaskStatus.COMPLETED, output=output)
    Report.model_validate_json(Report(agent_id="a", session="s", results=(result,)).model_dump_json())
    told = Outcome(task_id="p.t", status=TaskStatus.COMPLETED, output=output)
    Reply.model_validate_json(Reply(outcomes=(told,)).model_dump_json())


@pytest.mark.parametrize("digits", [1, 3999, 4000, 4299, 4300, 4301, 5000])
async def test_integers_pass_as_long_as_they_can_be_read(digits: int) -> None:
    async with AgentKit(Stage()) as kit:
        if digits > 4300:
            with pytest.raises(TaskFailedError, match="InvalidOutput"):
                await kit.run("long", digits)
        else:
            assert await kit.run("long", digits) == int("7" * digits)


@pytest.mark.parametrize("levels", range(185, 205))
def test_details_are_one_level_deeper_than_outputs(levels: int) -> None:
    body = to_json(_deep(levels))
    error = TaskError.model_construct(type="t", details=_deep(levels))
    result = TaskResult.model_construct(task_id="p.t", attempt=1, status=TaskStatus.FAILED, error=error)
    report = to_json({"agent_id": "a", "session": "s", "results": [result]})
    try:
        Report.model_validate_json(report)
        legible = True
    except ValueError:
        legible = False
    assert (why_illegible_details(body) is None) is legible
    assert legible is (levels < 198)
    assert (why_illegible(body) is None) is (levels < 199)


async def test_a_note_of_half_a_surrogate_pair_ends_nothing(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Stage()
    running = start_worker(agent)
    signed = await leader.welcome()
    task = await leader.assign(signed, "a", "x", capability="note")
    await leader.wait_for(lambda: [update for report in leader.reports for update in report.updates if update.note])
    agent.gate.set()
    assert (await leader.result(task)).output == "x"
    assert not running.task.done()


async def test_notes_are_sent_as_text_that_can_be_encoded() -> None:
    agent = Stage()
    agent.gate.set()
    async with AgentKit(agent) as kit:
        await kit.run("note", "x")
        assert kit.progress[0].note == "half a pair: ?"
