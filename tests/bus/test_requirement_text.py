"""The grammar: what is written is read back, what is read is written in one way, what is wrong is pointed at."""

import traceback

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus import (
    AnyOf,
    Condition,
    Operator,
    Preference,
    RequirementSyntaxError,
    TaskRequirement,
    format_requirement,
    parse_requirement,
)
from bus.requirement_text import format_clause, parse_any_of, parse_clauses, parse_condition, parse_preference
from tests.support.requirements import ODD_TEXTS, clauses, conditions, disjunctions, preferences, requirements, written


@given(requirements)
def test_what_is_written_is_read_back_as_it_was(requirement: TaskRequirement) -> None:
    again = parse_requirement(format_requirement(requirement))
    assert again == requirement
    assert again.model_dump_json() == requirement.model_dump_json()  # 1, 1.0 and True are equal, and not the same


@given(written)
@example("translate>=2[lang contains de, gpu == true, region ~ eu:10]")
def test_what_is_read_is_written_in_one_way(text: str) -> None:
    once = format_requirement(parse_requirement(text))
    assert parse_requirement(once) == parse_requirement(text)
    assert format_requirement(parse_requirement(once)) == once


@pytest.mark.parametrize("text", ODD_TEXTS)
def test_a_text_is_never_taken_for_something_else(text: str) -> None:
    wish, condition = Preference(attribute="a", value=text), Condition(attribute="a", value=text)
    requirement = TaskRequirement(capability="x", requires=(condition,), prefers=(wish,))
    assert parse_requirement(format_requirement(requirement)) == requirement


@given(conditions, disjunctions, preferences, st.lists(clauses, max_size=3))
def test_every_part_is_read_by_itself(
    condition: Condition, disjunction: AnyOf, preference: Preference, several: list[Condition | AnyOf]
) -> None:
    assert parse_condition(format_clause(condition)) == condition
    assert parse_any_of(format_clause(disjunction)) == disjunction
    assert parse_preference(format_clause(preference)) == preference
    assert parse_clauses(", ".join(map(format_clause, several))) == tuple(several)


def _wrong_at(text: str) -> RequirementSyntaxError | None:
    try:
        parse_requirement(text)
    except RequirementSyntaxError as error:
        return error
    return None


_nearly = st.builds(
    lambda text, at, more: text[:at] + more + text[at:], written, st.integers(0, 40), st.text(max_size=2)
)


@given(st.text(max_size=30) | _nearly)
@example("a[b == \ud800]")
@example('a[b == "\\ud800"]')
@example("a[b == 1e999]")
@example(f"a[b == {'1' * 5000}]")
def test_any_text_is_a_requirement_or_wrong_at_one_place(text: str) -> None:
    error = _wrong_at(text)
    if error is not None:
        assert error.text == text
        assert 1 <= error.column <= len(text) + 1
        assert error.expected
        assert len(str(error).splitlines()) == 1


def test_a_requirement_has_all_its_parts_in_one_text() -> None:
    text = 'translate>=2,<3[lang contains de, (gpu >= 16 | tpu exists), zone in [eu, "u s"], area ~ eu:10, ram ~ >= 8]'
    assert parse_requirement(text) == TaskRequirement(
        capability="translate",
        version=">=2,<3",
        requires=(
            Condition(attribute="lang", op=Operator.CONTAINS, value="de"),
            AnyOf(
                any_of=(
                    Condition(attribute="gpu", op=Operator.GE, value=16),
                    Condition(attribute="tpu", op=Operator.EXISTS),
                )
            ),
            Condition(attribute="zone", op=Operator.IN, value=("eu", "u s")),
        ),
        prefers=(
            Preference(attribute="area", value="eu", weight=10),
            Preference(attribute="ram", op=Operator.GE, value=8),
        ),
    )
    assert format_requirement(parse_requirement(text)) == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("16", 16),
        ("1.5e3", 1500.0),
        ("true", True),
        ("eu-west/1", "eu-west/1"),
        ("1.2.3", "1.2.3"),
        ("007", "007"),
        ('"16"', "16"),
        ('"a, b] \\u00e4"', "a, b] ä"),
        ("größe", "größe"),
        ("[]", ()),
        ("[1, eu, true]", (1, "eu", True)),
    ],
)
def test_a_value_is_a_number_or_true_or_false_else_a_text(text: str, value: object) -> None:
    found = parse_condition(f"a == {text}").value
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "preference"),
    [
        ("region ~ eu", Preference(attribute="region", value="eu")),
        ("region == eu", Preference(attribute="region", value="eu")),
        ("region == eu:3", Preference(attribute="region", value="eu", weight=3)),
        ("gpu~>=16:0.5", Preference(attribute="gpu", op=Operator.GE, value=16, weight=0.5)),
        ("gpu ~ exists:2", Preference(attribute="gpu", op=Operator.EXISTS, weight=2)),
        ('gpu ~ "exists"', Preference(attribute="gpu", value="exists")),
    ],
)
def test_a_preference_may_use_every_operator_and_have_a_weight(text: str, preference: Preference) -> None:
    assert parse_preference(text) == preference == Preference.model_validate(text)


