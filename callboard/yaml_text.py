"""JSON values as YAML, in block style: the one thing for which a YAML library would be a dependency."""

from collections.abc import Iterator
from typing import Final

from pydantic import JsonValue
from pydantic_core import to_json

_INDENT: Final = "  "


def to_yaml(value: JsonValue) -> str:
    """Return `value` as a YAML 1.2 document. Scalars and keys are written as in JSON, which is YAML too."""
    return "\n".join(_lines(value)) + "\n"


def _lines(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _entry(f"{_scalar(key)}:", item)
    elif isinstance(value, list) and value:
        for item in value:
            yield from _item(item)
    else:
        yield _scalar(value)


def _entry(head: str, item: JsonValue) -> Iterator[str]:
    if isinstance(item, dict | list) and item:
        yield head
        yield from (f"{_INDENT}{line}" for line in _lines(item))
    else:
        yield f"{head} {_scalar(item)}"


def _item(item: JsonValue) -> Iterator[str]:
    """Begin the item on the line of its dash."""
    first, *rest = _lines(item)
    yield f"- {first}"
    yield from (f"{_INDENT}{line}" for line in rest)


def _scalar(value: JsonValue) -> str:
    return to_json(value).decode()
