"""`callboard submit`: one task, or as many as there are lines."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from bus.client import Client
from bus.durability import Durability, Replicated
from bus.errors import QueueFullError
from bus.handle import TaskHandle
from callboard.connecting import connected
from callboard.failures import CommandError, UsageError, words_of_full_queue
from callboard.options import AsJson, Flag, RedisUrl, Seconds, given
from callboard.outcomes import show_ended, show_outcome
from callboard.output import print_json, print_line
from callboard.payloads import json_lines, open_file, parse, read_file, read_stdin
from callboard.task_options import NO_OPTIONS, TaskOptions, task_of

_STDIN: Final = "-"
_LONGEST_PATH: Final = 256
_PAYLOAD_REMEDY: Final = """write e.g. '{"text": "a b"}' or '"a b"', in single quotes for the shell"""


async def submit(  # noqa: PLR0913 - one per option
    capability: Annotated[
        str, Parameter(help="Capability that is to do it, e.g. 'translate>=2[lang contains de, region ~ eu:10]'.")
    ],
    payload: Annotated[
        str | None, Parameter(allow_leading_hyphen=True, help="Payload as JSON; - takes one per line from stdin.")
    ] = None,
    /,
    *,
    file: Annotated[
        Path | None, Parameter(allow_leading_hyphen=True, help="File that holds the payload; - is stdin.")
    ] = None,
    ndjson: Annotated[Flag, Parameter(help="Each line of the file, or of stdin, is a payload.")] = False,
    key: Annotated[str | None, Parameter(help="A second task with this key is not submitted.")] = None,
    delay: Annotated[Seconds | None, Parameter(help="Not to be started before this is over.")] = None,
    asked: TaskOptions = NO_OPTIONS,
    pool: Annotated[str | None, Parameter(help="Pool that is to do it.")] = None,
    wait: Annotated[Flag, Parameter(help="Wait for the result and print it.")] = False,
    wait_for_room: Annotated[
        Seconds | None, Parameter(help="How long to wait for room where as many tasks wait as may.")
    ] = None,
    durability: Annotated[
        Literal["fsync", "replicated"] | None,
        Parameter(help="Return when it is on the server's disk (fsync), or on replicas; fail if that cannot be had."),
    ] = None,
    replicas: Annotated[
        int, Parameter(validator=Number(gte=1), help="How many replicas --durability replicated is about.")
    ] = 1,
    timeout: Annotated[Seconds | None, Parameter(help="How long to wait; the task goes on after that.")] = None,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Submit a task and print its id, or with --wait its output.

    Many tasks are submitted as their lines arrive; their ids, or with --wait their results as they come, are printed
    one a line. The exit code is 1 if a task that was waited for has failed.
    """
    if timeout is not None and not wait:
        raise UsageError("--timeout is how long to wait: add --wait")
    options = asked.fields() | given(key=key, delay=delay)
    durable: Durability | None = Replicated(replicas) if durability == "replicated" else durability
    source = _Source(payload, file, ndjson=ndjson)
    if not source.many:
        task = task_of(capability, await source.one(), options, command="submit")
        async with connected(redis_url, pool) as bus:
            (handle,) = await bus.submit_many([task], wait_for_room=wait_for_room or 0.0, durability=durable)
            if wait:
                return await show_outcome(handle, timeout=timeout, as_json=json)
            _show_id(handle, as_json=json, lines=False)
            return 0
    if key is not None:
        raise UsageError("--key would make all of them the same task: leave it out, or submit one at a time")
    task_of(capability, None, options, command="submit")
    payloads = source.lines()
    async with connected(redis_url, pool) as bus:
        how = _How(wait=wait, room_s=wait_for_room or 0.0, durability=durable, timeout=timeout, as_json=json)
        return await _Many(bus, how).run(capability, payloads, options)


