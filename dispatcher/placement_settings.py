"""How policies of placement are written in settings: numbers by name, for all pools of a dispatcher or for one.

`HIGH=10m` holds for every pool that this process serves, `reports:HIGH=30m` for the pool `reports`, whatever is said of
all. Several are separated by commas. Of fairness keys, which may hold a colon, what stands before it is a pool only if
this process serves one of that name.
"""

from collections.abc import Callable, Collection, Iterable
from itertools import pairwise
from typing import Final, TypeVar

from bus.durations import seconds
from bus.requirements import is_capability_name
from bus.states import TaskPriority
from dispatcher.core.bounds import POOL
from dispatcher.core.config import HEAD_START_MS

K = TypeVar("K", bound=str)
V = TypeVar("V")

_MOST_PENDING: Final = 10_000_000
_HEAVIEST: Final = 1e6


def split(given: object) -> object:
    """Split a text, or each of several, at its commas, and leave out what is there twice; pydantic has the rest."""
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
        return given
    return [part for part in dict.fromkeys(part.strip() for text in texts for part in text.split(",")) if part]


def head_starts(items: Iterable[str], pools: Collection[str], pool: str) -> dict[TaskPriority, int]:
    """Return the head start of each level in `pool`, in ms. Raises `ValueError`: they must not decrease."""
    found = {**HEAD_START_MS, **_of(pool, items, pools, _level, _milliseconds, "HIGH=10m")}
    for (lower, less), (level, more) in pairwise(found.items()):
        if less > more:
            raise ValueError(
                f"head starts must not decrease with the level, and in pool {pool!r} {lower} has {less / 1000:g} s and "
                f"{level} {more / 1000:g} s: give {level} as much at least"
            )
    return found


def fairness_weights(items: Iterable[str], pools: Collection[str], pool: str) -> dict[str, float]:
    """Return the weights of fairness keys in `pool`. Raises `ValueError`."""
    return _of(pool, items, pools, _key, _weight, "tenant-a=3")


def max_pending(items: Iterable[str], pools: Collection[str], pool: str) -> tuple[int | None, dict[str, int]]:
    """Return how many tasks of `pool` may wait, and of single capabilities. Raises `ValueError`."""
    named = [item if "=" in item else _whole_pool(item) for item in items]
    found = _of(pool, named, pools, _capability, _count, "text.count=1000, or 10000 for the whole pool")
    return found.pop(POOL, None), found


def _whole_pool(item: str) -> str:
    pool, colon, number = item.rpartition(":")
    return f"{pool}{colon}{POOL}={number}"


def _of(
    pool: str,
    items: Iterable[str],
    pools: Collection[str],
    read_name: Callable[[str], K],
    read_value: Callable[[str], V],
    example: str,
) -> dict[K, V]:
    """Return what holds for `pool`: what is said of all, and over it what is said of this one."""
    of_all: dict[K, V] = {}
    own: dict[K, V] = {}
    for item in items:
        name, equals, value = item.rpartition("=")
        if not equals:
            raise ValueError(f"{item!r} has no value: write e.g. {example}")
        prefix, colon, rest = name.partition(":")
        whose = prefix if colon and prefix in pools else None
        try:
            read = read_name(rest if whose else name), read_value(value)
        except ValueError as error:
            raise ValueError(f"{item!r}: {error}: write e.g. {example}") from None
        if whose in (None, pool):
            (own if whose else of_all).update([read])
    return of_all | own


def _level(name: str) -> TaskPriority:
    try:
        return TaskPriority(name)
    except ValueError:
        levels = ", ".join(TaskPriority)
        raise ValueError(f"{name!r} is none of the levels {levels}, nor such of a pool that is served") from None


def _key(name: str) -> str:
    if not name:
        raise ValueError("the fairness key is missing")
    return name


def _capability(name: str) -> str:
    if name != POOL and not is_capability_name(name):
        raise ValueError(f"{name!r} is no capability, nor one of a pool that is served")
    return name


def _milliseconds(text: str) -> int:
    return int(seconds(text) * 1000)


def _weight(text: str) -> float:
    found = float(text)
    if not 1 / _HEAVIEST <= found <= _HEAVIEST:
        raise ValueError("a weight is between 0.000001 and 1,000,000")
    return found


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= _MOST_PENDING):
        raise ValueError(f"{text!r} is no number from 1 to {_MOST_PENDING:,}")
    return int(text)
