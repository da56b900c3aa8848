"""Whether the leader will be able to read what an attempt says: the writer of JSON accepts more than its parser.

A report speaks of hundreds of attempts. If one output in it nests deeper than the parser goes, or has an integer of
more digits than Python converts, the whole report is unreadable, and all of these attempts are run again. So what could
be too much is parsed here as the leader will, inside of a report, before it becomes part of one.
"""

from typing import Final

from pydantic import ValidationError

from bus.messages import Report

_SAFE_BYTES: Final = 380
"""Each level takes a bracket at both ends, so this is less deep than the parser goes; and no integer is too long."""
_SAFE_DIGITS: Final = 4_000
_SAFE_LEVELS: Final = 150

_validate: Final = Report.__pydantic_validator__.validate_json
_HEAD: Final = b'{"agent_id":"a","session":"s","results":[{"task_id":"p.t","attempt":1,'
_OUTPUT: Final = _HEAD + b'"status":"COMPLETED","output":%b}]}'
_DETAILS: Final = _HEAD + b'"status":"FAILED","error":{"type":"t","details":%b}}]}'


def why_illegible(output: bytes) -> str | None:
    """Return why JSON that is meant as an output cannot be read from a report; None if it can be."""
    return _problem(_OUTPUT, output)


def why_illegible_details(details: bytes) -> str | None:
    """Return why JSON that is meant as the details of an error, one level deeper, cannot be read; None if it can be."""
    return _problem(_DETAILS, details)


def _problem(frame: bytes, body: bytes) -> str | None:
    # Nearly every output ends here, at a tenth of a microsecond, or with the line below, at one.
    if len(body) <= _SAFE_BYTES:
        return None
    if len(body) <= _SAFE_DIGITS and body.count(b"[") + body.count(b"{") <= _SAFE_LEVELS:
        return None
    try:
        _validate(frame % body)
    except ValidationError as error:
        return error.errors(include_url=False, include_context=False, include_input=False)[0]["msg"]
    return None
