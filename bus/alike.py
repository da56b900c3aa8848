"""Tasks that are made alike: the tasks of a batch differ in their payloads, which are anything; the rest is the same.

That rest is validated once, for as long as it is asked for again and again; each further task gets a copy of what came
of it. Only of values that are texts and numbers, and of fields that tasks have in common: others are not told apart by
comparing them (`True` is `1`), or would be remembered in vain.
"""

from functools import lru_cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from bus.states import TaskPriority

NOTHING: Final = object()
"""No payload is given."""

_SHARED: Final = frozenset(
    {
        "capability",
        "version",
        "priority",
        "run_timeout",
        "queue_timeout",
        "progress_timeout",
        "max_attempts",
        "fail_fast",
        "estimated_duration",
        "slots",
        "pool",
    }
)
_PLAIN: Final = frozenset({str, int, float, bool, type(None), TaskPriority})

_set_values: Final = BaseModel.__dict__["__dict__"].__set__
_set_given: Final = BaseModel.__dict__["__pydantic_fields_set__"].__set__
_set_extra: Final = BaseModel.__dict__["__pydantic_extra__"].__set__
_set_private: Final = BaseModel.__dict__["__pydantic_private__"].__set__


class _UnlikeError(Exception):
    """Nothing of this is remembered."""


@lru_cache(maxsize=512, typed=True)
def _validated(kind: type[BaseModel], **options: Any) -> tuple[dict[str, Any], frozenset[str]]:
    """Return the values of a task's fields but for its payload, and the names of those that were given."""
    if not (options.keys() <= _SHARED and _PLAIN.issuperset(map(type, options.values()))):
        raise _UnlikeError
    made = kind.model_validate(options)
    return dict(made.__dict__), frozenset(made.model_fields_set)


def make_alike(task: BaseModel, payload: object, options: dict[str, Any]) -> bool:
    """Give a new model the fields that pydantic would give it; False, with nothing done, if pydantic has to."""
    try:
        values, given = _validated(type(task), **options)
    except (_UnlikeError, TypeError, ValidationError):  # TypeError: a value has no hash
        return False
    values = values.copy()
    values["resources"], values["metadata"] = {}, {}  # the others cannot be changed
    told = set(given)
    if payload is not NOTHING:
        values["payload"] = payload
        told.add("payload")
    _set_values(task, values)
    _set_given(task, told)
    _set_extra(task, None)
    _set_private(task, None)
    return True
