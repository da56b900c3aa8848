"""How a duration is written, on the command line and in the environment alike: the one place that reads it."""

import math
import re
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BeforeValidator

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, None: 1.0}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?|\.\d+)(ms|s|m|h|d)?")
_NUMBER: Final = r"(?:(\d+(?:[.,]\d+)?){})?"
_ISO: Final = re.compile("P" + _NUMBER.format("D") + f"(?:T{''.join(_NUMBER.format(unit) for unit in 'HMS')})?")
_ISO_UNITS: Final = (86_400.0, 3600.0, 60.0, 1.0)
_LONGEST: Final = timedelta(days=36_525)


def seconds(text: str) -> float:
    """Read `2`, `2s`, `500ms`, `1m30s`, `1h`, `7d`, or ISO 8601 as in `PT1M30S`; a bare number is seconds.

    Raises `ValueError`, whose text says what to write, also for more than a hundred years.
    """
    written = text.strip()
    parts = list(_PART.finditer(written))
    iso = _ISO.fullmatch(written)
    if parts and "".join(part[0] for part in parts) == written:
        found = math.fsum(float(part[1]) * _UNITS[part[2]] for part in parts)
    elif iso is not None and any(iso.groups()):
        numbers = zip(iso.groups("0"), _ISO_UNITS, strict=True)
        found = math.fsum(float(number.replace(",", ".")) * unit for number, unit in numbers)
    else:
        raise ValueError(f"{text!r} is no duration: write e.g. 30, 500ms, 1m30s, 2h, 7d")
    if found > _LONGEST.total_seconds():
        raise ValueError(f"{text!r} is more than a hundred years: write e.g. 30, 500ms, 1m30s, 2h, 7d")
    return found


def _read(given: object) -> object:
    """Read a text; what is a duration or a number of seconds already is left to pydantic."""
    return timedelta(seconds=seconds(given)) if isinstance(given, str) else given


Duration = Annotated[timedelta, BeforeValidator(_read)]
"""A field of settings, which may be written in all the forms that `seconds` reads."""
