"""The border to the user's code: whatever is raised there ends the attempt, and nothing else."""

import asyncio
from typing import Annotated, Any

import pytest
from pydantic import AfterValidator, PlainSerializer

from agent_runtime import Agent, Reject, capability
from agent_runtime.testing import AgentKit
from bus.errors import TaskFailedError
from bus.states import TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader


class StopAllError(BaseException):
    """As some libraries derive theirs, so that `except Exception` does not catch them."""


class MuteError(Exception):
    def __str__(self) -> str:
        raise StopAllError

    def __repr__(self) -> str:
        raise StopAllError


class Unreadable:
    def __repr__(self) -> str:
        raise RuntimeError("no text")


_ERRORS: dict[str, type[BaseException]] = {
    "own": StopAllError,
    "mute": MuteError,
    "interrupt": KeyboardInterrupt,
    "exit": SystemExit,
    "generator": GeneratorExit,
    "iteration": StopIteration,
    "cancelled": asyncio.CancelledError,
}


def _stop(_: Any) -> Any:
    raise StopAllError("in the middle")


class Stage(Agent):
    slots = 1

    @capability("echo")
    async def echo(self, task: str) -> str:
        return task

    @capability("coroutine")
    async def coroutine(self, task: str) -> None:
        raise _ERRORS[task]

    @capability("thread")
    def thread(self, task: str) -> None:
        raise _ERRORS[task]

    @capability("input")
    async def bad_input(self, task: Annotated[str, AfterValidator(_stop)]) -> None:
        return None

    @capability("output")
    async def bad_output(self, task: str) -> Annotated[str, PlainSerializer(_stop)]:
        return task

    @capability("reject")
    async def reject(self, task: str) -> None:
        raise Reject(task, Unreadable())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [*_ERRORS])
@pytest.mark.parametrize("where", ["coroutine", "thread"])
async def test_any_exception_ends_its_attempt_and_frees_the_slot(
    where: str, kind: str, leader: HandLeader, start_worker: StartWorker
) -> None:
    running = start_worker(Stage())
    signed = await leader.welcome()
    bad = await leader.result(await leader.assign(signed, "a", kind, capability=where))
    assert bad.status is TaskStatus.FAILED
    assert bad.error is not None
    name = _ERRORS[kind].__name__
    assert bad.error.type.endswith(name) or (bad.error.type, name in bad.error.message) == ("RuntimeError", True)
    assert (await leader.result(await leader.assign(signed, "b", "x"))).output == "x"
    assert not running.task.done()


@pytest.mark.parametrize("where", ["input", "output"])
async def test_validators_and_serializers_are_the_users_code_too(where: str) -> None:
    async with AgentKit(Stage()) as kit:
        with pytest.raises(TaskFailedError, match="StopAllError: in the middle"):
            await kit.run(where, "x")
        assert await kit.run("echo", "still there") == "still there"


async def test_details_that_cannot_even_be_shown_end_nothing() -> None:
    async with AgentKit(Stage()) as kit:
        with pytest.raises(TaskFailedError, match="Reject: x") as caught:
            await kit.run("reject", "x")
    assert caught.value.error is not None
    assert "cannot be shown" in str(caught.value.error.details)
