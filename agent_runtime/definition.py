"""What an agent can do: the `@capability` decorator, and what is read from the annotations of the methods it marks.

Everything that can be wrong with a definition is found while the class is created and raised as `AgentDefinitionError`
with its remedy: nothing of it waits for the first task.
"""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from agent_runtime.errors import AgentDefinitionError
from bus.acceptance import TASK_FACTS, Acceptance
from bus.messages import CapabilitySpec
from bus.requirements import AGENT_ID, Clause, Value
from bus.retries import RetryPolicy

ATTRIBUTE: Final = "__callboard_capability__"
_F = TypeVar("_F", bound=Callable[..., Any])
_PARAMETERS_WITH_CONTEXT: Final = 3
_ACCEPTANCE: Final[TypeAdapter[tuple[Clause, ...]]] = TypeAdapter(Acceptance)

_VERSION: Final = re.compile(r"\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?(\+[A-Za-z0-9.]+)?")
"""PEP 440 without its looser spellings; `packaging` would cost every agent a megabyte to say the same."""


class Capability:
    """One thing an agent can do. The types are there once the class of its method is created.

    `output_type` is what the method returns: a client that is given the method validates results with it.
    """

    __slots__ = (
        "attributes",
        "exclusive",
        "function",
        "input",
        "input_type",
        "is_async",
        "name",
        "namespaces",
        "output",
        "output_type",
        "policies",
        "spec",
        "takes_context",
        "version",
    )

    def __init__(
        self,
        function: Callable[..., Any],
        name: str,
        version: str,
        *,
        exclusive: bool,
        attributes: dict[str, Value],
        policies: dict[str, Any],
    ) -> None:
        self.function = function
        self.name = name
        self.version = version
        self.exclusive = exclusive
        self.attributes = attributes
        self.policies = policies
        self.is_async = inspect.iscoroutinefunction(function)
        self.takes_context = False
        self.input_type: Any = Any
        self.output_type: Any = Any
        self.input: TypeAdapter[Any]
        self.output: TypeAdapter[Any]
        self.spec: CapabilitySpec
        self.namespaces: dict[str, Any] | None = None

    @property
    def key(self) -> str:
        """Its name and version, which are unique in an agent."""
        return f"{self.name} {self.version}"

    def __repr__(self) -> str:
        return f"<capability {self.name} {self.version}>"

    def resolve(self, where: str) -> None:
        """Read the annotations. Once is enough: a subclass inherits what was read."""
        if self.namespaces is None:
            return
        if not _VERSION.fullmatch(self.version):
            raise AgentDefinitionError(where, f"{self.version!r} is not a version", "write one such as 1.2 or 2.0rc1")
        parameters = _parameters(self.function, where)
        hints = _hints(self.function, self.namespaces, where)
        self.namespaces = None
        task = parameters[1]
        if task not in hints:
            raise AgentDefinitionError(where, f"parameter {task!r} has no annotation", f"write `{task}: YourModel`")
        if "return" not in hints:
            raise AgentDefinitionError(where, "the return type is missing", "write `-> YourModel`, or `-> None`")
        self.takes_context = len(parameters) == _PARAMETERS_WITH_CONTEXT
        self.input_type, self.output_type = hints[task], hints["return"]
        self.input = _adapter(self.input_type, where, task)
        self.output = _adapter(self.output_type, where, "the return value")
        self._make_spec(where)

    def _make_spec(self, where: str) -> None:
        refuse_id(where, self.attributes)
        try:
            self.spec = CapabilitySpec(
                name=self.name,
                version=self.version,
                attributes=self.attributes,
                exclusive=self.exclusive,
                **self.policies,
                input_schema=_schema(self.input, "validation"),
                output_schema=_schema(self.output, "serialization"),
            )
        except ValidationError as error:
            first = error.errors()[0]
            part = ".".join(str(step) for step in first["loc"])
            raise AgentDefinitionError(
                where,
                f"{part} {first['input']!r} is not valid ({first['msg']})",
                'write `@capability("group.action", version="1.0", attribute="text, number, bool or a list of them")`',
            ) from None


