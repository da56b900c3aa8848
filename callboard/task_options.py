"""What a task asks for beyond its capability, as it is written on a command line."""

from collections.abc import Iterable
from typing import Any

from callboard.failures import UsageError
from callboard.options import name_and_value
from callboard.payloads import parse


def resources(items: Iterable[str]) -> dict[str, float]:
    """Read `gpu=1`, `mem_gb=12`. Raises `UsageError`."""
    return {name: _number(item, value) for item in items for name, value in [name_and_value(item, "--resource gpu=1")]}


def _number(item: str, value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise UsageError(f"{item!r} has no number: write e.g. --resource gpu=1") from None


def limits(items: Iterable[str]) -> list[dict[str, Any]]:
    """Read `openai=600/min`, a rate, and `tenant-7=4`, which is how many at once; of one key both may be given."""
    found: dict[str, dict[str, Any]] = {}
    for item in items:
        key, value = name_and_value(item, "--limit openai=600/min, or --limit tenant-7=4 for so many at once")
        limit = found.setdefault(key, {"key": key})
        limit["concurrency" if value.isdecimal() else "rate"] = int(value) if value.isdecimal() else value
    return list(found.values())


def retry(text: str) -> Any:  # noqa: ANN401 - JSON
    """Read a retry policy, which is JSON. Raises `UsageError`."""
    return parse(text, "--retry")
