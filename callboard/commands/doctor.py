"""`callboard doctor`: check a live pool, explain what is wrong, and repair it."""

from collections.abc import Sequence
from time import monotonic
from typing import Annotated, Final

from cyclopts import Parameter
from pydantic import BaseModel, TypeAdapter

from bus.connection import Redis, connect
from bus.ids import check_pool
from bus.names import PoolNames
from callboard.connecting import connected
from callboard.failures import FAILED
from callboard.options import AsJson, Flag, RedisUrl
from callboard.output import print_json, print_line, say
from dispatcher.audit.auditor import Auditor
from dispatcher.audit.findings import Finding, Kind, by_kind
from dispatcher.audit.repairs import Repair, Repairs

_SHOWN: Final = 5
"""Findings of one kind that are shown to people; programs get all."""
_OF_MEMORY: Final = (Kind.SLOTS, Kind.NOT_IN_MEMORY, Kind.NOT_IN_LEDGER)
"""What only a leader can find out: its latest audit is asked."""


class _Said(BaseModel):
    subject: str
    detail: str = ""


_SAID: Final = TypeAdapter(list[_Said])


async def doctor(
    *,
    pool: Annotated[str | None, Parameter(help="Pool to check.")] = None,
    fix: Annotated[Flag, Parameter(help="Repair what can be repaired while a leader works.")] = False,
    redis_url: RedisUrl = None,
    json: AsJson = False,
) -> int:
    """Check a live pool against everything that must hold, and explain what does not.

    It reads page by page and disturbs nobody; what looks wrong is looked at again before it is told, so that work under
    way is none. The exit code is 1 if anything is wrong and not repaired.
    """
    async with connected(redis_url, pool) as bus:
        redis = connect(bus.url, name="callboard-doctor")
        try:
            return await _examine(redis, PoolNames(check_pool(bus.pool)), fix=fix, as_json=json)
        finally:
            await redis.aclose()


async def _examine(redis: Redis, names: PoolNames, *, fix: bool, as_json: bool) -> int:
    began = monotonic()
    auditor = Auditor(redis, names)
    findings = [*await auditor.run(), *await _of_leader(redis, names)]
    repairs = await Repairs(redis, names).run(findings) if fix else [None] * len(findings)
    if as_json:
        print_json(
            {
                "pool": names.pool,
                "keys": auditor.looked_at,
                "seconds": round(monotonic() - began, 3),
                "findings": [_for_programs(one, repair) for one, repair in zip(findings, repairs, strict=True)],
            }
        )
    else:
        _tell(findings, dict(zip(findings, repairs, strict=True)))
        say(f"{auditor.looked_at:,} keys of pool {names.pool} looked at in {monotonic() - began:.1f} s")
    return FAILED if any(repair is not Repair.REPAIRED for repair in repairs) else 0


async def _of_leader(redis: Redis, names: PoolNames) -> list[Finding]:
    """Return what the leader's latest audit has found in its memory."""
    said = await redis.hmget(names.audit, [kind.value for kind in _OF_MEMORY])
    return [
        Finding(kind, one.subject, one.detail)
        for kind, raw in zip(_OF_MEMORY, said, strict=True)
        if raw is not None
        for one in _SAID.validate_json(raw)
    ]


def _for_programs(finding: Finding, repair: Repair | None) -> dict[str, str | None]:
    return {
        "kind": finding.kind.value,
        "subject": finding.subject,
        "detail": finding.detail,
        "what": finding.words.what,
        "remedy": finding.words.remedy,
        "repair": repair,
    }


def _tell(findings: Sequence[Finding], repairs: dict[Finding, Repair | None]) -> None:
    if not findings:
        print_line("nothing is wrong")
    for kind, found in by_kind(findings).items():
        words = found[0].words
        print_line(f"{kind.value} ({len(found):,}): {words.what}; {words.remedy}")
        for one in found[:_SHOWN]:
            shown = " ".join(part for part in (one.subject, one.detail) if part)
            repair = repairs[one]
            print_line(f"  {shown}" + (f": {repair}" if repair else ""))
        if len(found) > _SHOWN:
            print_line(f"  and {len(found) - _SHOWN:,} more; --json shows all")
