"""Whether an agent can do a task: capability name, version range, conditions; and whether it wants to: `accepts`.

The only place that decides it. What an agent lacks, and whether it lacks anything, come from one generator, so an
explanation never says otherwise than the decision.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from bus.acceptance import conditions_of
from bus.messages import CapabilitySpec
from bus.requirement_text import format_clause
from bus.requirements import AGENT_ID, AnyOf, Clause, Condition, Operator, Value
from bus.states import TaskPriority
from dispatcher.core.model import AgentState
from dispatcher.core.terms import MILLI, Requirement

_RANKS: Final[Mapping[object, int]] = {level: rank for rank, level in enumerate(TaskPriority)}
_NO_VERSION: Final = Version("0.dev0")


def meets(clause: Clause, attributes: Mapping[str, Value]) -> bool:
    """Tell whether `attributes` satisfy a condition, or one of a disjunction's; a missing one satisfies only `!=`.

    Values of different kinds are unequal and have no order; `True` is no number.
    """
    if isinstance(clause, AnyOf):
        return any(meets(condition, attributes) for condition in clause.any_of)
    if clause.attribute not in attributes:
        return clause.op is Operator.NE
    return _TESTS[clause.op](attributes[clause.attribute], clause.value)


def _same(have: object, want: object) -> bool:
    if isinstance(have, list) and isinstance(want, tuple):
        return len(have) == len(want) and all(map(_same, have, want))
    return isinstance(have, bool) == isinstance(want, bool) and have == want


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
    def test(have: object, want: object) -> bool:
        if isinstance(have, TaskPriority):
            return want in _RANKS and compare(_RANKS[have], _RANKS[want])
        if isinstance(have, bool) or isinstance(want, bool):
            return False
        for kind in (str, (int, float)):
            if isinstance(have, kind) and isinstance(want, kind):
                return compare(have, want)
        return False

    return test


_TESTS: Final[Mapping[Operator, Callable[[object, object], bool]]] = {
    Operator.EXISTS: lambda _have, _want: True,
    Operator.EQ: _same,
    Operator.NE: lambda have, want: not _same(have, want),
    Operator.IN: lambda have, want: isinstance(want, tuple) and any(_same(have, item) for item in want),
    Operator.CONTAINS: lambda have, want: isinstance(have, list) and any(_same(item, want) for item in have),
    Operator.GT: _ordered(gt),
    Operator.GE: _ordered(ge),
    Operator.LT: _ordered(lt),
    Operator.LE: _ordered(le),
}


# --- what tasks ask of agents


@lru_cache(maxsize=4096)
def version_in(version: str, wanted: str | None) -> bool:
    """Tell whether `version` is in the PEP 440 range `wanted`; text that is no version or range matches nothing."""
    if wanted is None:
        return True
    try:
        return SpecifierSet(wanted, prereleases=True).contains(Version(version))
    except (InvalidSpecifier, InvalidVersion):
        return False


def find_capability(agent: AgentState, requirement: Requirement) -> CapabilitySpec | None:
    """Return the agent's capability that meets all of `requirement`, the latest if several versions do; else None."""
    found = [spec for spec in _offered(agent, requirement) if next(_lacking(agent, spec, requirement), None) is None]
    if not found:
        return None
    return found[0] if len(found) == 1 else max(found, key=_age)


def failing(agent: AgentState, requirement: Requirement) -> list[str]:
    """Return what of `requirement` the agent does not meet, in words; nothing exactly when `find_capability` finds.

    The words for one part are the same for all agents but for what they have: ``does not offer translate``,
    ``is of version 1.2, not >=2``, ``lacks gpu == true``, ``has zone == eu`` (of ``zone != eu``). Of several versions
    that the agent offers, the one that lacks least is told of, the latest of such.
    """
    words = [
        [_words(spec, part) for part in _lacking(agent, spec, requirement)]
        for spec in sorted(_offered(agent, requirement), key=_age, reverse=True)
    ]
    return min(words, key=len, default=[f"does not offer {requirement.capability}"])


def shortage(agent: AgentState, requirement: Requirement) -> list[str]:
    """Return which room the agent could never have for `requirement`, in words; nothing exactly when it `could_fit`."""
    words = []
    if agent.slots < requirement.slots:
        words.append(f"has only {agent.slots} of {requirement.slots} slots")
    for name, much in requirement.resources:
        has = agent.resources.get(name, 0)
        if has < much:
            words.append(f"has only {has / MILLI:g} of {much / MILLI:g} {name}" if has else f"has no {name}")
    return words


def preferences_met(agent: AgentState, capability: CapabilitySpec, requirement: Requirement) -> int:
    """Return which of the preferences the agent meets, as bits in their order."""
    if not requirement.preferences:
        return 0
    attributes = _attributes(agent, capability)
    return sum(1 << n for n, preference in enumerate(requirement.preferences) if meets(preference, attributes))


def _offered(agent: AgentState, requirement: Requirement) -> Iterator[CapabilitySpec]:
    return (spec for spec in agent.capabilities if spec.name == requirement.capability)


def _lacking(agent: AgentState, capability: CapabilitySpec, requirement: Requirement) -> Iterator[Clause | str]:
    """Yield each part of `requirement` that is not met, of the version its range: all that decides is here."""
    if requirement.version is not None and not version_in(capability.version, requirement.version):
        yield requirement.version
    if requirement.conditions:
        attributes = _attributes(agent, capability)
        for clause in requirement.conditions:
            if not meets(clause, attributes):
                yield clause


def _words(capability: CapabilitySpec, part: Clause | str) -> str:
    if isinstance(part, str):
        return f"is of version {capability.version}, not {part}"
    if isinstance(part, Condition) and part.op is Operator.NE:
        return f"has {format_clause(part.model_copy(update={'op': Operator.EQ}))}"
    return f"lacks {format_clause(part)}"


def _attributes(agent: AgentState, capability: CapabilitySpec) -> dict[str, Value]:
    return {**agent.attributes, **capability.attributes, AGENT_ID: agent.id}


@lru_cache(maxsize=4096)
def _version(text: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion:
        return _NO_VERSION


def _age(capability: CapabilitySpec) -> Version:
    return _version(capability.version)


# --- what agents ask of tasks


def accepts(clauses: Iterable[Clause], facts: Mapping[str, Value]) -> bool:
    """Tell whether an agent with these conditions takes a task with these facts (`Terms.facts`): it must meet all."""
    return all(meets(clause, facts) for clause in clauses)


def refusal(clauses: Iterable[Clause], facts: Mapping[str, Value]) -> str | None:
    """Return in words what an agent with these conditions has against a task; None exactly when it `accepts`."""
    against = next((clause for clause in clauses if not meets(clause, facts)), None)
    return None if against is None else f"accepts only {format_clause(against)}"


def facts_asked(clauses: Iterable[Clause]) -> frozenset[str]:
    """Return the names of the facts on which `accepts` with these conditions depends: tasks equal in them are alike."""
    return frozenset(condition.attribute for condition in conditions_of(clauses))