@pytest.mark.parametrize(
    ("text", "column", "expected"),
    [
        ("", 1, "the name of a capability"),
        ("two words", 5, "a range of versions such as >=2,<3, or conditions in [ ]"),
        ("a>=2,<x[b == 1]", 6, "a range of versions such as >=2,<3"),
        ("a>=2[b == 1] c", 14, "the end"),
        (f"a>={'1' * 64}", 2, "a range of versions of at most 64 characters"),
        ("a[", 3, "the name of an attribute"),
        ("a[b == 1,]", 10, "the name of an attribute"),
        ("a[b]", 4, "`~` or an operator (== != > >= < <= in contains exists)"),
        ("a[(b ~ c)]", 6, "an operator (== != > >= < <= in contains exists)"),
        ("a[b ==]", 7, "a value"),
        ("a[b == 1", 9, "`,` or `]` (a text with spaces or signs goes into double quotes)"),
        ("a[b == c d]", 10, "`,` or `]` (a text with spaces or signs goes into double quotes)"),
        ("a[b exists c]", 12, "`,` or `]`"),
        ("a[(b == 1, c == 2)]", 10, "`|` or `)` (a text with spaces or signs goes into double quotes)"),
        ("a[b == True]", 8, "true, false, or a text in double quotes"),
        ('a[b == "c]', 8, "a text in double quotes, as in JSON"),
        ("a[b == 1e999]", 8, "a number that is not as large"),
        ("a[b in eu]", 8, "a list, e.g. [eu, us]"),
        ("a[b in [eu us]]", 12, "`,` or `]` (a text with spaces or signs goes into double quotes)"),
        ("a[b >= true]", 8, "a number or a text"),
        ("a[b contains [c]]", 14, "one value"),
        ("a[b ~ c:0]", 9, "a weight above 0, at most 1000"),
        ("a[b ~ c:1001]", 9, "a weight above 0, at most 1000"),
        ("a[b ~ c:lots]", 9, "a weight above 0, at most 1000"),
        ("a[b == \ud800]", 8, "a whole character"),
        ('a[b == "\\ud800"]', 8, "a text of whole characters"),
        (f"a[{', '.join(['b == 1'] * 33)}]", 2 + 32 * 8 + 1, "at most 32 conditions and as many preferences"),
        (f"a[({'|'.join(['b == 1'] * 33)})]", 3 + 32 * 7, "at most 32 conditions"),
    ],
)
def test_an_error_says_where_and_what_was_expected(text: str, column: int, expected: str) -> None:
    with pytest.raises(RequirementSyntaxError) as caught:
        parse_requirement(text)
    assert (caught.value.text, caught.value.column, caught.value.expected) == (text, column, expected)


def test_an_error_is_one_line_and_a_traceback_has_a_caret_below_the_place() -> None:
    with pytest.raises(RequirementSyntaxError) as caught:
        parse_condition("gpu is big")
    assert str(caught.value) == (
        "'gpu ^is big' is not a condition: column 5 (^): expected an operator (== != > >= < <= in contains exists): "
        "write `attribute operator value`, e.g. 'gpu >= 16'"
    )
    assert "\ngpu is big\n    ^\n" in "".join(traceback.format_exception(caught.value))


def test_of_a_long_text_only_the_surroundings_are_shown() -> None:
    with pytest.raises(RequirementSyntaxError) as caught:
        parse_requirement(f"a[b in [{', '.join(['x'] * 1000)}, c d]]")
    assert len(str(caught.value)) < 400
    assert "c ^d]]'" in str(caught.value)
