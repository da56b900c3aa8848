"""`callboard submit`: one task, or as many as there are lines."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import Parameter
from cyclopts.validators import Number
from pydantic import ValidationError

from bus.client import Client
from bus.durability import Durability, Replicated
from bus.errors import QueueFullError
from bus.handle import TaskHandle
from bus.records import TaskCreate
from bus.states import TaskPriority
from callboard import task_options
from callboard.connecting import connected
from callboard.failures import CommandError, UsageError
from callboard.options import AsJson, Flag, RedisUrl, Seconds, given, name_and_value
from callboard.outcomes import show_ended, show_outcome
from callboard.output import print_json, print_line
from callboard.payloads import json_lines, open_file, parse, read_file, read_stdin

_STDIN: Final = "-"
_LONGEST_PATH: Final = 256
_PAYLOAD_REMEDY: Final = """write e.g. '{"text": "a b"}' or '"a b"', in single quotes for the shell"""
_Texts = list[str] | None


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
    version: Annotated[str | None, Parameter(help="Versions of the capability that will do, e.g. '>=1.2'.")] = None,
    priority: Annotated[TaskPriority, Parameter(help="How urgent it is.")] = TaskPriority.MEDIUM,
    requires: Annotated[
        _Texts,
        Parameter(metavar="CONDITION", help="E.g. 'gpu >= 16' or '(gpu >= 16 | tpu exists)'; may be repeated."),
    ] = None,
    prefers: Annotated[
        _Texts,
        Parameter(metavar="CONDITION", help="Better met, but not required, e.g. 'region ~ eu:10'; may be repeated."),
    ] = None,
    key: Annotated[str | None, Parameter(help="A second task with this key is not submitted.")] = None,
    fairness_key: Annotated[str | None, Parameter(help="Tasks of different keys take turns.")] = None,
    sticky: Annotated[str | None, Parameter(help="Prefer the agent that had the last task of this key.")] = None,
    fail_fast: Annotated[Flag, Parameter(help="Fail at once if no agent that is known could ever run it.")] = False,
    delay: Annotated[Seconds | None, Parameter(help="Not to be started before this is over.")] = None,
    run_timeout: Annotated[Seconds | None, Parameter(help="How long one attempt may run.")] = None,
    queue_timeout: Annotated[Seconds | None, Parameter(help="How long it may wait for an agent.")] = None,
    progress_timeout: Annotated[
        Seconds | None, Parameter(help="How long it may go without reporting progress.")
    ] = None,
    max_attempts: Annotated[int | None, Parameter(help="How often it is tried.")] = None,
    retry: Annotated[
        str | None, Parameter(metavar="JSON", help='How it is repeated, e.g. \'{"base": 1, "cap": 60}\'.')
    ] = None,
    slots: Annotated[int | None, Parameter(help="Slots of its agent that it takes.")] = None,
    resource: Annotated[
        _Texts, Parameter(metavar="NAME=NUMBER", help="What else of its agent it takes, e.g. gpu=1; may be repeated.")
    ] = None,
    limit: Annotated[
        _Texts,
        Parameter(
            metavar="KEY=LIMIT",
            help="Shared with all tasks of this key: so many at once, e.g. tenant-7=4, or a rate, e.g. openai=600/min; "
            "may be repeated.",
        ),
    ] = None,
    estimated_duration: Annotated[Seconds | None, Parameter(help="How long it will probably run.")] = None,
    tag: Annotated[_Texts, Parameter(metavar="WORD", help="Kept with the task; may be repeated.")] = None,
    metadata: Annotated[_Texts, Parameter(metavar="NAME=VALUE", help="Kept with the task; may be repeated.")] = None,
    trace: Annotated[str | None, Parameter(help="What its children inherit, e.g. a W3C traceparent.")] = None,
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
    options = given(
        version=version,
        priority=priority,
        requires=requires,
        prefers=prefers,
        key=key,
        fairness_key=fairness_key,
        sticky=sticky,
        fail_fast=fail_fast or None,
        delay=delay,
        run_timeout=run_timeout,
        queue_timeout=queue_timeout,
        progress_timeout=progress_timeout,
        max_attempts=max_attempts,
        retry=None if retry is None else task_options.retry(retry),
        slots=slots,
        resources=None if resource is None else task_options.resources(resource),
        limits=None if limit is None else task_options.limits(limit),
        estimated_duration=estimated_duration,
        tags=tag,
        trace=trace,
        metadata=None if metadata is None else dict(name_and_value(item) for item in metadata),
    )
    durable: Durability | None = Replicated(replicas) if durability == "replicated" else durability
    source = _Source(payload, file, ndjson=ndjson)
    if not source.many:
        task = _task(capability, await source.one(), options)
        async with connected(redis_url, pool) as bus:
            (handle,) = await bus.submit_many([task], wait_for_room=wait_for_room or 0.0, durability=durable)
            if wait:
                return await show_outcome(handle, timeout=timeout, as_json=json)
            _show_id(handle, as_json=json, lines=False)
            return 0
    if key is not None:
        raise UsageError("--key would make all of them the same task: leave it out, or submit one at a time")
    _task(capability, None, options)
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


def _task(capability: str, payload: Any, options: dict[str, Any]) -> TaskCreate:  # noqa: ANN401 - JSON
    try:
        return TaskCreate.model_validate({"capability": capability, "payload": payload, **options})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(part for part in problem["loc"] if isinstance(part, str)) or "task"
        text = problem["msg"].removeprefix("Value error, ")
        raise UsageError(f"{name.replace('_', '-')}: {text}: `callboard submit --help` shows what it takes") from None


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
                    tasks = (_task(capability, payload, options) for payload in payloads)
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
            raise CommandError(f"{problem}; {self._submitted:,} are submitted") from None
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
