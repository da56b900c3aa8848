"""Limits that tasks, capabilities and agents may carry: how often, and how many at once.

Only the vocabulary is here; whether a limit lets a task pass is decided in one place, `dispatcher.core.limits`.
"""

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(\d*(?:\.\d+)?)\s*(s|sec|second|m|min|minute|h|hour|d|day)")
_UNIT_MS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_MOST_PER_SECOND: Final = 1_000_000
_LONGEST_MS: Final = 366 * 86_400_000


def interval_ms(rate: str) -> float:
    """Return the time between two starts that a rate such as `600/min`, `5/s` or `1/10s` allows, in milliseconds.

    Raises `ValueError` with the rule for what is no rate.
    """
    found = _RATE.fullmatch(rate.strip())
    if found is not None:
        number, units, unit = float(found[1]), float(found[2] or 1), found[3]
        if number > 0 and units > 0:
            interval = units * _UNIT_MS[unit[0]] / number
            if 1_000 / _MOST_PER_SECOND <= interval <= _LONGEST_MS:
                return interval
    raise ValueError(f"{rate!r} is not a rate: write a number per time, e.g. 600/min, 5/s or 1/10s")


def _checked(rate: str) -> str:
    interval_ms(rate)
    return rate


Rate = Annotated[str, Field(max_length=64), AfterValidator(_checked)]


class Limit(BaseModel):
    """All tasks of a pool that name the same `key` share what it allows: starts per time, tasks at once, or both.

    `rate` spaces starts evenly; `burst` lets so many start at once after a pause. In any span of time t there are never
    more than `burst + t * rate` starts. Each task is held to the numbers that it carries itself.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    key: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:@/-]{0,127}$")
    rate: Rate | None = Field(None, description="Starts per time: `600/min`, `5/s`, `1/10s`.")
    burst: int = Field(1, ge=1, le=1_000_000, description="Starts at once after a pause.")
    concurrency: int | None = Field(None, ge=1, le=1_000_000, description="Tasks in agents' hands at once.")

    @model_validator(mode="after")
    def _limits_something(self) -> Self:
        if self.rate is None and self.concurrency is None:
            raise ValueError(f"limit {self.key!r} limits nothing: give it a rate or a concurrency")
        return self
