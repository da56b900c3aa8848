"""Whether an output has a number that JSON has not: NaN or an infinity.

Pydantic writes them as `NaN` where it knows that there is a number, and where it does not (`-> object`, a field that is
`Any`) as null, which would be a result that nobody has computed.
"""

from typing import Any

from pydantic import TypeAdapter
from pydantic_core import from_json, to_json, to_jsonable_python

from bus.endless import may_be_endless


def is_finite(output: bytes, result: object, adapter: TypeAdapter[Any]) -> bool:
    """Tell whether all numbers are finite of `result`, which `adapter` has written as `output`.

    What an author's own serializer makes of such a number, null above all, is meant and passes, unless it is only used
    for JSON: nothing tells that from pydantic's null.
    """
    if may_be_endless(output) and not _can_be_read(output):
        return False
    if result is None or output.find(b"null") < 0:
        return True
    try:
        dumped = adapter.serializer.to_python(result, mode="python")
        plain = to_jsonable_python(dumped, inf_nan_mode="constants", serialize_unknown=True)
        return _can_be_read(to_json(plain, inf_nan_mode="constants"))
    except Exception:  # noqa: BLE001 - the user's serializers, which have written the output all the same
        return True


def _can_be_read(output: bytes) -> bool:
    try:
        from_json(output, allow_inf_nan=False)
    except ValueError:
        return False
    return True