def capability(
    name: str,
    *,
    version: str = "1.0",
    exclusive: bool = False,
    rate: str | None = None,
    concurrency: int | None = None,
    max_pending: int | None = None,
    retry: RetryPolicy | None = None,
    **attributes: Value,
) -> Callable[[_F], _F]:
    """Make a method of an `Agent` something that tasks can ask for by `name`.

    The method takes the payload as its second parameter and, if it has a third, a `TaskContext`; both the payload and
    what it returns are validated by their annotations (anything pydantic knows), and their JSON Schemas are part of
    the agent's registration. An `async def` runs in the event loop; a plain `def` runs in a thread of its own and
    cannot be stopped from outside: on a timeout or cancel it keeps its slot until it returns, so let it look at
    `ctx.cancelled`.

    `version` is the capability's own (tasks may ask for a range of versions); `attributes` are what tasks can require
    or prefer, such as ``languages=["en", "de"]``. An `exclusive` capability is cancelled by its agent when the agent
    can no longer be sure that the dispatcher still counts on it: it never runs twice at once, if it is an `async def`
    that ends when cancelled. Any other goes on through an outage.

    `rate` (``10/s``) and `concurrency` limit its tasks in all agents of the pool together; where agents differ, the
    strictest counts. `max_pending` bounds how many of its tasks may wait: whoever submits one more is refused
    (`bus.QueueFullError`). `retry` says how its tasks are repeated that do not say it themselves.
    """

    def mark(function: _F) -> _F:
        if not inspect.isfunction(function):
            raise AgentDefinitionError(
                f"@capability({name!r})", f"{function!r} is not a method", "put it directly above `def` or `async def`"
            )
        policies: dict[str, Any] = {
            "rate": rate,
            "concurrency": concurrency,
            "max_pending": max_pending,
            "retry": retry,
        }
        made = Capability(function, name, version, exclusive=exclusive, attributes=attributes, policies=policies)
        # Names that are local to where the class stands: without them, agents defined inside a function could
        # not use `from __future__ import annotations`.
        body = sys._getframe(1)  # noqa: SLF001 - pydantic resolves local names in the same way
        around = body.f_back
        made.namespaces = {**(around.f_locals if around else {}), **body.f_locals}
        setattr(function, ATTRIBUTE, made)
        return function

    return mark


def collect(owner: type) -> dict[str, tuple[str, Capability]]:
    """Return the capabilities of `owner` and of what it inherits from: by `name version`, with the method's name."""
    found: dict[str, tuple[str, Capability]] = {}
    for method in dir(owner):
        value = inspect.getattr_static(owner, method)
        made: Capability | None = getattr(value, ATTRIBUTE, None)
        where = f"{owner.__qualname__}.{method}"
        if made is None:
            _refuse_bare_override(owner, method, where)
            continue
        made.resolve(where)
        key = made.key
        if key in found:
            raise AgentDefinitionError(
                where, f"{key} is also {owner.__qualname__}.{found[key][0]}", "give one another name or version"
            )
        found[key] = (method, made)
    return found


def refuse_id(where: str, attributes: Iterable[str]) -> None:
    """Raise `AgentDefinitionError` if `agent.id` is among what is to be an agent's attributes."""
    if AGENT_ID in attributes:
        raise AgentDefinitionError(
            where, f"the attribute {AGENT_ID} is its id, which every agent has and none can set", "leave it out"
        )


def read_acceptance(owner: type, accepts: object) -> tuple[Clause, ...]:
    """Return the conditions on tasks that `accepts` is made of. Raises `AgentDefinitionError`."""
    try:
        return _ACCEPTANCE.validate_python(accepts)
    except ValidationError as error:
        raise AgentDefinitionError(
            f"{owner.__qualname__}.accepts",
            error.errors(include_url=False)[0]["msg"].removeprefix("Value error, "),
            f"give conditions on {', '.join(TASK_FACTS)}, such as 'fairness_key != batch'",
        ) from None


def _refuse_bare_override(owner: type, method: str, where: str) -> None:
    for base in owner.__mro__[1:]:
        made: Capability | None = getattr(vars(base).get(method), ATTRIBUTE, None)
        if made is not None:
            raise AgentDefinitionError(
                where, f"it replaces the capability {made.name} of {base.__qualname__}", "mark it @capability as well"
            )


def _parameters(function: Callable[..., Any], where: str) -> list[str]:
    parameters = list(inspect.signature(function).parameters.values())
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    if any(p.kind not in positional for p in parameters) or len(parameters) not in (2, _PARAMETERS_WITH_CONTEXT):
        raise AgentDefinitionError(
            where,
            "its parameters do not fit",
            "write `(self, task: YourModel)` or `(self, task: YourModel, ctx: TaskContext)`",
        )
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise AgentDefinitionError(where, "it is a generator", "return one value; report on the way by `ctx.progress`")
    return [p.name for p in parameters]


def _hints(function: Callable[..., Any], names: Mapping[str, Any], where: str) -> dict[str, Any]:
    # The names around the method are globals to it, so that its module's own names win only where it has no local ones.
    scope = {**getattr(function, "__globals__", {}), **names}
    try:
        return get_type_hints(function, globalns=scope, include_extras=True)
    except NameError as error:
        raise AgentDefinitionError(
            where,
            f"the annotation {error.name!r} is not known here",
            "define it above the agent, and import it outside of `if TYPE_CHECKING`",
        ) from None
    except (TypeError, SyntaxError) as error:
        raise AgentDefinitionError(where, f"its annotations cannot be read ({error})", "write types") from None


def _adapter(annotation: Any, where: str, what: str) -> TypeAdapter[Any]:  # noqa: ANN401 - an annotation is any object
    try:
        return TypeAdapter(annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        shown = str(error).splitlines()[0]
        raise AgentDefinitionError(
            where, f"pydantic cannot validate {what} ({shown})", "use a pydantic model, a dataclass or plain types"
        ) from None


def _schema(adapter: TypeAdapter[Any], mode: Any) -> dict[str, Any] | None:  # noqa: ANN401 - pydantic's literal
    """Return the JSON Schema; None for types that validate but have none (such as ones with custom validators only)."""
    try:
        return adapter.json_schema(mode=mode)
    except PydanticUserError:
        return None
