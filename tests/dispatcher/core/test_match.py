"""Who can do a task, who wants to, and what is missing where nobody can."""

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus import AnyOf, Condition, Operator, Preference, TaskPriority, parse_requirement
from bus.acceptance import TASK_FACTS
from bus.messages import CapabilitySpec
from bus.requirement_text import parse_clauses, parse_condition, parse_preference
from bus.requirements import Clause
from dispatcher.core.match import accepts, facts_asked, failing, find_capability, meets, preferences_met
from dispatcher.core.model import AgentState
from dispatcher.core.record import agent_record, restore_agent
from dispatcher.core.terms import Requirement, Terms
from tests.dispatcher.core.naive_match import naive_can, naive_condition


def agent(name: str = "a", *capabilities: CapabilitySpec, **attributes: Any) -> AgentState:
    """Make an agent that offers `do` unless other capabilities are given."""
    return AgentState(
        id=name,
        session="s",
        capabilities=capabilities or (CapabilitySpec(name="do"),),
        slots=1,
        registered_at=0,
        lease_ms=5_000,
        attributes=attributes,
    )


def task_facts(
    capability: str, priority: TaskPriority, fairness_key: str | None = None, tags: Iterable[str] = ()
) -> dict[str, Any]:
    """Return the facts of a task."""
    requirement = Requirement(capability, capability)
    return Terms(requirement, priority, 0, fairness_key=fairness_key, tags=tuple(tags)).facts


def asked(text: str) -> Requirement:
    """Make what the core knows of a requirement that is written as a text."""
    found = parse_requirement(text)
    return Requirement(text, found.capability, found.version, found.requires, found.prefers)


# --- random fleets: few names and few values, so that they often meet

NAMES = ["agent.id", "a", "b", "c"]
scalars = st.sampled_from([0, 1, 2, 1.0, 1.5, True, False, "", "1", "x", "y", "a0", "a1"])
values = scalars | st.lists(scalars, max_size=2)
orders = st.sampled_from([0, 1, 1.5, 2, "", "x", "y", "a0"])
attributes = st.dictionaries(st.sampled_from(NAMES), values, max_size=3)
specs = st.builds(
    CapabilitySpec,
    name=st.sampled_from(["do", "make"]),
    version=st.sampled_from(["1.0", "1.2", "1.10", "2.0"]),
    attributes=attributes,
)


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    op = draw(st.sampled_from(Operator))
    value: Any = None
    match op:
        case Operator.EQ | Operator.NE:
            value = draw(values)
        case Operator.IN:
            value = draw(st.lists(scalars, max_size=3))
        case Operator.CONTAINS:
            value = draw(scalars)
        case Operator.GT | Operator.GE | Operator.LT | Operator.LE:
            value = draw(orders)
    return Condition(attribute=draw(st.sampled_from(NAMES)), op=op, value=value)


@st.composite
def fleets(draw: st.DrawFn) -> list[AgentState]:
    return [
        agent(f"a{n}", *draw(st.lists(specs, min_size=1, max_size=3)), **draw(attributes))
        for n in range(draw(st.integers(1, 4)))
    ]


clauses = conditions() | st.builds(AnyOf, any_of=st.lists(conditions(), min_size=1, max_size=3).map(tuple))
wishes = st.builds(
    lambda condition, weight: Preference(**dict(condition), weight=weight), conditions(), st.integers(1, 9)
)
requirements = st.builds(
    Requirement,
    st.just("any"),
    st.just("do"),
    st.sampled_from([None, ">=1.1", "<2", "==1.*", ">=3"]),
    st.lists(clauses, max_size=3).map(tuple),
    st.lists(wishes, max_size=3).map(tuple),
)


@given(fleets(), requirements)
def test_match_agrees_with_a_naive_reference_matcher_on_random_fleets(
    fleet: list[AgentState], requirement: Requirement
) -> None:
    for one in fleet:
        able, found = naive_can(one, requirement), find_capability(one, requirement)
        assert (found in able) if able else (found is None)
        if found is not None:
            met = preferences_met(one, found, requirement)
            for n, preference in enumerate(requirement.preferences):
                assert bool(met >> n & 1) == naive_condition(preference, one, found)


