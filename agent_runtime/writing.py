"""How an output is written as JSON: refused where it is not what the annotation says, and no slower than that needs."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from pydantic import TypeAdapter

_LEAVES: Final = frozenset({"any", "none", "bool", "int", "float", "str"})
_INNER: Final = {"nullable": ("schema",), "list": ("items_schema",), "dict": ("keys_schema", "values_schema")}


def writer_of(adapter: TypeAdapter[Any]) -> Callable[[Any], bytes]:
    """Return what writes a validated output; it raises `ValueError` for one that is not what was declared.

    A model may have been changed, or made without validation, before it was returned, and validation takes it as it is.
    So the serializer compares once more, which is told to it by a word that takes it longer to read (1.5 µs) than most
    outputs take to be written. Plain types are what their validator has just made of them.
    """
    write: Callable[..., bytes] = adapter.serializer.to_json
    schema: Mapping[str, Any] = adapter.core_schema
    return write if _is_plain(schema) else partial(write, warnings="error")


def _is_plain(schema: Mapping[str, Any]) -> bool:
    """Tell whether all values of a type are made by its validator, with nothing of the author's in it."""
    if "serialization" in schema:
        return False
    if schema["type"] in _LEAVES:
        return True
    inner = _INNER.get(schema["type"])
    return inner is not None and all(_is_plain(schema[name]) for name in inner if name in schema)
