"""Whether an agent can do a task: capability name, version range, attribute conditions.

The only place that decides it; waiting tasks are explained by the same functions.
"""

from collections.abc import Mapping
from functools import lru_cache

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from bus.messages import CapabilitySpec
from bus.requirements import Condition, Operator, Value
from dispatcher.core.model import AgentState, Requirement


def meets(condition: Condition, attributes: Mapping[str, Value]) -> bool:
    """Tell whether `attributes` satisfy `condition`; a missing attribute satisfies only `!=`.

    Values of different kinds are unequal and have no order; `True` is no number.
    """
    if condition.attribute not in attributes:
        return condition.op is Operator.NE
    have, want = attributes[condition.attribute], condition.value
    match condition.op:
        case Operator.EXISTS:
            return True
        case Operator.EQ:
            return _same(have, want)
        case Operator.NE:
            return not _same(have, want)
        case Operator.IN:
            return isinstance(want, list) and any(_same(have, item) for item in want)
        case Operator.CONTAINS:
            return isinstance(have, list) and any(_same(item, want) for item in have)
        case _:
            return _ordered(condition.op, have, want)


def _same(left: object, right: object) -> bool:
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def _ordered(op: Operator, have: object, want: object) -> bool:
    if isinstance(have, bool) or isinstance(want, bool):
        return False
    if (isinstance(have, str) and isinstance(want, str)) or (isinstance(have, int | float) and isinstance(want, int | float)):
        order = (have > want) - (have < want)
    else:
        return False
    return {Operator.GT: order > 0, Operator.GE: order >= 0, Operator.LT: order < 0, Operator.LE: order <= 0}[op]


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
