"""Why a task went to its agent: as the few numbers that its record keeps, and in words.

The numbers are: how many agents could have had it; how many slots its agent had free then; which of its preferences
that one met, as bits in their order; whether it was chosen for having had the task's sticky key. The last two are left
out where they are 0.
"""

from collections.abc import Sequence

from bus.requirement_text import format_clause
from bus.requirements import Preference


def placed_because(why: Sequence[int], prefers: Sequence[Preference], sticky_key: str | None) -> str:
    """Say why a task with these preferences and this sticky key went to its agent."""
    if not why:
        return "as the ledger has it, which an older dispatcher wrote"
    eligible, free, met, sticky = (*why, 0, 0, 0, 0)[:4]
    if sticky:
        words = f"it had the task of sticky key {sticky_key!r} before; {eligible} could do it"
    else:
        words = "the only one that could do it" if eligible == 1 else f"the best of {eligible} that could do it"
    reasons = [f"{free} free slot{'s' * (free != 1)}" if free > 0 else "short work, ahead of its slots"]
    reasons += [f"{format_clause(preference)} met" for n, preference in enumerate(prefers) if met >> n & 1]
    return f"{words}: {', '.join(reasons)}"
