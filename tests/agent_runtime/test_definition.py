"""What can be read from an agent class, and what is refused with a remedy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from typing import TYPE_CHECKING, Any
from unittest.mock import AsyncMock

import pytest
from pydantic import BaseModel

from agent_runtime import Agent, AgentDefinitionError, TaskContext, capability
from agent_runtime.definition import ATTRIBUTE, Capability, read_acceptance
from bus import Condition

if TYPE_CHECKING:
    from decimal import Decimal  # noqa: TC004 - the very mistake that a test is about


class Question(BaseModel):
    text: str


class Answer(BaseModel):
    words: int


class Counter(Agent):
    slots = 8

    @capability("text.count", version="1.2", languages=["en", "de"], gpu=16)
    async def count(self, task: Question, ctx: TaskContext) -> Answer:
        await ctx.progress(0.5)
        return Answer(words=len(task.text.split()))

    @capability("text.plain", exclusive=True)
    def plain(self, task: list[int]) -> int:
        return sum(task)


def _of(function: object) -> Capability:
    found = getattr(function, ATTRIBUTE)
    assert isinstance(found, Capability)
    return found


def test_annotations_are_resolved_though_they_are_texts() -> None:
    found = _of(Counter.count)
    assert (found.name, found.version) == ("text.count", "1.2")
    assert (found.input_type, found.output_type) == (Question, Answer)
    assert found.is_async
    assert found.takes_context


def test_the_specification_has_attributes_and_schemas() -> None:
    spec = _of(Counter.count).spec
    assert spec.attributes == {"languages": ["en", "de"], "gpu": 16}
    assert spec.input_schema is not None
    assert spec.input_schema["required"] == ["text"]
    assert spec.output_schema is not None
    assert spec.output_schema["properties"]["words"]["type"] == "integer"


def test_a_plain_method_without_context_and_with_plain_types_will_do() -> None:
    found = _of(Counter.plain)
    assert not found.is_async
    assert not found.takes_context
    assert found.spec.exclusive
    assert found.spec.output_schema == {"type": "integer"}


def test_a_method_that_is_marked_is_still_the_method() -> None:
    assert Counter.plain(Counter(), [1, 2]) == 3


def test_types_that_are_local_to_a_function_are_found() -> None:
    @dataclass
    class Local:
        n: int

    class Inner(Agent):
        @capability("x")
        async def x(self, task: Local) -> Local:
            return task

    assert _of(Inner.x).input_type is Local


def test_a_subclass_inherits_capabilities_and_adds_its_own() -> None:
    class More(Counter):
        @capability("text.more")
        async def more(self, task: Question) -> None:
            """Do nothing."""

    assert {made.name for _, made in More.capabilities.values()} == {"text.count", "text.plain", "text.more"}
    assert {made.name for _, made in Counter.capabilities.values()} == {"text.count", "text.plain"}


def test_one_name_in_two_versions_is_two_capabilities() -> None:
    class Two(Agent):
        @capability("x", version="1.0")
        async def one(self, task: int) -> int:
            return task

        @capability("x", version="2.0")
        async def two(self, task: int) -> int:
            return task

    assert set(Two.capabilities) == {"x 1.0", "x 2.0"}


def _define(**methods: Any) -> type[Agent]:
    return type("Wrong", (Agent,), methods)


def test_a_missing_input_annotation_is_refused() -> None:
    @capability("x")
    async def x(self: Any, task) -> int:  # type: ignore[no-untyped-def] # noqa: ANN001, ARG001
        return 1

    with pytest.raises(AgentDefinitionError, match=r"Wrong.x: parameter 'task' has no annotation: write `task: Your"):
        _define(x=x)


def test_a_missing_return_annotation_is_refused() -> None:
    @capability("x")
    async def x(self: Any, task: int):  # type: ignore[no-untyped-def] # noqa: ANN202, ARG001
        return 1

    with pytest.raises(AgentDefinitionError, match=r"return type is missing: write `-> YourModel`"):
        _define(x=x)


def test_a_name_that_only_the_type_checker_knows_is_refused() -> None:
    @capability("x")
    async def x(self: Any, task: Decimal) -> int:  # noqa: ARG001
        return 1

    with pytest.raises(AgentDefinitionError, match=r"'Decimal' is not known here: .* outside of `if TYPE_CHECKING`"):
        _define(x=x)


def test_parameters_that_nobody_could_fill_are_refused() -> None:
    @capability("x")
    async def none(self: Any) -> int:  # noqa: ARG001
        return 1

    @capability("x")
    async def named(self: Any, *, task: int) -> int:  # noqa: ARG001
        return task

    @capability("x")
    async def many(self: Any, a: int, b: int, c: int) -> int:  # noqa: ARG001
        return a + b + c

    for method in (none, named, many):
        with pytest.raises(AgentDefinitionError, match=r"parameters do not fit: write `\(self, task: YourModel\)`"):
            _define(x=method)


def test_a_generator_is_refused() -> None:
    @capability("x")
    async def x(self: Any, task: int) -> Any:  # noqa: ARG001
        yield task

    with pytest.raises(AgentDefinitionError, match=r"it is a generator: return one value"):
        _define(x=x)


def test_a_name_or_attribute_that_cannot_travel_is_refused() -> None:
    @capability("no spaces please")
    async def spaces(self: Any, task: int) -> int:  # noqa: ARG001
        return task

    @capability("x", thing=object())  # type: ignore[arg-type]
    async def thing(self: Any, task: int) -> int:  # noqa: ARG001
        return task

    with pytest.raises(AgentDefinitionError, match=r"name 'no spaces please' is not valid"):
        _define(x=spaces)
    with pytest.raises(AgentDefinitionError, match=r"attributes.thing"):
        _define(x=thing)


def test_an_agents_id_is_no_attribute_that_it_can_set() -> None:
    @capability("x", **{"agent.id": "somebody"})  # type: ignore[arg-type] # mypy takes it for each of the others
    async def x(self: Any, task: int) -> int:  # noqa: ARG001
        return task

    with pytest.raises(
        AgentDefinitionError, match=r"agent\.id is its id, which every agent has and none can set: leave"
    ):
        _define(x=x)


def test_a_version_that_is_none_is_refused() -> None:
    @capability("x", version="newest")
    async def x(self: Any, task: int) -> int:  # noqa: ARG001
        return task

    with pytest.raises(AgentDefinitionError, match=r"'newest' is not a version"):
        _define(x=x)


def test_the_same_capability_twice_is_refused() -> None:
    @capability("x")
    async def one(self: Any, task: int) -> int:  # noqa: ARG001
        return task

    @capability("x")
    async def two(self: Any, task: int) -> int:  # noqa: ARG001
        return task

    with pytest.raises(AgentDefinitionError, match=r"x 1.0 is also Wrong.one: give one another name or version"):
        _define(one=one, two=two)


def test_replacing_a_capability_without_marking_it_is_refused() -> None:
    with pytest.raises(AgentDefinitionError, match=r"replaces the capability text.plain of Counter: mark it"):

        class Careless(Counter):
            def plain(self, task: list[int]) -> int:
                return len(task)


def test_a_type_that_pydantic_does_not_know_is_refused() -> None:
    class Opaque:
        pass

    @capability("x")
    async def x(self: Any, task: Opaque) -> int:  # noqa: ARG001
        return 1

    with pytest.raises(AgentDefinitionError, match=r"pydantic cannot validate task .*: use a pydantic model"):
        _define(x=x)


def test_the_decorator_belongs_on_a_function() -> None:
    with pytest.raises(AgentDefinitionError, match=r"put it directly above `def`"):
        capability("x")(staticmethod(lambda: None))


def test_what_an_agent_accepts_may_be_a_text_or_a_sequence() -> None:
    class ByText(Counter):
        accepts = "fairness_key != batch, (priority >= HIGH | tags contains gpu)"

    class BySequence(Counter):
        accepts = (Condition(attribute="capability", value="text.count"), "priority >= HIGH")

    assert len(read_acceptance(ByText, ByText.accepts)) == len(read_acceptance(BySequence, BySequence.accepts)) == 2


@pytest.mark.parametrize(
    ("accepts", "complaint"),
    [
        ("fairness_key is batch", r"Wrong.accepts: 'fairness_key \^is batch' is not a condition: column 14"),
        ("region == eu", r"Wrong.accepts: a task has no 'region': .* such as 'fairness_key != batch'"),
        (["priority >= soon"], r"priority is one of LOW, MEDIUM, HIGH, URGENT"),
        (7, r"Wrong.accepts: .*tuple"),
    ],
)
def test_a_condition_on_tasks_that_is_none_is_refused(accepts: object, complaint: str) -> None:
    with pytest.raises(AgentDefinitionError, match=complaint):
        _define(accepts=accepts)


@pytest.mark.parametrize("name", ["on_start", "on_stop"])
def test_a_hook_that_could_not_be_awaited_is_refused(name: str) -> None:
    def plain(self: Any) -> None: ...

    async def generator(self: Any) -> Any:  # noqa: ARG001
        yield

    async def greedy(self: Any, settings: Any) -> None: ...

    for hook, problem in (
        (plain, "it is not an `async def`"),
        (None, "it is not an `async def`"),
        (generator, "it is a generator"),
        (greedy, "it takes parameters that nobody could fill"),
    ):
        with pytest.raises(AgentDefinitionError, match=rf"Wrong.{name}: {problem}: write `async def {name}\(self\)"):
            _define(**{name: hook})


@pytest.mark.parametrize("slots", [0, -1, "4", 2.5, True, None])
def test_slots_that_are_no_number_of_tasks_are_refused(slots: Any) -> None:
    with pytest.raises(AgentDefinitionError, match=r"Wrong.slots: .* is not a whole number above 0: write e.g. `slots"):
        _define(slots=slots)


def test_slots_may_be_computed() -> None:
    _define(slots=property(lambda _: 4))


def test_hooks_may_be_decorated_and_mocked() -> None:
    async def hook(self: Any, *more: Any, retries: int = 3) -> None: ...

    @wraps(hook)
    def decorated(*args: Any) -> Any:
        return hook(*args)

    _define(on_start=decorated, on_stop=AsyncMock())