@given(fleets(), requirements)
def test_what_is_failing_is_nothing_exactly_when_the_agent_can(
    fleet: list[AgentState], requirement: Requirement
) -> None:
    for one in fleet:
        assert (failing(one, requirement) == []) == (find_capability(one, requirement) is not None)


# --- examples


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("do", []),
        ("translate", ["does not offer translate"]),
        ("translate[gpu exists]", ["does not offer translate"]),
        ("do>=2", ["is of version 1.0, not >=2"]),
        ("do>=2[gpu == true, ram >= 8]", ["is of version 1.0, not >=2", "lacks gpu == true"]),
        ("do[(gpu exists | tpu exists)]", ["lacks (gpu exists | tpu exists)"]),
        ("do[zone != eu]", ["has zone == eu"]),
        ("do[agent.id != worker-3]", ["has agent.id == worker-3"]),
        ("do[zone in [us], gpu ~ exists]", ["lacks zone in [us]"]),
    ],
)
def test_what_an_agent_lacks_is_said_in_the_words_of_the_requirement(text: str, words: list[str]) -> None:
    assert failing(agent("worker-3", zone="eu", ram=16), asked(text)) == words


def test_of_several_versions_the_one_that_lacks_least_is_told_of() -> None:
    one = agent(
        "a",
        CapabilitySpec(name="do", version="1.0", attributes={"gpu": True}),
        CapabilitySpec(name="do", version="3.0"),
        CapabilitySpec(name="do", version="2.0"),
    )
    assert failing(one, asked("do<2[ram exists, gpu exists]")) == ["lacks ram exists"]
    assert failing(one, asked("do<=1[gpu exists, ram == 8]")) == ["lacks ram == 8"]
    assert failing(one, asked("do[tpu exists, ram exists, gpu != true]")) == ["lacks tpu exists", "lacks ram exists"]
    assert failing(one, asked("do>3")) == ["is of version 3.0, not >3"]


def test_the_latest_version_that_fits_is_found() -> None:
    versions = ["1.2", "1.10", "no version", "2.0"]
    one = agent("a", *(CapabilitySpec(name="do", version=version) for version in versions))
    found = [find_capability(one, asked(text)) for text in ("do", "do<2", "do<1.5", "do>2")]
    assert [None if spec is None else spec.version for spec in found] == ["2.0", "1.10", "1.2", None]


def test_an_agent_is_addressed_by_its_id_whatever_it_calls_itself() -> None:
    liar = agent("worker-3", CapabilitySpec(name="do", attributes={"agent.id": "worker-1"}), **{"agent.id": "worker-2"})
    assert find_capability(liar, asked("do[agent.id == worker-3]"))
    assert find_capability(liar, asked("do[agent.id in [worker-1, worker-2]]")) is None
    assert find_capability(liar, asked("do[agent.id != worker-3]")) is None
    assert preferences_met(liar, liar.capabilities[0], asked("do[agent.id ~ worker-3:4, agent.id ~ a]")) == 0b01


def test_a_zone_is_avoided_by_those_who_have_none_too() -> None:
    away = asked("do[zone != eu]")
    assert [find_capability(one, away) is not None for one in (agent(zone="eu"), agent(zone="us"), agent())] == [
        False,
        True,
        True,
    ]


def test_preferences_of_every_operator_add_up() -> None:
    one = agent(gpu=24, zone="eu")
    texts = ("gpu ~ >= 16:2", "zone ~ in [eu]:0.5", "tpu ~ exists:9", "ram ~ != 1")
    wishes = tuple(map(parse_preference, texts))
    assert preferences_met(one, one.capabilities[0], Requirement("", "do", preferences=wishes)) == 0b1011


# --- agents refuse, too


