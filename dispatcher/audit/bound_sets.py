"""Checks of the sets that bounds (`max_pending`) count by: who is in them, and who should be.

A member that is not PENDING may be a submission that no leader has read. While there is any that old, nobody is
accused; `dispatcher.strays` heals in the same way.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from bus.states import TaskPriority
from dispatcher.audit.findings import Finding, Kind
from dispatcher.audit.looking import PAGE, Sight

POOL = "*"


class _Spec(BaseModel):
    model_config = ConfigDict(extra="ignore")

    capability: str = ""


async def of_bounds(sight: Sight, rest_s: float) -> AsyncIterator[Finding]:
    """Check every set of waiting tasks, and that none is missing from one."""
    scopes = await sight.bounds()
    for scope in scopes:
        async for found in _strays(sight, scope, rest_s):
            yield found
    if scopes:
        for index in ("pending", "delayed"):
            async for found in _uncounted(sight, index, scopes, rest_s):
                yield found


async def unread(sight: Sight) -> bool:
    """Tell whether any submission waits to be read."""
    async with sight.redis.pipeline(transaction=True) as pipe:
        for level in TaskPriority:
            pipe.xlen(sight.names.submissions(level))
        return any(await pipe.execute())


async def _strays(sight: Sight, scope: str, rest_s: float) -> AsyncIterator[Finding]:
    key, cursor = sight.names.queue(scope), 0
    while True:
        read: Any = await sight.redis.sscan(key, cursor, count=PAGE)
        cursor, page = int(read[0]), [raw.decode(errors="replace") for raw in read[1]]
        states = await sight.states(page) if page else []
        astray = [one for one, (state,) in zip(page, states, strict=True) if not _pending(state)]
        if astray and not await unread(sight):
            for task_id in astray:
                yield Finding(Kind.BOUND_STRAY, task_id, f"in the set of {scope}", key)
        if not cursor:
            return
        await asyncio.sleep(rest_s)


async def _uncounted(sight: Sight, index: str, scopes: set[str], rest_s: float) -> AsyncIterator[Finding]:
    cursor = 0
    while True:
        read: Any = await sight.redis.zscan(sight.index(index), cursor, count=PAGE)
        cursor, rows = int(read[0]), read[1]
        ids = [raw.decode(errors="replace") for raw, _ in rows]
        for found in await _not_counted(sight, ids, scopes) if ids else ():
            yield found
        if not cursor:
            return
        await asyncio.sleep(rest_s)


async def _not_counted(sight: Sight, ids: Sequence[str], scopes: set[str]) -> list[Finding]:
    """Return who of these waits and is in a set too few: specs first, which never change; the rest at one instant."""
    specs = await sight.states(ids, "spec")
    asked = [
        (task_id, scope)
        for task_id, (_, spec) in zip(ids, specs, strict=True)
        for scope in _scopes_of(spec)
        if scope in scopes
    ]
    async with sight.redis.pipeline(transaction=True) as pipe:
        for task_id, scope in asked:
            pipe.hget(sight.names.task(task_id), "state")
            pipe.sismember(sight.names.queue(scope), task_id)
            pipe.hexists(sight.names.bounds, scope)
        rows: list[Any] = await pipe.execute()
    return [
        Finding(Kind.BOUND_MISSING, task_id, f"not in the set of {scope}", sight.names.queue(scope))
        for n, (task_id, scope) in enumerate(asked)
        if _pending(rows[3 * n]) and not rows[3 * n + 1] and rows[3 * n + 2]
    ]


def _scopes_of(spec: bytes | None) -> tuple[str, ...]:
    try:
        return POOL, _Spec.model_validate_json(spec or b"{}").capability
    except ValidationError:
        return ()


async def of_sets(sight: Sight, scopes: set[str]) -> list[Finding]:
    """Check that sets of waiting tasks have bounds; one that is being filled grows, and is suspected no longer."""
    found: list[Finding] = []
    for scope in scopes and scopes - await sight.bounds():
        key = sight.names.queue(scope)
        found.append(Finding(Kind.BOUND_LEFT, scope, f"{await sight.redis.scard(key)} members", key))
    return found


def _pending(state: bytes | None) -> bool:
    return state is not None and state.startswith(b"PENDING/")
