"""What a task asks of an agent, beyond the capability's name: attribute conditions, required or preferred.

Only the vocabulary is here; whether an agent meets a condition is decided in one place, `dispatcher.core.match`.
"""

import json
import re
from enum import StrEnum
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]
"""What an attribute may be."""

AttributeName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]


class Operator(StrEnum):
    """How a condition compares an agent's attribute with its value."""

    EQ = "=="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="
    IN = "in"  # the attribute is one of the values
    CONTAINS = "contains"  # the attribute, a list, has the value
    EXISTS = "exists"  # the attribute is there at all


_TEXT: Final = re.compile(
    r"\s*([A-Za-z_][A-Za-z0-9_.-]*)\s*(==|!=|>=|<=|>|<|\bin\b|\bcontains\b|\bexists\b)\s*(.*?)\s*"
)


class Condition(BaseModel):
    """One comparison with an attribute of the capability (or, failing that, of the agent).

    May be given as a text, too: ``gpu >= 16``, ``region == eu``, ``region in ["eu", "us"]``, ``languages contains de``,
    ``gpu exists``. What is no JSON is taken as a string, also in a list: ``region in [eu, us]``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: AttributeName
    op: Operator = Operator.EQ
    value: Scalar | tuple[Scalar, ...] | None = Field(
        None, description="Compared with the attribute; not used by `exists`."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given, before it is validated
        if not isinstance(given, str):
            return given
        found = _TEXT.fullmatch(given)
        if found is None:
            raise ValueError(f"{given!r} is not a condition: write `attribute operator value`, e.g. 'gpu >= 16'")
        attribute, op, text = found.groups()
        if op == Operator.EXISTS:
            return {"attribute": attribute, "op": op}
        return {"attribute": attribute, "op": op, "value": _value(text)}

    @model_validator(mode="after")
    def _in_wants_a_list(self) -> Self:
        if self.op is Operator.IN and not isinstance(self.value, tuple):
            raise ValueError(f"`{self.attribute} in` wants a list, e.g. [eu, us]")
        return self


def _value(text: str) -> object:
    """Read a value as JSON, else as a string, or as a list of such."""
    try:
        return json.loads(text)
    except ValueError:
        if text.startswith("[") and text.endswith("]"):
            return [_value(part.strip()) for part in text[1:-1].split(",")]
        return text


class Preference(Condition):
    """A condition that is not required: an agent that meets it scores `weight` more."""

    weight: float = Field(1.0, gt=0, le=1000)


def requirement_key(
    capability: str, version: str | None, requires: tuple[Condition, ...], prefers: tuple[Preference, ...]
) -> str:
    """Return a text that is the same for all tasks that ask the same of an agent."""
    parts = [capability, version or ""]
    parts += [c.model_dump_json(exclude_none=True) for c in (*requires, *prefers)]
    return "|".join(parts)


def capability_name(capability: object) -> object:
    """Return the name of a capability given by its method; anything else as it is."""
    definition = getattr(capability, "__callboard_capability__", None)
    return capability if definition is None else definition.name
