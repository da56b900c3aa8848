"""What a task asks of an agent: a capability, a range of its versions, conditions on attributes, preferences.

Only the vocabulary is here. How people write it is `bus.requirement_text`; whether an agent meets it is decided in one
place, `dispatcher.core.match`.
"""

import re
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationInfo,
    field_validator,
    model_validator,
)

from bus.ids import CAPABILITY_PATTERN
from bus.version_range import version_range

Scalar = str | int | float | bool
Value = Scalar | list[Scalar]
"""What an attribute may be."""

ComparedScalar = str | int | Annotated[float, Field(allow_inf_nan=False)] | bool
Compared = ComparedScalar | tuple[ComparedScalar, ...] | None
"""What an attribute may be compared with."""

MAX_RANGE: Final = 64
MAX_CLAUSES: Final = 32
MAX_WEIGHT: Final = 1000.0
"""Limits of what is asked: characters of a range of versions, conditions, a preference's weight."""

ATTRIBUTE_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$"
AttributeName = Annotated[str, Field(pattern=ATTRIBUTE_PATTERN)]
CapabilityField = Annotated[str, Field(pattern=CAPABILITY_PATTERN)]
VersionRange = Annotated[Annotated[str, Field(max_length=MAX_RANGE)] | None, AfterValidator(version_range)]

_NAME: Final = re.compile(CAPABILITY_PATTERN)

AGENT_ID: Final = "agent.id"
"""The attribute that every agent has and none can set: not on worker-3 is ``agent.id != worker-3``."""


class Operator(StrEnum):
    """How a condition compares an attribute with its value."""

    EQ = "=="
    NE = "!="
    GT = ">"
    GE = ">="
    LT = "<"
    LE = "<="
    IN = "in"  # the attribute is one of the values
    CONTAINS = "contains"  # the attribute, a list, has the value
    EXISTS = "exists"  # the attribute is there at all


_EQUALITY: Final = frozenset({Operator.EQ, Operator.NE})


def wanted_value(op: Operator, value: Compared) -> str | None:
    """Say what `op` compares with if `value` is no such thing; None if all is well."""
    if op is Operator.EXISTS:
        return None
    if op is Operator.IN:
        return None if isinstance(value, tuple) else "a list, e.g. [eu, us]"
    if op in _EQUALITY:
        return "a value" if value is None else None
    if value is None or isinstance(value, tuple):
        return "one value"
    return "a number or a text" if op is not Operator.CONTAINS and isinstance(value, bool) else None


class Condition(BaseModel):
    """One comparison with an attribute of the capability (or, failing that, of the agent).

    May be given as a text, too: ``gpu >= 16``, ``region == eu``, ``region in [eu, us]``, ``languages contains de``,
    ``gpu exists``. What is neither a number nor true or false is a string; `bus.requirement_text` has the grammar.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    attribute: AttributeName
    op: Operator = Operator.EQ
    value: Compared = Field(
        None, validate_default=True, description="Compared with the attribute; not used by `exists`."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given, before it is validated
        # Its fields, for pydantic takes no instance in the place of what was no instance.
        return dict(cls._parsed(given)) if isinstance(given, str) else given

    @classmethod
    def _parsed(cls, text: str) -> "Condition":
        from bus.requirement_text import parse_condition  # noqa: PLC0415 - it imports this module

        return parse_condition(text)

    @field_validator("value")
    @classmethod
    def _fits_the_operator(cls, value: Compared, info: ValidationInfo) -> Compared:
        op = info.data.get("op")
        if op is None or op is Operator.EXISTS:
            return None
        wanted = wanted_value(op, value)
        if wanted is not None:
            raise ValueError(f"`{info.data.get('attribute')} {op}` wants {wanted}")
        return value


class Preference(Condition):
    """A condition that is not required: an agent that meets it scores `weight` more.

    As a text: ``region ~ eu:10``, ``gpu ~ >= 16:2``; where a preference is meant anyway, ``region == eu`` will do.
    """

    weight: float = Field(1.0, gt=0, le=MAX_WEIGHT)

    @classmethod
    def _parsed(cls, text: str) -> "Preference":
        from bus.requirement_text import parse_preference  # noqa: PLC0415 - the same

        return parse_preference(text)


class AnyOf(BaseModel):
    """Several conditions of which one is enough. As a text: ``(gpu >= 16 | tpu exists)``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    any_of: tuple[Condition, ...] = Field(min_length=1, max_length=MAX_CLAUSES)

    @model_validator(mode="before")
    @classmethod
    def _from_text(cls, given: Any) -> Any:  # noqa: ANN401 - whatever was given, before it is validated
        if not isinstance(given, str):
            return given
        from bus.requirement_text import parse_any_of  # noqa: PLC0415 - the same

        return dict(parse_any_of(given))


def _kind(given: object) -> str | None:
    if isinstance(given, str):
        return "any_of" if given.lstrip().startswith("(") else "condition"
    if isinstance(given, AnyOf) or (isinstance(given, dict) and "any_of" in given):
        return "any_of"
    if isinstance(given, Preference):
        return None
    return "condition" if isinstance(given, Condition | dict) else None


Clause = Annotated[
    Annotated[Condition, Tag("condition")] | Annotated[AnyOf, Tag("any_of")],
    Discriminator(
        _kind,
        custom_error_type="no_condition",
        custom_error_message="write a condition such as 'gpu >= 16', or any of several: '(gpu >= 16 | tpu exists)'",
    ),
]
"""What can be required: a condition, or any of several."""


class TaskRequirement(BaseModel):
    """All that a task asks of an agent."""

    model_config = ConfigDict(frozen=True)

    capability: CapabilityField
    version: VersionRange = Field(None, description="Range of capability versions, PEP 440: `>=2,<3`.")
    requires: tuple[Clause, ...] = Field((), max_length=MAX_CLAUSES)
    prefers: tuple[Preference, ...] = Field((), max_length=MAX_CLAUSES)


def requirement_key(
    capability: str, version: str | None, requires: tuple[Clause, ...], prefers: tuple[Preference, ...]
) -> str:
    """Return a text that is the same for all tasks that ask the same of an agent."""
    parts = [capability, version or ""]
    parts += [c.model_dump_json(exclude_none=True) for c in (*requires, *prefers)]
    return "|".join(parts)


def capability_name(capability: object) -> object:
    """Return the name of a capability given by its method; anything else as it is."""
    if isinstance(capability, str):
        return capability
    definition = getattr(capability, "__callboard_capability__", None)
    return capability if definition is None else definition.name


@lru_cache(maxsize=1024)
def is_capability_name(text: str) -> bool:
    """Tell whether `text` is a capability's name and nothing more."""
    return _NAME.fullmatch(text) is not None
