"""A naive matcher to compare with: loops over plain values, written from `docs/requirements.md` alone."""

from operator import ge, gt, le, lt
from typing import Any

from packaging.specifiers import SpecifierSet

from bus import AnyOf, Condition
from bus.messages import CapabilitySpec
from dispatcher.core.model import AgentState
from dispatcher.core.terms import Requirement


def naive_condition(condition: Condition, agent: AgentState, spec: CapabilitySpec) -> bool:
    name, want = condition.attribute, condition.value
    if name == "agent.id":
        have: Any = agent.id
    elif name in spec.attributes:
        have = spec.attributes[name]
    elif name in agent.attributes:
        have = agent.attributes[name]
    else:
        return condition.op == "!="
    if condition.op == "exists":
        return True
    ordered: dict[str, Any] = {">": gt, ">=": ge, "<": lt, "<=": le}
    if condition.op in ordered:
        kinds = {kind_of(have), kind_of(want)}
        return kinds in ({"number"}, {"text"}) and bool(ordered[condition.op](have, want))
    if condition.op == "in":
        assert isinstance(want, tuple)
        return any(equal(have, one) for one in want)
    if condition.op == "contains":
        return isinstance(have, list) and any(equal(one, want) for one in have)
    return equal(have, want) == (condition.op == "==")


def kind_of(value: object) -> str:
    kinds: dict[type, str] = {bool: "truth", int: "number", float: "number", str: "text", list: "list", tuple: "list"}
    return kinds[type(value)]


def equal(have: Any, want: Any) -> bool:
    if kind_of(have) != kind_of(want):
        return False
    if kind_of(have) == "list":
        return len(have) == len(want) and all(equal(*pair) for pair in zip(have, want, strict=True))
    return bool(have == want)


def naive_can(agent: AgentState, requirement: Requirement) -> list[CapabilitySpec]:
    able = []
    for spec in agent.capabilities:
        good = spec.name == requirement.capability
        if requirement.version is not None and not SpecifierSet(requirement.version).contains(spec.version):
            good = False
        for clause in requirement.conditions:
            one_of = clause.any_of if isinstance(clause, AnyOf) else (clause,)
            if not any(naive_condition(condition, agent, spec) for condition in one_of):
                good = False
        if good:
            able.append(spec)
    return able
