"""Every stream and key of Callboard. No other module, Lua included, builds or holds a key's name.

All names of a pool carry the hash tag ``{pool}``, so that they share one Redis Cluster slot and a script may touch
any of them atomically; pools spread over a cluster's nodes.
"""

import re
from dataclasses import dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from bus.ids import Pool, check_pool
from bus.states import TaskPriority

PREFIX: Final = "callboard"
POOLS_KEY: Final = f"{PREFIX}:pools"
"""Set of the names of all pools that ever had a leader."""
TOKENS_KEY: Final = f"{PREFIX}:tokens"
"""Hash: what is known of each token of the REST API, by its id. Of all pools together: a token may be for several."""

DISPATCHERS_GROUP: Final = "dispatchers"
"""The consumer group through which the leader reads every inbound stream."""

SCHEDULES_NOTE: Final = "schedules"
SCHEDULE_PROGRESS_NOTE: Final = "schedule-progress"
"""Kinds of notes that clients read, see `PoolNames.notes`."""

DATA_FIELD: Final = "__data__"
"""The stream field that carries a message's body."""


class Expiry(Enum):
    """Whether a key has a time to live."""

    ALWAYS = "always"
    NEVER = "never"
    DEPENDS = "depends"  # on what it is about


@dataclass(frozen=True, slots=True)
class KeyFamily:
    """Keys of a pool that are alike."""

    name: str
    type: str
    """What the command TYPE says of them."""
    expires: Expiry
    """Whether they must have a time to live."""
    pattern: str
    """Of what follows the pool's root; its group, if there is one, says which of the family it is."""


FAMILIES: Final = (
    KeyFamily("inbound", "stream", Expiry.NEVER, r"(tasks:\w+|commands|registrations|heartbeats|results)"),
    KeyFamily("told", "stream", Expiry.NEVER, "(events|rejected)"),
    KeyFamily("assignments", "stream", Expiry.ALWAYS, r"agent:([^:]+):assignments"),
    KeyFamily("control", "stream", Expiry.ALWAYS, r"agent:([^:]+):control"),
    KeyFamily("held", "string", Expiry.ALWAYS, r"agent:([^:]+):held"),
    KeyFamily("replies", "stream", Expiry.ALWAYS, r"client:([^:]+):replies"),
    KeyFamily("task", "hash", Expiry.DEPENDS, r"task:([^:]+)"),
    KeyFamily("children", "zset", Expiry.DEPENDS, r"children:([^:]+)"),
    KeyFamily("submitted", "string", Expiry.ALWAYS, r"submitted:([^:]+)"),
    KeyFamily("agent", "hash", Expiry.NEVER, r"agent:([^:]+)"),
    KeyFamily("index", "zset", Expiry.NEVER, "(agents|pending|delayed|leases|finished|dead)"),
    KeyFamily("standing", "hash", Expiry.ALWAYS, "(waiting|load|loops|audit)"),
    KeyFamily("notes", "hash", Expiry.NEVER, r"notes:([\w-]+)"),
    KeyFamily("queue", "set", Expiry.NEVER, "queue:(.+)"),
    KeyFamily("offer", "string", Expiry.ALWAYS, "offer:(.+)"),
    KeyFamily("leader", "string", Expiry.ALWAYS, "leader"),
    KeyFamily("counter", "string", Expiry.NEVER, "(epoch|committed)"),
)
"""Every kind of key that a pool has."""

_FAMILY: Final = tuple((family, re.compile(family.pattern)) for family in FAMILIES)


class KnownKey(NamedTuple):
    """What a key's name says of it."""

    family: KeyFamily
    which: str
    """Which of the family: an id, or a part of the name."""


