import pytest
from pydantic import ValidationError

from bus import Condition, Operator, Preference
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
