"""What an agent may ask of tasks, as it signs in."""

from typing import Any

import pytest
from pydantic import ValidationError

from bus import Condition, Operator
from bus.messages import Register


def register(**fields: Any) -> Register:
    return Register.model_validate({"agent_id": "a", "session": "s", "capabilities": [{"name": "do"}], **fields})


def test_an_agent_accepts_everything_unless_it_says_otherwise() -> None:
    assert register().accepts == ()
    assert register(accepts="").accepts == ()


def test_conditions_on_tasks_are_a_text_or_a_list_and_are_the_same_on_the_wire() -> None:
    one = Condition(attribute="fairness_key", op=Operator.NE, value="batch")
    message = register(accepts="fairness_key != batch, (priority >= HIGH | tags contains gpu)")
    assert message.accepts[0] == one
    assert register(accepts=[one, "(priority >= HIGH | tags contains gpu)"]) == message
    assert Register.model_validate_json(message.model_dump_json()) == message


@pytest.mark.parametrize(
    ("accepts", "complaint"),
    [
        ("region == eu", "a task has no 'region': use capability, priority, fairness_key, tags"),
        ("(capability == a | region == eu)", "a task has no 'region'"),
        ("priority >= SOON", "priority is one of LOW, MEDIUM, HIGH, URGENT"),
        ("priority in [HIGH, 3]", "priority is one of"),
        ("tags == gpu", "write e.g. `tags contains gpu`"),
        ("fairness_key contains a", r"write e.g. `fairness_key in \[a, b\]`"),
        ("fairness_key ~ batch", "expected an operator"),
        ("fairness_key != batch priority == LOW", "`,` or the end"),
        (["capability == a"] * 33, "at most 32"),
    ],
)
def test_conditions_that_no_task_could_meet_are_refused(accepts: object, complaint: str) -> None:
    with pytest.raises(ValidationError, match=complaint):
        register(accepts=accepts)
