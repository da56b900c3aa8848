import pytest
from pydantic import ValidationError

from bus import AnyOf, Condition, Operator, Preference, TaskCreate
from bus.messages import TaskHeader
from bus.requirements import requirement_key


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("gpu >= 16", Condition(attribute="gpu", op=Operator.GE, value=16)),
        ("gpu>=16.5", Condition(attribute="gpu", op=Operator.GE, value=16.5)),
        ("region == eu", Condition(attribute="region", op=Operator.EQ, value="eu")),
        ('region == "eu west"', Condition(attribute="region", op=Operator.EQ, value="eu west")),
        ('region in ["eu", "us"]', Condition(attribute="region", op=Operator.IN, value=("eu", "us"))),
        ("languages contains de", Condition(attribute="languages", op=Operator.CONTAINS, value="de")),
        ("cuda exists", Condition(attribute="cuda", op=Operator.EXISTS)),
        ("trusted != false", Condition(attribute="trusted", op=Operator.NE, value=False)),
    ],
)
def test_a_condition_may_be_given_as_a_text(text: str, condition: Condition) -> None:
    assert Condition.model_validate(text) == condition
    assert Preference.model_validate(text).weight == 1.0


@pytest.mark.parametrize("text", ["", "gpu", "16 >= gpu", "gpu is big", "gpu => 1", "; == 1"])
def test_what_is_no_condition_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValidationError, match="gpu >= 16"):
        Condition.model_validate(text)


def test_tasks_that_ask_the_same_have_one_key_and_others_another() -> None:
    a, b = Condition(attribute="a", value=1), Condition(attribute="b", value=1)
    assert requirement_key("x", None, (a,), ()) == requirement_key("x", None, (a,), ())
    keys = {
        requirement_key("x", None, (a,), ()),
        requirement_key("x", None, (b,), ()),
        requirement_key("x", ">=2", (a,), ()),
        requirement_key("y", None, (a,), ()),
        requirement_key("x", None, (), ()),
    }
    assert len(keys) == 5


def test_a_disjunction_stands_wherever_a_condition_does() -> None:
    either = AnyOf(any_of=(Condition(attribute="gpu", op=Operator.GE, value=16), Condition(attribute="tpu", value=1)))
    wire = {
        "any_of": [
            {"attribute": "gpu", "op": ">=", "value": 16},
            {"attribute": "tpu", "value": 1},
        ]
    }
    header = TaskHeader.model_validate({"capability": "x", "requires": [{"attribute": "a", "value": 1}, wire]})
    assert header.requires == (Condition(attribute="a", value=1), either)
    assert TaskHeader.model_validate_json(header.model_dump_json()) == header
    assert TaskHeader.model_validate({"capability": "x", "requires": ["(gpu >= 16 | tpu == 1)"]}).requires == (either,)
    assert AnyOf.model_validate("(gpu >= 16 | tpu == 1)") == either


@pytest.mark.parametrize(
    ("clause", "complaint"),
    [
        ({"attribute": "a", "op": "==", "value": 1, "wat": 2}, "Extra inputs"),
        ({"any_of": [{"attribute": "a", "value": 1}], "wat": 2}, "Extra inputs"),
        ({"any_of": []}, "at least 1"),
        ({"any_of": [{"any_of": [{"attribute": "a", "value": 1}]}]}, "Extra inputs"),
        ({"attribute": "a"}, "`a ==` wants a value"),
        ({"attribute": "a", "op": "in", "value": "eu"}, r"`a in` wants a list, e.g. \[eu, us\]"),
        ({"attribute": "a", "op": "contains", "value": ["eu"]}, "wants one value"),
        ({"attribute": "a", "op": ">", "value": True}, "wants a number or a text"),
        ({"attribute": "a", "value": float("nan")}, "finite"),
        (Preference(attribute="a", value=1), "write a condition such as"),
        (7, "write a condition such as"),
    ],
)
def test_what_no_agent_could_ever_meet_or_nobody_understands_is_refused(clause: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TaskHeader.model_validate({"capability": "x", "requires": [clause]})


def test_exists_has_no_value_whatever_is_sent() -> None:
    assert Condition.model_validate({"attribute": "a", "op": "exists", "value": 3}).value is None


@pytest.mark.parametrize("text", ["2", ">=two", ">=2,", ">=2 <3"])
def test_a_range_of_versions_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValidationError, match=r"write e\.g\. '>=2,<3'"):
        TaskHeader.model_validate({"capability": "x", "version": text})


def test_equal_ranges_of_versions_are_equal_texts() -> None:
    ranges = [TaskCreate(capability="x", version=text).version for text in (">=2,<3", " >= 2 , <3 ", "", None)]
    assert ranges == [">=2,<3", ">=2,<3", None, None]


def test_a_capability_may_say_all_that_is_asked() -> None:
    task = TaskCreate.model_validate(
        {
            "capability": "translate>=2[lang contains de, region ~ eu:10]",
            "requires": ["gpu >= 16"],
            "prefers": ["ram >= 8"],
        }
    )
    assert task == TaskCreate.model_validate(
        {
            "capability": "translate",
            "version": ">=2",
            "requires": ["lang contains de", "gpu >= 16"],
            "prefers": [{"attribute": "region", "value": "eu", "weight": 10}, "ram >= 8"],
        }
    )
    plain = TaskCreate.model_validate({"capability": "translate[gpu exists]", "version": "<3"})
    assert (plain.capability, plain.version, len(plain.requires)) == ("translate", "<3", 1)
    assert plain.model_fields_set == {"capability", "version", "requires"}


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"capability": "a>=2", "version": "<3"}, "the version is given twice, as '>=2' and '<3'"),
        ({"capability": "a[gpu is big]"}, r"a\[gpu \^is big"),
        ({"capability": "a[gpu exists]", "requires": "gpu exists"}, "valid tuple"),
        ({"capability": f"a[{', '.join(['b == 1'] * 32)}]", "requires": ["c == 1"]}, "at most 32"),
    ],
)
def test_parts_that_contradict_each_other_or_are_wrong_are_refused(fields: dict[str, object], complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        TaskCreate.model_validate(fields)
