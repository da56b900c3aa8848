"""Attempts that take turns in one asyncio task: what a method may rely on all the same."""

import asyncio
from collections import deque
from contextvars import ContextVar
from types import SimpleNamespace
from typing import Any

import pytest

from agent_runtime import Agent, capability
from agent_runtime.testing import AgentKit
from agent_runtime.turns import SPELL_S, Turns
from bus.errors import TaskFailedError, TaskTimeoutError
from tests.support.waiting import eventually

WORD: ContextVar[str] = ContextVar("word", default="none")


class Stage(Agent):
    def __init__(self) -> None:
        self.tasks: list[Any] = []
        self.gate = asyncio.Event()

    @capability("word")
    async def word(self, task: str) -> list[str]:
        before = WORD.get()
        WORD.set(task)
        if task == "waits":
            await asyncio.sleep(0)
        return [before, WORD.get()]

    @capability("timeout")
    async def timeout(self, task: float) -> str:
        mine = asyncio.current_task()
        self.tasks.append(mine)
        try:
            async with asyncio.timeout(task):
                await self.gate.wait()
        except TimeoutError:
            return "late" if asyncio.current_task() is mine else "in another task"
        return "in time"

    @capability("group")
    async def group(self, task: int) -> int:
        async with asyncio.TaskGroup() as group:
            parts = [group.create_task(asyncio.sleep(0, n)) for n in range(task)]
        return sum(part.result() for part in parts)

    @capability("cancel-me")
    async def cancel_me(self, task: None) -> None:
        current = asyncio.current_task()
        assert current is not None
        current.cancel()

    @capability("raise-cancelled")
    async def raise_cancelled(self, task: None) -> None:
        raise asyncio.CancelledError


async def test_no_attempt_sees_the_context_variables_of_another() -> None:
    async with AgentKit(Stage()) as kit:
        words = ["a", "waits", "b", "waits", "c"]
        assert await asyncio.gather(*(kit.run("word", word) for word in words)) == [["none", word] for word in words]


async def test_a_method_that_waits_has_one_task_of_its_own_from_its_first_line_to_its_last() -> None:
    agent = Stage()
    async with AgentKit(agent) as kit:
        found = await asyncio.gather(kit.run("word", "a"), kit.run("timeout", 0.01), kit.run("timeout", 0.02))
        assert list(found[1:]) == ["late", "late"]
        assert await kit.run("group", 3) == 3
    assert len(set(agent.tasks)) == 2


async def test_a_method_that_cancels_its_own_task_harms_no_other() -> None:
    async with AgentKit(Stage()) as kit:
        names = [("cancel-me", None), ("group", 3), ("raise-cancelled", None), ("group", 2)]
        work = [kit.run(name, given) for name, given in names]
        own, after_own, raised, after_raised = await asyncio.gather(*work, return_exceptions=True)
        assert own is None
        assert isinstance(raised, TaskFailedError)
        assert (after_own, after_raised) == (3, 1)


async def test_code_that_waits_is_stopped_by_its_run_timeout_and_nothing_else_is() -> None:
    async with AgentKit(Stage()) as kit:
        stopped = asyncio.create_task(kit.run("timeout", 10.0, run_timeout=0.02))
        assert await kit.run("timeout", 0.05) == "late"
        with pytest.raises(TaskTimeoutError):
            await stopped


async def test_a_turn_ends_after_a_while_so_that_the_event_loop_goes_on() -> None:
    seen: list[str] = []
    loop = asyncio.get_running_loop()

    async def blocks(_: object) -> None:
        loop.call_soon(seen.append, "other")
        until = loop.time() + 2 * SPELL_S
        while loop.time() <= until:
            pass
        seen.append("attempt")

    attempts: deque[Any] = deque(SimpleNamespace(run=blocks) for _ in range(2))
    turns = Turns(
        ready=lambda: bool(attempts), following=lambda: attempts.popleft() if attempts else None, waits=lambda _: None
    )
    turns.wake()
    await eventually(lambda: len(seen) == 4)
    assert seen == ["attempt", "other", "attempt", "other"]
