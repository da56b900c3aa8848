"""Metadata by which Callboard finds its own agents again: programs see it, people are not shown it."""

from typing import Final

_OURS: Final = "callboard."

STARTED_BY: Final = f"{_OURS}started-by"
"""Which `callboard up` has started an agent."""


def is_internal(name: str) -> bool:
    """Tell whether an item of an agent's metadata is for Callboard only."""
    return name.startswith(_OURS)