@pytest.mark.parametrize(
    ("conditions", "taken"),
    [
        ("", True),
        ("fairness_key != batch", True),
        ("fairness_key == tenant-7", True),
        ("fairness_key in [a, b]", False),
        ("capability in [do, make]", True),
        ("capability == make", False),
        ("tags contains gpu", True),
        ("tags contains slow", False),
        ("tags exists, fairness_key exists", True),
        ("priority == HIGH", True),
        ("priority >= HIGH", True),
        ("priority > HIGH", False),
        ("priority > MEDIUM", True),
        ("priority < URGENT", True),
        ("priority <= LOW", False),
        ("priority in [LOW, HIGH]", True),
        ("priority != HIGH", False),
        ("(priority == URGENT | tags contains gpu), capability == do", True),
        ("(priority == URGENT | tags contains slow), capability == do", False),
    ],
)
def test_a_task_is_taken_if_all_conditions_of_the_agent_are_met(conditions: str, taken: bool) -> None:
    facts = task_facts("do", TaskPriority.HIGH, "tenant-7", ("gpu", "nightly"))
    assert accepts(parse_clauses(conditions), facts) is taken


def test_a_task_without_key_and_tags_has_none() -> None:
    facts = task_facts("do", TaskPriority.LOW)
    assert accepts(parse_clauses("fairness_key != batch"), facts)
    assert not accepts(parse_clauses("fairness_key exists"), facts)
    assert not accepts(parse_clauses("tags exists"), facts)


def test_priorities_are_ordered_by_urgency_not_by_their_letters() -> None:
    for low, high in zip(list(TaskPriority), list(TaskPriority)[1:], strict=False):
        assert meets(parse_condition(f"priority < {high}"), task_facts("do", low))
        assert not meets(parse_condition(f"priority <= {low}"), task_facts("do", high))
    assert not meets(parse_condition("priority < zzz"), task_facts("do", TaskPriority.LOW))


@pytest.mark.parametrize(
    ("conditions", "facts"),
    [
        ("", set()),
        ("capability != x", {"capability"}),
        ("priority >= HIGH, (tags contains a | fairness_key == b | tags exists)", {"priority", "tags", "fairness_key"}),
    ],
)
def test_what_a_decision_depends_on_is_known(conditions: str, facts: set[str]) -> None:
    assert facts_asked(parse_clauses(conditions)) == facts


def _facts(given: Iterable[tuple[str, TaskPriority, str | None, list[str]]]) -> list[dict[str, Any]]:
    return [dict(task_facts(*one)) for one in given]


_tasks = st.tuples(
    st.sampled_from(["do", "make"]),
    st.sampled_from(TaskPriority),
    st.sampled_from([None, "a", "b"]),
    st.lists(st.sampled_from(["x", "y"]), max_size=2),
)
_conditions = st.builds(
    Condition,
    attribute=st.sampled_from(TASK_FACTS),
    op=st.sampled_from([Operator.EQ, Operator.NE, Operator.CONTAINS, Operator.GE]),
    value=st.sampled_from(["do", "a", "x", "HIGH"]),
)
_disjunctions = st.builds(AnyOf, any_of=st.lists(_conditions, min_size=1, max_size=2).map(tuple))


@given(_tasks, _tasks, st.lists(_conditions | _disjunctions, max_size=3))
def test_tasks_that_are_equal_in_what_is_asked_are_taken_alike(one: Any, other: Any, asked: list[Clause]) -> None:
    first, second = _facts([one, other])
    names = facts_asked(asked)
    mixed = {**second, **{name: first[name] for name in names if name in first}}
    mixed = {name: value for name, value in mixed.items() if name not in names or name in first}
    assert accepts(asked, mixed) == accepts(asked, first)


def test_a_new_leader_knows_what_an_agent_accepts() -> None:
    one = agent()
    one.accepts = parse_clauses("fairness_key != batch, (priority >= HIGH | tags contains gpu)")
    record = agent_record(one)
    again = restore_agent(type(record).model_validate_json(record.model_dump_json()), now=1)
    assert again.accepts == one.accepts
