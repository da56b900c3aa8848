"""Following a page: its blocks one after the other, in one interpreter and one directory, as its reader would."""

import ast
import asyncio
import inspect
import io
import json
import re
from contextlib import AsyncExitStack, redirect_stdout
from time import monotonic
from typing import Any, Final, Self

from pydantic import BaseModel

import bus.messages
from agent_runtime import Agent
from agent_runtime.settings import AgentSettings
from agent_runtime.worker import Worker
from bus import Client
from tests.docs.newcomer import Newcomer, Ran
from tests.docs.pages import ROOT, Block, Step, matches, steps

_LOOK: Final = re.compile(r"callboard (?:tasks|agents) (?:list|get)\b|^curl -s [^-]")
_PRINTS: Final = re.compile(r" *print\(.*\)  # (.*)")


class Reader:
    """Follows the blocks of one page.

    - *python* blocks share their names and may await; `bus` is an open `Client`. A comment behind a `print` is what it
      prints. An agent that is defined is put to work; a function named `test_…` is called.
    - *console* and *sh* blocks are typed, see `Newcomer`; a line that begins with `callboard: ` is a complaint, and the
      command that prints it must fail. All others must succeed.
    - *json* blocks are headed by the model in `bus.messages` that they are an example of.
    """

    def __init__(self, newcomer: Newcomer) -> None:
        self._newcomer = newcomer
        self._bus = Client(newcomer.url)
        self._names: dict[str, Any] = {"__name__": "page"}
        self._agents: set[type[Agent]] = set()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._bus)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def follow(self, block: Block) -> None:
        """Do what a block says; fail if that is not what comes of it."""
        if block.not_run is not None:
            assert block.not_run, f"{block.place}: say why it is not run"
            return
        if block.save_as is not None:
            self._newcomer.save(block.save_as, block.text)
            return
        match block.language:
            case "python":
                await self._python(block)
            case "console" | "sh":
                for step in steps(block):
                    await self._type(block, step)
            case "json":
                _check_message(block)
            case "text" | "mermaid":
                pass
            case other:
                raise AssertionError(f"{block.place}: nobody knows how to run {other or 'this'}")

    async def _python(self, block: Block) -> None:
        self._names["bus"] = self._bus  # an example of `async with Client() as bus` has closed its own
        before = dict(self._names)
        code = compile(
            "\n" * (block.line - 1) + self._newcomer.here(block.text),
            block.page.name,
            "exec",
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        printed = io.StringIO()
        with redirect_stdout(printed):
            running = eval(code, self._names)  # noqa: S307 - a page of ours
            if inspect.iscoroutine(running):
                await running
        said = [found[1] for line in block.text.splitlines() if (found := _PRINTS.fullmatch(line))]
        if said:
            assert matches(said, printed.getvalue()), f"{block.place} prints:\n{printed.getvalue()}"
        if block.file is not None:
            there = (ROOT / block.file).read_text()
            assert _program(there) == _program(block.text), f"{block.place} is not {block.file}"
            return
        for name, value in list(self._names.items()):
            if before.get(name) is not value:
                await self._use(value)

    async def _use(self, value: Any) -> None:
        if inspect.iscoroutinefunction(value) and value.__name__.startswith("test_"):
            await value()
        elif inspect.isclass(value) and issubclass(value, Agent) and value.capabilities and value not in self._agents:
            self._agents.add(value)
            await self._put_to_work(value())

    async def _put_to_work(self, agent: Agent) -> None:
        worker = Worker(agent, AgentSettings(redis_url=self._newcomer.url))
        stop = asyncio.Event()
        running = asyncio.create_task(worker.run(stop))

        async def end() -> None:
            stop.set()
            await running

        self._stack.push_async_callback(end)
        async with asyncio.timeout(30):
            await worker.ready.wait()

    async def _type(self, block: Block, step: Step) -> None:
        ran = await self._newcomer.type(step.command)
        if _LOOK.search(step.command):
            # What it shows is published once a second: a reader would look again, too.
            until = monotonic() + 10
            while not _is_as_shown(step, ran) and monotonic() < until:
                ran = await self._newcomer.type(step.command)
        told = f"{block.place}: `{step.command}` ends with {ran.code} and prints:\n{ran.printed}"
        assert _is_as_shown(step, ran), told


def _is_as_shown(step: Step, ran: Ran) -> bool:
    shown = step.shown or []
    complains = any(line.startswith("callboard: ") for line in shown)
    if complains == (not ran.code):
        return False
    return step.shown is None or matches(shown, ran.printed, among_others=ran.code is None)


def _check_message(block: Block) -> None:
    model = getattr(bus.messages, block.title, None)
    assert inspect.isclass(model), f"{block.place}: name a message, e.g. ```json Register"
    assert issubclass(model, BaseModel)
    known = model.model_validate_json(block.text).model_dump(mode="json", exclude_unset=True)
    assert known == json.loads(block.text), f"{block.place}: of this only {known} is known"


def _program(source: str) -> str:
    """Return what a source says, without layout, comments, and the strings that stand for themselves."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [part for part in node.body if not _is_docstring(part)]
    return ast.dump(tree)


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