class _Source:
    """Where the payload comes from, or the payloads."""

    def __init__(self, argument: str | None, file: Path | None, *, ndjson: bool) -> None:
        if argument is not None and argument.startswith("--"):
            raise UsageError(f"no option {argument}: `callboard submit --help` shows which there are")
        if argument not in (None, _STDIN) and (file is not None or ndjson):
            raise UsageError("the payload is given twice: as an argument, and by --file or --ndjson; leave one out")
        from_stdin = argument == _STDIN or (file is not None and str(file) == _STDIN)
        self.argument = argument
        self.file = None if from_stdin else file
        self.many = ndjson or argument == _STDIN
        self.stdin_holds_one = from_stdin and not self.many

    async def one(self) -> Any:  # noqa: ANN401 - JSON
        """Return the only payload: null if none is given."""
        if self.file is not None:
            return parse(read_file(self.file), str(self.file))
        if self.stdin_holds_one:
            return parse(await read_stdin(), "stdin")
        return None if self.argument is None else self._parse(self.argument)

    @staticmethod
    def _parse(argument: str) -> Any:  # noqa: ANN401 - JSON
        try:
            return parse(argument, "the payload")
        except UsageError as error:
            is_file = len(argument) < _LONGEST_PATH and Path(argument).is_file()
            remedy = f"write --file {argument}" if is_file else _PAYLOAD_REMEDY
            raise UsageError(f"{error}: {remedy}") from None

    def lines(self) -> AsyncIterator[list[Any]]:
        """Yield the payloads as they arrive."""
        return json_lines(open_file(self.file))


def _show_id(handle: TaskHandle[Any], *, as_json: bool, lines: bool) -> None:
    if as_json:
        print_json({"id": handle.id, "pool": handle.pool}, lines=lines)
    else:
        print_line(handle.id)


@dataclass(frozen=True, slots=True)
class _How:
    wait: bool
    room_s: float
    durability: Durability | None
    timeout: float | None
    as_json: bool


class _Many:
    """The submission of many tasks, as their payloads arrive."""

    def __init__(self, bus: Client, how: _How) -> None:
        self._bus = bus
        self._how = how
        self._submitted = 0
        self._code = 0

    async def run(self, capability: str, chunks: AsyncIterator[list[Any]], options: dict[str, Any]) -> int:
        """Submit all, print their ids or, with `wait`, how they end; return the command's exit code.

        A line that is wrong stops it; results of the tasks before it are still printed.
        """
        problem: UsageError | QueueFullError | None = None
        async with asyncio.TaskGroup() as waits:
            try:
                async for payloads in chunks:
                    tasks = (task_of(capability, payload, options, command="submit") for payload in payloads)
                    handles = await self._bus.submit_many(
                        tasks, wait_for_room=self._how.room_s, durability=self._how.durability
                    )
                    self._take(waits, handles)
            except QueueFullError as error:
                self._take(waits, [handle for handle in error.handles if handle is not None])
                problem = error
            except UsageError as error:
                problem = error
        if isinstance(problem, QueueFullError):
            raise CommandError(f"{words_of_full_queue(problem)}; {self._submitted:,} are submitted") from None
        if problem is not None:
            raise UsageError(f"{problem}; the {self._submitted:,} before it are submitted") from None
        return self._code

    def _take(self, waits: asyncio.TaskGroup, handles: list[TaskHandle[Any]]) -> None:
        self._submitted += len(handles)
        if self._how.wait:
            waits.create_task(self._show_ends(handles))
        else:
            for handle in handles:
                _show_id(handle, as_json=self._how.as_json, lines=True)

    async def _show_ends(self, handles: list[TaskHandle[Any]]) -> None:
        left = len(handles)
        try:
            async with asyncio.timeout(self._how.timeout):
                async for handle in self._bus.as_completed(handles):
                    self._code = max(self._code, await show_ended(handle, as_json=self._how.as_json))
                    left -= 1
        except TimeoutError:
            raise CommandError(f"{left:,} tasks have not ended within {self._how.timeout:g} s; they go on") from None
