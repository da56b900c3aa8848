"""Whether an agent can do a task: capability name, version range, attribute conditions.

The only place that decides it; waiting tasks are explained by the same functions.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from operator import ge, gt, le, lt
from typing import Any, Final

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from bus.messages import CapabilitySpec
from bus.requirements import Condition, Operator, Value
from dispatcher.core.model import AgentState
from dispatcher.core.terms import Requirement


def meets(condition: Condition, attributes: Mapping[str, Value]) -> bool:
    """Tell whether `attributes` satisfy `condition`; a missing attribute satisfies only `!=`.

    Values of different kinds are unequal and have no order; `True` is no number.
    """
    if condition.attribute not in attributes:
        return condition.op is Operator.NE
    return _TESTS[condition.op](attributes[condition.attribute], condition.value)


def _same(have: object, want: object) -> bool:
    if isinstance(have, list) and isinstance(want, tuple):
        return len(have) == len(want) and all(map(_same, have, want))
    return isinstance(have, bool) == isinstance(want, bool) and have == want


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[object, object], bool]:
    def test(have: object, want: object) -> bool:
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
    """Return the agent's capability that meets all of `requirement`, or None."""
    for capability in agent.capabilities:
        if capability.name != requirement.capability or not version_in(capability.version, requirement.version):
            continue
        if not requirement.conditions:
            return capability
        attributes = {**agent.attributes, **capability.attributes}
        if all(meets(condition, attributes) for condition in requirement.conditions):
            return capability
    return None


def preference_weight(agent: AgentState, capability: CapabilitySpec, requirement: Requirement) -> float:
    """Return the sum of the weights of the preferences that the agent meets."""
    if not requirement.preferences:
        return 0.0
    attributes = {**agent.attributes, **capability.attributes}
    return sum(p.weight for p in requirement.preferences if meets(p, attributes))
