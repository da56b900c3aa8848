"""Ranges of versions as PEP 440 writes them: ``>=2,<3``. `packaging` says what may be one, and matches them later."""

from functools import lru_cache


@lru_cache(maxsize=1024)
def version_range(text: str | None) -> str | None:
    """Return `text` without its spaces; None, any version, for an empty one. Raises `ValueError` if it is no range."""
    if text is None or not text.strip():
        return None
    return ",".join(version_clause(part) for part in text.split(","))


def version_clause(text: str) -> str:
    """Return one part of a range, such as ``>=2``, without its spaces. Raises `ValueError`."""
    from packaging.specifiers import InvalidSpecifier, Specifier  # noqa: PLC0415 - a megabyte that few processes need

    try:
        clause = str(Specifier(text))
    except InvalidSpecifier:
        clause = ""
    if not clause or "[" in clause:  # `===` compares with anything; in texts a bracket ends the range
        raise ValueError(f"{text!r} is no range of versions: write e.g. '>=2,<3'")
    return clause
