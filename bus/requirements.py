"""What a task asks of an agent, beyond the capability's name: attribute conditions, required or preferred.

Only the vocabulary is here; whether an agent meets a condition is decided in one place, `dispatcher.core.match`.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]
"""What an attribute or the right side of a condition may be."""

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


class Condition(BaseModel):
    """One comparison with an attribute of the capability (or, failing that, of the agent)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: AttributeName
    op: Operator = Operator.EQ
    value: Value | None = Field(None, description="Compared with the attribute; not used by `exists`.")


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
