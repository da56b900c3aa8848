"""What a task asks for beyond its capability, as it is written on a command line: the same for every command."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Final

from cyclopts import Parameter
from pydantic import ValidationError

from bus.records import TaskCreate
from bus.states import TaskPriority
from callboard.failures import UsageError
from callboard.options import Flag, Seconds, given, name_and_value
from callboard.payloads import parse

_Texts = list[str] | None


@Parameter(name="*")
@dataclass(frozen=True)
class PlacementOptions:
    """What decides which agent may have a task, and when."""

    version: Annotated[str | None, Parameter(help="Versions of the capability that will do, e.g. '>=1.2'.")] = None
    priority: Annotated[TaskPriority | None, Parameter(help="How urgent it is, else MEDIUM.")] = None
    requires: Annotated[
        _Texts,
        Parameter(metavar="CONDITION", help="E.g. 'gpu >= 16' or '(gpu >= 16 | tpu exists)'; may be repeated."),
    ] = None
    prefers: Annotated[
        _Texts,
        Parameter(metavar="CONDITION", help="Better met, but not required, e.g. 'region ~ eu:10'; may be repeated."),
    ] = None
    fairness_key: Annotated[str | None, Parameter(help="Tasks of different keys take turns.")] = None
    sticky: Annotated[str | None, Parameter(help="Prefer the agent that had the last task of this key.")] = None
    fail_fast: Annotated[Flag, Parameter(help="Fail at once if no agent that is known could ever run it.")] = False
    slots: Annotated[int | None, Parameter(help="Slots of its agent that it takes.")] = None
    resource: Annotated[
        _Texts, Parameter(metavar="NAME=NUMBER", help="What else of its agent it takes, e.g. gpu=1; may be repeated.")
    ] = None
    limit: Annotated[
        _Texts,
        Parameter(
            metavar="KEY=LIMIT",
            help="Shared with all tasks of this key: so many at once, e.g. tenant-7=4, or a rate, e.g. openai=600/min; "
            "may be repeated.",
        ),
    ] = None
    estimated_duration: Annotated[Seconds | None, Parameter(help="How long it will probably run.")] = None

    def fields(self) -> dict[str, Any]:
        """Return those fields of a task that were given. Raises `UsageError`."""
        return given(
            version=self.version,
            priority=self.priority,
            requires=self.requires,
            prefers=self.prefers,
            fairness_key=self.fairness_key,
            sticky=self.sticky,
            fail_fast=self.fail_fast or None,
            slots=self.slots,
            resources=None if self.resource is None else resources(self.resource),
            limits=None if self.limit is None else limits(self.limit),
            estimated_duration=self.estimated_duration,
        )


@Parameter(name="*")
@dataclass(frozen=True)
class TaskOptions(PlacementOptions):
    """The same, and what becomes of its attempts, and what is kept with it."""

    run_timeout: Annotated[Seconds | None, Parameter(help="How long one attempt may run.")] = None
    queue_timeout: Annotated[Seconds | None, Parameter(help="How long it may wait for an agent.")] = None
    progress_timeout: Annotated[Seconds | None, Parameter(help="How long it may go without reporting progress.")] = None
    max_attempts: Annotated[int | None, Parameter(help="How often it is tried.")] = None
    retry: Annotated[
        str | None, Parameter(metavar="JSON", help='How it is repeated, e.g. \'{"base": 1, "cap": 60}\'.')
    ] = None
    tag: Annotated[_Texts, Parameter(metavar="WORD", help="Kept with the task; may be repeated.")] = None
    metadata: Annotated[_Texts, Parameter(metavar="NAME=VALUE", help="Kept with the task; may be repeated.")] = None
    trace: Annotated[str | None, Parameter(help="What its children inherit, e.g. a W3C traceparent.")] = None

    def fields(self) -> dict[str, Any]:
        """Return those fields of a task that were given. Raises `UsageError`."""
        return super().fields() | given(
            run_timeout=self.run_timeout,
            queue_timeout=self.queue_timeout,
            progress_timeout=self.progress_timeout,
            max_attempts=self.max_attempts,
            retry=None if self.retry is None else retry(self.retry),
            tags=self.tag,
            metadata=None if self.metadata is None else dict(name_and_value(item) for item in self.metadata),
            trace=self.trace,
        )


NO_PLACEMENT: Final = PlacementOptions()
NO_OPTIONS: Final = TaskOptions()


def task_of(capability: str, payload: Any, fields: dict[str, Any], *, command: str) -> TaskCreate:  # noqa: ANN401 - JSON
    """Return the task that `command` was given. Raises `UsageError`."""
    try:
        return TaskCreate.model_validate({"capability": capability, "payload": payload, **fields})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = ".".join(part for part in problem["loc"] if isinstance(part, str)) or "task"
        text = problem["msg"].removeprefix("Value error, ")
        remedy = f"`callboard {command} --help` shows what it takes"
        raise UsageError(f"{name.replace('_', '-')}: {text}: {remedy}") from None


def resources(items: Iterable[str]) -> dict[str, float]:
    """Read `gpu=1`, `mem_gb=12`. Raises `UsageError`."""
    return {name: _number(item, value) for item in items for name, value in [name_and_value(item, "--resource gpu=1")]}


def _number(item: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"{item!r} has no number: write e.g. --resource gpu=1") from None


def limits(items: Iterable[str]) -> list[dict[str, Any]]:
    """Read `openai=600/min`, a rate, and `tenant-7=4`, which is how many at once; of one key both may be given."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        key, value = name_and_value(item, "--limit openai=600/min, or --limit tenant-7=4 for so many at once")
        limit = found.setdefault(key, {"key": key})
        limit["concurrency" if value.isdecimal() else "rate"] = int(value) if value.isdecimal() else value
    return list(found.values())


def retry(text: str) -> Any:  # noqa: ANN401 - JSON
    """Read a retry policy, which is JSON. Raises `UsageError`."""
    return parse(text, "--retry")
