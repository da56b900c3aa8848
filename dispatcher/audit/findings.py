"""What an audit may find: each kind in plain words, with what to do about it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class Kind(StrEnum):
    """A kind of finding; the value is the metric's label, and what programs read."""

    NO_RECORD = "index_without_record"
    MISPLACED = "task_in_wrong_index"
    UNREADABLE_TASK = "unreadable_task"
    UNREADABLE_AGENT = "unreadable_agent"
    TASK_EXPIRES = "live_task_expires"
    TASK_STAYS = "ended_task_never_expires"
    NO_AGENT = "lease_without_agent"
    AGENT_WITHOUT_RECORD = "agent_without_record"
    AGENT_NOT_LISTED = "agent_not_listed"
    LEFT_ASSIGNMENT = "assignment_left_behind"
    NO_EXPIRY = "key_without_expiry"
    EXPIRES = "key_that_expires"
    WRONG_TYPE = "key_of_wrong_type"
    UNKNOWN_KEY = "unknown_key"
    BOUND_STRAY = "bound_counts_too_many"
    BOUND_MISSING = "bound_counts_too_few"
    BOUND_LEFT = "set_without_bound"
    NOT_CONSUMED = "stream_not_consumed"
    NEWER_MESSAGE = "message_of_newer_version"
    DELETED_PENDING = "pending_entry_deleted"
    NO_OWNER = "pending_entry_without_owner"
    NO_GROUP = "stream_without_group"
    FOREIGN_GROUP = "foreign_group"
    LEFT_CONSUMER = "consumer_left_behind"
    NO_LEADER = "no_leader"
    SLOTS = "slots_do_not_add_up"
    NOT_IN_MEMORY = "task_unknown_to_leader"
    NOT_IN_LEDGER = "task_not_in_ledger"


class Words(NamedTuple):
    """What a kind of finding means, and what helps."""

    what: str
    remedy: str
    reload: bool = False
    """The leader must load the ledger anew once it is repaired, for what it remembers may be wrong, too."""


_FIX: Final = "`--fix` repairs it"
_RELOAD: Final = "`--fix` repairs it and lets the leader load the ledger anew"
_BY_HAND: Final = "nothing is repaired"

WORDS: Final[dict[Kind, Words]] = {
    Kind.NO_RECORD: Words("a list names a task that has no record: its record was deleted or has expired", _FIX),
    Kind.MISPLACED: Words(
        "a task does not stand in the lists in which one of its state must stand: a new leader would not find it",
        _RELOAD,
        reload=True,
    ),
    Kind.UNREADABLE_TASK: Words(
        "the record of a task cannot be read, so no leader takes it",
        f"{_BY_HAND}: if a newer version wrote it, start its dispatcher; else delete the key and submit the task again",
    ),
    Kind.UNREADABLE_AGENT: Words(
        "the record of an agent cannot be read, so no leader takes it",
        f"{_BY_HAND}: if a newer version wrote it, start its dispatcher; else restart the agent, which signs in anew",
    ),
    Kind.TASK_EXPIRES: Words("the record of a live task will expire, and the task be lost", _FIX),
    Kind.TASK_STAYS: Words("the record of an ended task never expires", _FIX),
    Kind.NO_AGENT: Words(
        "a task is in the hands of an agent that the pool does not know, so that nobody takes it back",
        _RELOAD,
        reload=True,
    ),
    Kind.AGENT_WITHOUT_RECORD: Words("an agent is listed and has no record", _FIX),
    Kind.AGENT_NOT_LISTED: Words(
        "the record of an agent is in no list: a new leader would not find it", _RELOAD, reload=True
    ),
    Kind.LEFT_ASSIGNMENT: Words("an agent's stream has an assignment that does not hold any more", _FIX),
    Kind.NO_EXPIRY: Words("a key that must have a time to live has none: nobody would ever delete it", _FIX),
    Kind.EXPIRES: Words("a key that must stay has a time to live", _FIX),
    Kind.WRONG_TYPE: Words(
        "a key has a type that it cannot have: something else has written it",
        f"{_BY_HAND}: find out who did it; then delete the key",
    ),
    Kind.UNKNOWN_KEY: Words(
        "a key has the pool's prefix and is none of Callboard's",
        f"{_BY_HAND}: if a newer version has made it, leave it; else delete it",
    ),
    Kind.BOUND_STRAY: Words("a task counts for a bound (max_pending) and does not wait: it takes up room", _FIX),
    Kind.BOUND_MISSING: Words("a task waits and does not count for a bound (max_pending): too many may be taken", _FIX),
    Kind.BOUND_LEFT: Words("a set of waiting tasks is kept for a bound that is not in force", _FIX),
    Kind.NOT_CONSUMED: Words(
        "a leader leads and does not read what was written a minute ago",
        "`--fix` lets another, or itself, take over",
        reload=True,
    ),
    Kind.NEWER_MESSAGE: Words(
        "a message of a newer version waits for a dispatcher that knows it", f"{_BY_HAND}: upgrade the dispatchers"
    ),
    Kind.DELETED_PENDING: Words("an entry that was delivered and not acknowledged is in its stream no more", _FIX),
    Kind.NO_OWNER: Words(
        "an entry was delivered, not acknowledged, and nobody has claimed it",
        "`--fix` lets the leader claim it",
        reload=True,
    ),
    Kind.NO_GROUP: Words(
        "a stream has entries, and its consumer group is missing", "start a dispatcher: it makes it again"
    ),
    Kind.FOREIGN_GROUP: Words(
        "a consumer group that is none of Callboard's, idle and with nothing pending, is left on a stream", _FIX
    ),
    Kind.LEFT_CONSUMER: Words("a consumer is idle for long, with nothing pending: its process is gone", _FIX),
    Kind.NO_LEADER: Words("tasks or messages wait, and nobody leads the pool", "start one with `callboard dispatcher`"),
    Kind.SLOTS: Words(
        "what the leader counts as an agent's used slots is not what the agent's tasks take", _RELOAD, reload=True
    ),
    Kind.NOT_IN_MEMORY: Words("the ledger has a live task of which the leader does not know", _RELOAD, reload=True),
    Kind.NOT_IN_LEDGER: Words("the leader knows a live task that the ledger does not have", _RELOAD, reload=True),
}

UNREPAIRED: Final = frozenset(
    {
        *(Kind.UNREADABLE_TASK, Kind.UNREADABLE_AGENT, Kind.WRONG_TYPE, Kind.UNKNOWN_KEY, Kind.NEWER_MESSAGE),
        *(Kind.NO_GROUP, Kind.NO_LEADER),
    }
)
"""Kinds that are for people to put right."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. Equal findings of two looks are the same thing, unchanged."""

    kind: Kind
    subject: str
    """A task's or an agent's id, or a key."""
    detail: str = ""
    """What was seen, in words; a part of it that changes by itself does not belong here."""
    key: str = ""
    """The key that it is about, where the subject does not say."""

    @property
    def words(self) -> Words:
        """What it means, and what helps."""
        return WORDS[self.kind]


def by_kind(findings: Iterable[Finding]) -> dict[Kind, list[Finding]]:
    """Return the findings of each kind, in their order."""
    found: dict[Kind, list[Finding]] = {}
    for one in findings:
        found.setdefault(one.kind, []).append(one)
    return found
