"""Testing an agent whose tasks have children: the test writes down what these return."""

import asyncio

import pytest

from agent_runtime import Agent, Reject, TaskContext, capability
from agent_runtime.testing import AgentKit, Child
from bus.errors import SubmissionError, TaskCancelledError, TaskFailedError
from bus.records import TaskCreate
from bus.states import TaskPriority


class Editor(Agent):
    @capability("edit")
    async def edit(self, text: str, ctx: TaskContext) -> str:
        return str(await ctx.call("translate", {"text": text}, release_slot=True, priority=TaskPriority.HIGH))

    @capability("translate")
    async def translate(self, task: dict[str, str]) -> str:
        return task["text"]

    @capability("typed")
    async def typed(self, text: str, ctx: TaskContext) -> int:
        return len(await ctx.call(Editor.translate, {"text": text}))

    @capability("many")
    async def many(self, number: int, ctx: TaskContext) -> list[int]:
        handles = await ctx.submit_many(TaskCreate(capability="double", payload=n) for n in range(number))
        async with ctx.without_slot():
            return sorted([await handle.result() async for handle in ctx.as_completed(handles)])

    @capability("plain")
    def plain(self, text: str, ctx: TaskContext) -> str:
        return str(ctx.wait(ctx.call("translate", text)))

    @capability("wrong")
    async def wrong(self, text: str, ctx: TaskContext) -> str:
        return str(ctx.wait(ctx.call("translate", text)))

    @capability("stop")
    async def stop(self, text: str, ctx: TaskContext) -> str:
        handle = await ctx.submit("translate", text)
        await handle.cancel()
        return str(await handle.result())


async def test_a_child_returns_what_the_test_says() -> None:
    async with AgentKit(Editor(), children={"translate": "hallo"}) as kit:
        assert await kit.run("edit", "hello") == "hallo"
    (child,) = kit.children
    assert isinstance(child, Child)
    assert (child.capability, child.payload, child.options) == ("translate", {"text": "hello"}, {"priority": "HIGH"})


async def test_a_child_may_be_a_function_of_its_payload() -> None:
    async def double(number: int) -> int:
        await asyncio.sleep(0)
        return 2 * number

    async with AgentKit(Editor(), children={"double": double, "translate": lambda task: task["text"] * 2}) as kit:
        assert await kit.run("many", 4) == [0, 2, 4, 6]
        assert await kit.run(Editor.typed, "ab") == 4


async def test_a_child_fails_as_the_function_raises() -> None:
    def refuse(_: object) -> None:
        raise Reject("no such language")

    async with AgentKit(Editor(), children={"translate": refuse}) as kit:
        with pytest.raises(TaskFailedError, match="no such language"):
            await kit.run("edit", "hello")


async def test_a_child_without_an_answer_is_said_with_its_remedy() -> None:
    async with AgentKit(Editor()) as kit:
        with pytest.raises(TaskFailedError, match=r"no answer for a child 'translate': write AgentKit\("):
            await kit.run("edit", "hello")


async def test_a_plain_def_waits_by_the_loop_and_an_async_one_is_told_to_await() -> None:
    async with AgentKit(Editor(), children={"translate": "hallo"}) as kit:
        assert await kit.run("plain", "hello") == "hallo"
        with pytest.raises(TaskFailedError, match="in an `async def` write `await` instead"):
            await kit.run("wrong", "hello")


async def test_a_child_can_be_cancelled() -> None:
    async def never(_: object) -> None:
        await asyncio.Event().wait()

    async with AgentKit(Editor(), children={"translate": never}) as kit:
        with pytest.raises(TaskFailedError, match="TaskCancelledError"):
            await kit.run("stop", "hello")


async def test_a_wrong_child_is_refused_as_on_the_bus() -> None:
    class Odd(Agent):
        @capability("odd")
        async def odd(self, task: None, ctx: TaskContext) -> str:
            with pytest.raises(SubmissionError, match="max_attempts"):
                await ctx.submit("translate", max_attempts=0)
            return "refused"

    async with AgentKit(Odd(), children={"translate": 1}) as kit:
        assert await kit.run("odd") == "refused"


async def test_cancelling_the_task_cancels_a_call() -> None:
    begun = asyncio.Event()

    async def never(_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    async with AgentKit(Editor(), children={"translate": never}) as kit:
        running = asyncio.create_task(kit.run("edit", "x"))
        await begun.wait()
        kit.cancel()
        with pytest.raises(TaskCancelledError):
            await running