@dataclass(frozen=True, slots=True)
class PoolNames:
    """The streams and keys of one pool. Raises `ValueError` for a name that cannot be a pool's."""

    pool: Pool
    root: str = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "root", f"{PREFIX}:{{{check_pool(self.pool)}}}:")

    @property
    def everything(self) -> str:
        """Pattern of all keys of the pool, as SCAN takes it: a pool's name has no character that means something."""
        return f"{self.root}*"

    def known(self, key: str) -> KnownKey | None:
        """Return what a key of the pool is; None for one that nothing here has made."""
        rest = key.removeprefix(self.root)
        for family, pattern in _FAMILY:
            found = pattern.fullmatch(rest)
            if found is not None:
                return KnownKey(family, found[1] if found.groups() else "")
        return None

    def submissions(self, priority: TaskPriority) -> str:
        """Stream of submissions of one priority; clients → leader."""
        return f"{self.root}tasks:{priority.level}"

    @property
    def commands(self) -> str:
        """Stream of cancel, retry, restart …; clients → leader."""
        return f"{self.root}commands"

    @property
    def registrations(self) -> str:
        """Stream of agents signing in and out; agents → leader."""
        return f"{self.root}registrations"

    @property
    def heartbeats(self) -> str:
        """Stream of heartbeats; agents → leader."""
        return f"{self.root}heartbeats"

    @property
    def results(self) -> str:
        """Stream of reports on tasks; agents → leader."""
        return f"{self.root}results"

    @property
    def events(self) -> str:
        """Capped stream of every transition; leader → anyone."""
        return f"{self.root}events"

    @property
    def rejected(self) -> str:
        """Capped stream of messages that could not be understood; leader → operators."""
        return f"{self.root}rejected"

    def assignments(self, agent_id: str) -> str:
        """Stream of the tasks given to one agent; leader → that agent."""
        return f"{self.root}agent:{agent_id}:assignments"

    def control(self, agent_id: str) -> str:
        """Stream of instructions to one agent; leader → that agent."""
        return f"{self.root}agent:{agent_id}:control"

    def held(self, agent_id: str) -> str:
        """Short-lived string: what the latest heartbeat of an agent over HTTP listed, which is not handed out again."""
        return f"{self.root}agent:{agent_id}:held"

    def replies(self, client_id: str) -> str:
        """Stream of results for one client, with a time to live; leader → that client."""
        return f"{self.root}client:{client_id}:replies"

    def task(self, task_id: str) -> str:
        """Hash: the record of one task."""
        return f"{self.root}task:{task_id}"

    def children(self, task_id: str) -> str:
        """Sorted set of the ids of a task's children by the time of their submission."""
        return f"{self.root}children:{task_id}"

    def submitted(self, task_id: str) -> str:
        """Short-lived marker: a keyed task was submitted and may not be in the ledger yet."""
        return f"{self.root}submitted:{task_id}"

    def agent(self, agent_id: str) -> str:
        """Hash: the record of one agent."""
        return f"{self.root}agent:{agent_id}"

    @property
    def agents(self) -> str:
        """Sorted set of the ids of all known agents by the time of their last registration."""
        return f"{self.root}agents"

    @property
    def pending(self) -> str:
        """Sorted set of waiting tasks by score."""
        return f"{self.root}pending"

    @property
    def delayed(self) -> str:
        """Sorted set of tasks that may not start yet, by the time they may."""
        return f"{self.root}delayed"

    @property
    def leases(self) -> str:
        """Sorted set of tasks in an agent's hands, by the time of their assignment."""
        return f"{self.root}leases"

    @property
    def finished(self) -> str:
        """Sorted set of terminal tasks by the time they ended, pruned with retention."""
        return f"{self.root}finished"

    @property
    def dead(self) -> str:
        """Sorted set of FAILED tasks by the time they failed: the dead letters."""
        return f"{self.root}dead"

    @property
    def waiting(self) -> str:
        """Hash: why tasks of each requirement wait, in words; refreshed by the leader, short-lived."""
        return f"{self.root}waiting"

    @property
    def load(self) -> str:
        """Hash: `AgentWorkload` of each agent; refreshed by the leader, short-lived."""
        return f"{self.root}load"

    @property
    def loops(self) -> str:
        """Hash: `LoopBeat` of each loop of the leader; refreshed by it, short-lived."""
        return f"{self.root}loops"

    @property
    def audit(self) -> str:
        """Hash: what the leader's latest audit has found, by kind; short-lived."""
        return f"{self.root}audit"

    @property
    def bounds(self) -> str:
        """Hash: how many tasks may wait, by capability; `*` is the pool. A note, which submissions look at."""
        return self.notes("bounds")

    def queue(self, scope: str) -> str:
        """Set of the ids of all tasks of a bounded capability, or of the pool (`*`), that wait, unread ones too."""
        return f"{self.root}queue:{scope}"

    def offer(self, nonce: str) -> str:
        """Short-lived string: what one call of the submit script decided; a repetition of it is told the same."""
        return f"{self.root}offer:{nonce}"

    @property
    def leader(self) -> str:
        """String with a time to live: the token of the leader, which every commit must match."""
        return f"{self.root}leader"

    @property
    def epoch(self) -> str:
        """Counter: the highest epoch that any leader of this pool ever had."""
        return f"{self.root}epoch"

    @property
    def committed(self) -> str:
        """String: which call of the commit script was the latest; a leader that repeats it changes nothing."""
        return f"{self.root}committed"

    def notes(self, kind: str) -> str:
        """Hash: what leaders of this pool have to remember beside tasks and agents, by kind (`tombstones`)."""
        return f"{self.root}notes:{kind}"


@lru_cache(maxsize=1024)
def pool_names(pool: str) -> PoolNames:
    """Return the names of a pool, which are the same object each time. Raises `ValueError` as `PoolNames`."""
    return PoolNames(check_pool(pool))
