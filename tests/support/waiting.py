"""Waiting in tests: for a predicate, never for a time."""

import asyncio
import inspect
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar, overload

T = TypeVar("T")

_POLL = 0.01


@overload
async def eventually(
    predicate: Callable[[], Coroutine[Any, Any, T]], timeout: float = 30.0, every: float = _POLL
) -> T: ...


@overload
async def eventually(predicate: Callable[[], T], timeout: float = 30.0, every: float = _POLL) -> T: ...


async def eventually(predicate: Callable[[], Any], timeout: float = 30.0, every: float = _POLL) -> Any:
    """Return the first true value of `predicate`, a plain or an async function; fail after `timeout` seconds.

    It is called again `every` so many seconds.
    """
    value: Any = None
    try:
        async with asyncio.timeout(timeout):
            while True:
                answer: Any = predicate()
                value = await answer if inspect.isawaitable(answer) else answer
                if value:
                    return value
                await asyncio.sleep(every)
    except TimeoutError:
        raise AssertionError(f"still {value!r} after {timeout:g} s: {_shown(predicate)}") from None


def _shown(predicate: Callable[[], Any]) -> str:
    if inspect.isfunction(predicate) or inspect.ismethod(predicate):
        return inspect.getsource(predicate).strip()
    return repr(predicate)
