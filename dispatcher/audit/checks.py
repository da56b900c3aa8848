"""What is wrong with what was read of a pool: pure functions from facts to findings, and no I/O.

The facts of a task, or of an agent, are read in one transaction. Every write to them is one script, so whatever is
amiss in them is amiss: no state between two steps can be seen. Facts of several keys that are read one after the other
may show such a state; the auditor looks at those again.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from pydantic import ValidationError

from bus.messages import TaskHeader
from bus.names import Expiry, KnownKey
from bus.records import AgentRecord, Guard, Run
from bus.states import TaskStatus
from dispatcher.audit.findings import Finding, Kind

NO_EXPIRY: Final = -1
"""What PTTL says of a key that stays."""
GONE: Final = -2

INDEXES: Final = ("pending", "delayed", "leases", "finished", "dead")
"""The lists in which tasks stand."""
_EXPECTED: Final[Mapping[TaskStatus, tuple[frozenset[str], ...]]] = {
    TaskStatus.PENDING: (frozenset({"pending"}), frozenset({"delayed"})),
    TaskStatus.ASSIGNED: (frozenset({"leases"}),),
    TaskStatus.RUNNING: (frozenset({"leases"}),),
    TaskStatus.COMPLETED: (frozenset({"finished"}),),
    TaskStatus.CANCELLED: (frozenset({"finished"}),),
    TaskStatus.FAILED: (frozenset({"finished", "dead"}),),
}
PRUNED_EVERY_MS: Final = 180_000
"""Lists of ended tasks are cut each minute; what should be gone from them is, after so long."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """All that is stored of a task. None and empty where there is nothing."""

    task_id: str
    state: bytes | None
    spec: bytes | None
    run: bytes | None
    ttl_ms: int
    places: Mapping[str, float]
    """Its score in each index that names it."""


@dataclass(frozen=True, slots=True)
class EndedRange:
    """What the list of ended tasks reaches back to; None if it is empty."""

    oldest: float | None
    now: int


def of_task(facts: TaskFacts, ended: EndedRange) -> Iterator[Finding]:
    """Check a task's record against the lists, and against itself."""
    if facts.state is None:
        yield from _without_record(facts, ended)
        return
    try:
        guard = Guard.parse(facts.state.decode())
        TaskHeader.model_validate_json(facts.spec or b"")
        run = Run.model_validate_json(facts.run or b"")
    except ValueError as error:
        yield Finding(Kind.UNREADABLE_TASK, facts.task_id, _first_line(error))
        return
    stands = frozenset(facts.places)
    expected = _EXPECTED[guard.status]
    pruned = guard.status.terminal and not stands and _was_pruned(run.finished_at, ended)
    if stands not in expected and not pruned:
        lists = ", ".join(sorted(stands)) or "none"
        yield Finding(Kind.MISPLACED, facts.task_id, f"is {guard.status} and stands in {lists}, not {_named(expected)}")
    if guard.status.terminal and facts.ttl_ms == NO_EXPIRY:
        yield Finding(Kind.TASK_STAYS, facts.task_id, f"is {guard.status}")
    if not guard.status.terminal and facts.ttl_ms >= 0:
        yield Finding(Kind.TASK_EXPIRES, facts.task_id, f"is {guard.status}")


def _named(expected: tuple[frozenset[str], ...]) -> str:
    return " or ".join(" and ".join(sorted(one)) for one in expected)


def _without_record(facts: TaskFacts, ended: EndedRange) -> Iterator[Finding]:
    """Check a name without a record: of ended tasks, the oldest may have expired and are cut off the lists next."""
    live = sorted(name for name in facts.places if name not in ("finished", "dead"))
    if live:
        yield Finding(Kind.NO_RECORD, facts.task_id, f"stands in {', '.join(live)}")
        return
    if not facts.places or ended.oldest is None:
        return
    if min(facts.places.values()) > ended.oldest + PRUNED_EVERY_MS:
        yield Finding(Kind.NO_RECORD, facts.task_id, f"stands in {', '.join(sorted(facts.places))}")


def _was_pruned(finished_at: int | None, ended: EndedRange) -> bool:
    """Tell whether an ended task may have been cut off the lists already; its record outlives that by a moment."""
    if finished_at is None:
        return False
    if ended.oldest is None:
        return finished_at < ended.now - PRUNED_EVERY_MS
    return finished_at <= ended.oldest


def holder_of(facts: TaskFacts) -> str | None:
    """Return the id of the agent that has the task by its record."""
    try:
        guard = Guard.parse((facts.state or b"").decode())
    except ValueError:
        return None
    return guard.agent_id if guard.status in (TaskStatus.ASSIGNED, TaskStatus.RUNNING) else None


def of_agent(agent_id: str, record: bytes | None, *, listed: bool) -> Iterator[Finding]:
    """Check an agent's record against the list of agents."""
    if record is None:
        if listed:
            yield Finding(Kind.AGENT_WITHOUT_RECORD, agent_id)
        return
    try:
        AgentRecord.model_validate_json(record)
    except ValidationError as error:
        yield Finding(Kind.UNREADABLE_AGENT, agent_id, _first_line(error))
        return
    if not listed:
        yield Finding(Kind.AGENT_NOT_LISTED, agent_id)


def of_key(key: str, known: KnownKey | None, type_: str, ttl_ms: int) -> Iterator[Finding]:
    """Check a key's name, type and time to live; `GONE` ones are well."""
    if ttl_ms == GONE:
        return
    if known is None:
        yield Finding(Kind.UNKNOWN_KEY, key, f"a {type_}", key)
    elif type_ != known.family.type:
        yield Finding(Kind.WRONG_TYPE, key, f"is a {type_} and should be a {known.family.type}", key)
    elif known.family.expires is Expiry.ALWAYS and ttl_ms == NO_EXPIRY:
        yield Finding(Kind.NO_EXPIRY, key, "", key)
    elif known.family.expires is Expiry.NEVER and ttl_ms >= 0:
        yield Finding(Kind.EXPIRES, key, "", key)


def of_children(key: str, parent_state: bytes | None, ttl_ms: int) -> Iterator[Finding]:
    """Check a list of children: it stays as long as its parent lives, and expires when that has ended."""
    if ttl_ms == GONE:
        return
    live = parent_state is not None and not _terminal(parent_state)
    if live and ttl_ms >= 0:
        yield Finding(Kind.EXPIRES, key, "its task is live", key)
    if not live and ttl_ms == NO_EXPIRY:
        yield Finding(Kind.NO_EXPIRY, key, "its task has ended", key)


def of_assignment(
    agent_id: str, key: str, entry: str, task_id: str, state: bytes | None, current: bytes | None
) -> Iterator[Finding]:
    """Check an entry of an agent's stream: the task must be ASSIGNED to that agent, by this very entry."""
    status, _, rest = (state or b"").decode(errors="replace").partition("/")
    holder = rest.split("/")[1] if rest.count("/") == 2 else ""  # noqa: PLR2004 - attempt, agent, session
    if status != TaskStatus.ASSIGNED or holder != agent_id or current != entry.encode():
        yield Finding(Kind.LEFT_ASSIGNMENT, task_id, entry, key)


def _terminal(state: bytes) -> bool:
    try:
        return Guard.parse(state.decode()).status.terminal
    except ValueError:
        return False


def _first_line(error: ValueError) -> str:
    lines = str(error).splitlines()
    return " ".join(" ".join(lines[:3]).split())[:200] if lines else type(error).__name__
