"""Why the tasks of one requirement wait, in a line: what is shown in records and lists, for all of them at once.

By the sets that placement itself works on, so that it costs little; `explain` looks at every agent, and says more.
"""

from typing import Final

from bus.requirement_text import format_clause
from dispatcher.core.board import Board
from dispatcher.core.fleet import Fleet, RequirementClass
from dispatcher.core.limits import Closed
from dispatcher.core.terms import MILLI, Requirement

IMPOSSIBLE: Final = "no registered agent could ever run this"


def why_waiting(board: Board, cls: RequirementClass) -> str:
    """Say why the tasks of `cls` have no agent yet."""
    fleet = board.fleet
    parts = [_agents_for(fleet, cls) if cls.mask else _nobody(fleet, cls.requirement)]
    if cls.mask and (shut := fleet.shut[cls.requirement.capability]):
        parts.append(f"{shut} shut off after failures")
    closed = board.limits.closed(cls.gates, board.now)
    if closed is not None:
        parts.append(in_words(closed, board.now))
    if cls.mask:
        parts.append(f"{cls.waiting} task{'s wait' if cls.waiting != 1 else ' waits'} for the same")
    return "; ".join(parts)


def in_words(closed: Closed, now: int) -> str:
    """Say which limit lets nothing pass, and when it will."""
    when = "when one of its tasks ends" if closed.until is None else f"in {(closed.until - now) / MILLI:.1f} s"
    return f"limit {closed.key!r} frees {when}"


def _agents_for(fleet: Fleet, cls: RequirementClass) -> str:
    eligible, lost = cls.mask, cls.mask & fleet.levels.lost
    room = fleet.with_room(cls)
    rest = [agent for agent in fleet.levels.agents_of(eligible & ~room & ~lost) if not agent.open]
    paused = sum(1 for agent in rest if agent.pause is not None)
    busy = (eligible & ~room & ~lost).bit_count() - len(rest)
    closed = f"{len(rest)} not taking work{f' ({paused} paused)' if paused else ''}"
    can = f"{agents(eligible.bit_count())} can do it"
    return f"{can}: {room.bit_count()} free, {busy} busy, {closed}, {lost.bit_count()} lost"


def _nobody(fleet: Fleet, requirement: Requirement) -> str:
    capability = requirement.capability
    offering = [a for a in fleet.agents.values() if any(c.name == capability for c in a.capabilities)]
    if not offering:
        return f"{IMPOSSIBLE}: no agent offers {capability!r} ({agents(len(fleet.agents))} known)"
    if shut := fleet.shut[capability]:
        return f"{agents(len(offering))} offering {capability!r}: {shut} shut off after failures"
    versions = sorted({c.version for a in offering for c in a.capabilities if c.name == capability})
    offer = "offers" if len(offering) == 1 else "offer"
    return (
        f"{IMPOSSIBLE}: {agents(len(offering))} {offer} {capability!r} in version {', '.join(versions)}, "
        f"but none meets {_describe(requirement)}"
    )


def agents(number: int) -> str:
    """Return the number in words."""
    return f"{number} agent{'s' * (number != 1)}"


def _describe(requirement: Requirement) -> str:
    parts = [f"version {requirement.version}"] if requirement.version else []
    parts += [format_clause(clause) for clause in requirement.conditions]
    if requirement.slots > 1:
        parts.append(f"{requirement.slots} slots")
    parts += [f"{much / 1000:g} {name}" for name, much in requirement.resources]
    return " and ".join(parts) or "the requirement"
