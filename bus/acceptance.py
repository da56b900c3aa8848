"""What an agent asks of tasks: the same conditions that tasks ask of agents, on a few facts that every task has.

Only the vocabulary is here; whether a task meets them is decided in one place, `dispatcher.core.match`.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from bus.requirements import MAX_CLAUSES, AnyOf, Clause, Condition, Operator
from bus.states import TaskPriority

CAPABILITY: Final = "capability"
PRIORITY: Final = "priority"
FAIRNESS_KEY: Final = "fairness_key"
TAGS: Final = "tags"
TASK_FACTS: Final = (CAPABILITY, PRIORITY, FAIRNESS_KEY, TAGS)
"""What of a task can be asked: `priority` has the order of its levels, `tags` is a list, the others are texts."""

_OF_LISTS: Final = frozenset({Operator.CONTAINS, Operator.EXISTS})
_LEVELS: Final = frozenset(TaskPriority)


def conditions_of(clauses: Iterable[Clause]) -> tuple[Condition, ...]:
    """Return every condition of `clauses`, those in disjunctions too."""
    return tuple(
        condition for clause in clauses for condition in (clause.any_of if isinstance(clause, AnyOf) else (clause,))
    )


def _from_text(given: Any) -> Any:  # noqa: ANN401 - whatever was given, before it is validated
    if not isinstance(given, str):
        return given
    from bus.requirement_text import parse_clauses  # noqa: PLC0415 - few agents have any

    return parse_clauses(given)


def _about_tasks(clauses: tuple[Clause, ...]) -> tuple[Clause, ...]:
    for condition in conditions_of(clauses):
        problem = _problem(condition)
        if problem is not None:
            raise ValueError(problem)
    return clauses


def _problem(condition: Condition) -> str | None:
    name = condition.attribute
    if name not in TASK_FACTS:
        return f"a task has no {name!r}: use {', '.join(TASK_FACTS)}"
    if name == TAGS and condition.op not in _OF_LISTS:
        return f"tags are a list, to which `{condition.op}` does not apply: write e.g. `tags contains gpu`"
    if name != TAGS and condition.op is Operator.CONTAINS:
        return f"{name} is no list: write e.g. `{name} in [a, b]`"
    if name == PRIORITY and condition.op is not Operator.EXISTS:
        values = condition.value if isinstance(condition.value, tuple) else (condition.value,)
        if not _LEVELS.issuperset(values):
            return f"priority is one of {', '.join(TaskPriority)}"
    return None


Acceptance = Annotated[
    tuple[Clause, ...], Field(max_length=MAX_CLAUSES), BeforeValidator(_from_text), AfterValidator(_about_tasks)
]
"""Conditions on tasks, all of which are required; as a text they have commas between them."""
