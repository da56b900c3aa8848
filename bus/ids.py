"""Identifiers: their types, their shapes, and the only generator that makes new ones.

A task's id is ``<pool>.<local>``: whoever holds it knows the pool, hence the keys. New local parts sort by the time
they were made. An id from outside must match its pattern before it may become part of a key.
"""

import hashlib
import os
import re
from itertools import count
from typing import Final, NewType

from bus.clock import wall_ms

Pool = NewType("Pool", str)
TaskId = NewType("TaskId", str)
AgentId = NewType("AgentId", str)
SessionId = NewType("SessionId", str)
ClientId = NewType("ClientId", str)

POOL_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,31}$"
TASK_ID_PATTERN: Final = r"^[a-z0-9][a-z0-9_-]{0,31}\.[A-Za-z0-9_-]{1,64}$"
AGENT_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,127}$"
SESSION_PATTERN: Final = r"^[A-Za-z0-9_-]{1,64}$"
SCHEDULE_ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
CAPABILITY_PATTERN: Final = r"^[A-Za-z_][A-Za-z0-9_./-]{0,127}$"

_KEYED_RE: Final = re.compile(r"\.k[0-9a-f]{32}$")
# Python's `$` also matches before a newline at the end; pydantic's (Rust's) does not. Hence `fullmatch`, always.
_POOL_RE: Final = re.compile(POOL_PATTERN)
_TASK_ID_RE: Final = re.compile(TASK_ID_PATTERN)
_AGENT_ID_RE: Final = re.compile(AGENT_ID_PATTERN)
_SCHEDULE_ID_RE: Final = re.compile(SCHEDULE_ID_PATTERN)
DEFAULT_POOL: Final = Pool("default")


class _Generator:
    """Unique, time-ordered strings of 26 characters: 11 hex of time, 10 of a random node, 5 of a counter."""

    def __init__(self) -> None:
        self.reseed()

    def reseed(self) -> None:
        """Take a new random node: once per process, and again in a forked child."""
        self._node = os.urandom(5).hex()
        self._count = count(int.from_bytes(os.urandom(2), "big"))
        self._latest = 0, ""
        """The millisecond in which the last was made, and what all of it begin with; one value, for all threads."""

    def __call__(self) -> str:
        now = wall_ms()
        at, begin = self._latest
        if now != at:
            begin = f"{now:011x}{self._node}"
            self._latest = now, begin
        return f"{begin}{next(self._count) & 0xFFFFF:05x}"


_new = _Generator()
os.register_at_fork(after_in_child=_new.reseed)


def check_pool(pool: str) -> Pool:
    """Return `pool` if it may be a pool's name, else raise `ValueError` with the rule."""
    if not _POOL_RE.fullmatch(pool):
        msg = f"pool {pool!r}: use 1-32 of a-z, 0-9, '_' and '-', beginning with a letter or digit"
        raise ValueError(msg)
    return Pool(pool)


def check_agent_id(agent_id: str) -> AgentId:
    """Return `agent_id` if it may be an agent's id, else raise `ValueError` with the rule."""
    if not _AGENT_ID_RE.fullmatch(agent_id):
        msg = f"agent id {agent_id!r}: use 1-128 letters, digits and . _ @ -, beginning with a letter or digit"
        raise ValueError(msg)
    return AgentId(agent_id)


def check_schedule_id(schedule_id: str) -> str:
    """Return `schedule_id` if it may be a schedule's id, else raise `ValueError` with the rule."""
    if not _SCHEDULE_ID_RE.fullmatch(schedule_id):
        msg = f"schedule id {schedule_id!r}: use 1-64 letters, digits and . _ -, beginning with a letter or digit"
        raise ValueError(msg)
    return schedule_id


def new_task_id(pool: Pool) -> TaskId:
    """Make a new task id in `pool`; ids made later by one process sort later."""
    return TaskId(f"{pool}.{_new()}")


def keyed_task_id(pool: Pool, key: str) -> TaskId:
    """Derive the id of the task with the idempotency key `key`: the same key gives the same id."""
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return TaskId(f"{pool}.k{digest}")


def is_keyed(task_id: str) -> bool:
    """Tell whether `keyed_task_id` may have made this id."""
    return _KEYED_RE.search(task_id) is not None


def scheduled_task_id(pool: Pool, schedule_id: str, occasion: int | str) -> TaskId:
    """Derive the id of the task that a schedule submits on an occasion: an instant, or a request.

    Whoever leads derives the same id, so that one occasion is one task, however often it is decided.
    """
    digest = hashlib.blake2b(f"{schedule_id} {occasion}".encode(), digest_size=16).hexdigest()
    return TaskId(f"{pool}.s{digest}")


def entry_task_id(pool: Pool, level: str, entry_id: str) -> TaskId:
    """Derive the id of a task that was published without one, from its stream's level and entry id."""
    return TaskId(f"{pool}.e{level}-{entry_id}")


def task_pool(task_id: str) -> Pool:
    """Return the pool that `task_id` belongs to; raises `ValueError` if it is not a task's id."""
    if not _TASK_ID_RE.fullmatch(task_id):
        msg = f"{task_id!r} is not a task id: expected <pool>.<id>"
        raise ValueError(msg)
    return Pool(task_id.partition(".")[0])


def new_session() -> SessionId:
    """Make the id of one life of an agent process."""
    return SessionId(_new())


def new_client_id() -> ClientId:
    """Make the id under which a client receives its replies."""
    return ClientId(_new())


def new_nonce() -> str:
    """Make a string that no other process makes."""
    return _new()
