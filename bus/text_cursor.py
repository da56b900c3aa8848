"""A place in a text that is read from left to right, and the errors that point at it."""

import re
from typing import Final, NoReturn

from bus.errors import RequirementSyntaxError

HALF_CHARACTER: Final = re.compile(r"[\ud800-\udfff]")
"""Half of a surrogate pair: Python has such strings, UTF-8 does not."""

_SPACE: Final = re.compile(r"\s*")


class Cursor:
    """Stands at `at` in `text`, which should be a `what`; every method first passes over spaces."""

    def __init__(self, text: str, what: str, example: str) -> None:
        self.text = text
        self.at = 0
        self.word_end = -1
        """Where the last word ended that was not in quotes."""
        self._what = what
        self._example = example
        if (half := HALF_CHARACTER.search(text)) is not None:
            self.fail("a whole character", half.start())

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        """Raise `RequirementSyntaxError` for this place, or for `at`."""
        column = 1 + (self.at if at is None else at)
        raise RequirementSyntaxError(self.text, column, expected, what=self._what, example=self._example)

    def skip(self) -> int:
        """Pass over spaces only; return where that leads."""
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at
        return self.at

    def take(self, pattern: re.Pattern[str]) -> str | None:
        """Pass over what matches and return it; None, and stay, if nothing does."""
        found = pattern.match(self.text, self.skip())
        if found is None:
            return None
        self.at = found.end()
        return found[0]

    def next(self, sign: str) -> bool:
        """Tell whether `sign` follows, and stay."""
        return self.text.startswith(sign, self.skip())

    def sign(self, sign: str) -> bool:
        """Pass over `sign` if it follows; tell whether it did."""
        found = self.next(sign)
        self.at += len(sign) if found else 0
        return found

    def need(self, sign: str, expected: str) -> None:
        """Pass over `sign`; fail if it does not follow."""
        if not self.sign(sign):
            self.fail(expected + self._hint())

    def at_end(self) -> bool:
        """Tell whether all is read."""
        return self.skip() == len(self.text)

    def end(self, expected: str = "the end") -> None:
        """Fail unless all is read."""
        if not self.at_end():
            self.fail(expected + self._hint())

    def _hint(self) -> str:
        broken_off = len(self.text[: self.at].rstrip()) == self.word_end
        return " (a text with spaces or signs goes into double quotes)" if broken_off else ""
