"""What each role needs of the server, and nothing more: as rules of Redis' access control lists.

A role is a list of grants: some commands on some keys. The first grant of a user's rules is his root permission, each
other one a selector: a command is allowed if one of them allows it with all its keys. So a client may delete its own
stream of replies and no other key, though it may write to the intake streams.

Scripts are granted with all keys of the pool, for a server demands full access to whatever a script is *given*; what
the script then *does* is checked command by command against the other grants. No script lets a user do what he could
not do by himself.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from bus.ids import check_agent_id
from bus.names import POOLS_KEY, TOKENS_KEY, PoolNames
from bus.states import TaskPriority

ROLES: Final = ("client", "reader", "api", "dispatcher", "agent")

_CONNECTION: Final = ("ping", "select", "hello", "client|setname", "multi", "exec", "discard", "time")
_HASH_READS: Final = ("hget", "hmget", "hgetall", "hkeys", "hvals", "hlen", "hscan", "hexists")
_STREAM_READS: Final = ("xread", "xrange", "xrevrange", "xlen")
_OTHER_READS: Final = (
    *("exists", "get", "pttl", "type"),
    *("zrange", "zrevrange", "zcard", "zcount", "zscan", "zscore", "zrank", "scard", "sismember", "smembers", "sscan"),
)
_READS: Final = (*_HASH_READS, *_STREAM_READS, *_OTHER_READS)
_SCRIPTS: Final = ("eval", "evalsha")
_LEADER_ONLY: Final = (
    *("hset", "hdel", "zadd", "zrem", "zremrangebyscore", "sadd", "srem", "set", "setrange", "del", "unlink"),
    *("expire", "pexpire", "persist", "scan", "xadd", "xack", "xdel", "xtrim", "xreadgroup", "xautoclaim"),
    *("xpending", "xgroup|create", "xgroup|destroy", "xgroup|delconsumer"),
    *("xinfo|groups", "xinfo|consumers", "xinfo|stream"),
)


@dataclass(frozen=True, slots=True)
class Grant:
    """Some commands, on keys that may be read, written, or both; patterns as Redis takes them."""

    commands: Sequence[str]
    reads: Sequence[str] = ()
    writes: Sequence[str] = ()
    both: Sequence[str] = ()

    def __str__(self) -> str:
        keys = [*(f"%R~{key}" for key in self.reads), *(f"%W~{key}" for key in self.writes)]
        return " ".join([*(f"+{command}" for command in self.commands), *keys, *(f"~{key}" for key in self.both)])


@dataclass(frozen=True, slots=True)
class User:
    """One user of the server."""

    name: str
    role: str
    grants: Sequence[Grant]

    def line(self, password: str | None) -> str:
        """Return the line of a `users.acl` file or, as it is, of `redis.conf`; of the password only its hash.

        Without a password nobody can log in as this user, until one is added (`ACL SETUSER name >secret`).
        """
        root, *others = self.grants
        secret = [] if password is None else [f"#{hashlib.sha256(password.encode()).hexdigest()}"]
        selectors = [f"({grant})" for grant in others]
        return " ".join(["user", self.name, "on", *secret, "resetchannels", "-@all", str(root), *selectors])


def users(
    names: PoolNames, roles: Iterable[str], agents: Iterable[str] = (), *, durability: bool = False
) -> list[User]:
    """Return the users of a pool: one of each role, and one of each agent.

    With `durability` clients may ask for it, which takes CONFIG GET: it shows them the server's settings. An agent may
    be given by the beginning of its id and a `*`. Raises `ValueError` for what is no agent's id.
    """
    asked = set(roles)
    found = [
        User(f"callboard-{role}-{names.pool}", role, grants)
        for role, grants in (
            ("client", client(names, durability=durability)),
            ("reader", reader(names)),
            ("api", api(names)),
            ("dispatcher", dispatcher(names)),
        )
        if role in asked
    ]
    return found + [
        User(f"callboard-agent-{names.pool}-{agent_id.replace('*', '')}", "agent", agent(names, agent_id))
        for agent_id in dict.fromkeys(agents)
    ]


def reader(names: PoolNames) -> list[Grant]:
    """Return what somebody needs who looks: records, lists, events, how things stand."""
    return [Grant((*_CONNECTION, *_READS), reads=_ledger(names)), _scripts(names)]


def client(names: PoolNames, *, durability: bool = False) -> list[Grant]:
    """Return what somebody needs who submits, waits, and steers: what a reader may, and to write to the leader."""
    intake = [names.submissions(level) for level in TaskPriority]
    asking = ("info", "wait", "config|get") if durability else ()
    return [
        Grant((*_CONNECTION, *_READS, *asking), reads=_ledger(names)),
        Grant(("xadd",), writes=(*intake, names.commands)),
        Grant(("get", "set", "exists"), both=(names.submitted("*"), names.offer("*"))),
        Grant(("sadd", "scard"), both=(names.queue("*"),)),
        Grant(("xread", "xadd", "xtrim", "del", "pexpire"), both=(names.replies("*"),)),
        _scripts(names),
    ]


def api(names: PoolNames) -> list[Grant]:
    """Return what the REST API needs: what a client may, and to speak for agents that have nothing but HTTP."""
    return [
        *client(names),
        Grant(("xadd",), writes=(names.registrations, names.heartbeats, names.results)),
        Grant(("get", "set"), both=(names.held("*"),)),
        Grant(("hget", "hset", "hdel", "hvals", "exists"), both=(TOKENS_KEY,)),
        Grant(("smembers",), reads=(POOLS_KEY,)),
    ]


def dispatcher(names: PoolNames) -> list[Grant]:
    """Return what a dispatcher needs, and `callboard doctor`: all of the pool's keys, and nothing of the server's."""
    commands = tuple(dict.fromkeys((*_CONNECTION, *_READS, *_LEADER_ONLY, *_SCRIPTS)))
    return [Grant(commands, both=(names.everything,)), Grant(("sadd",), writes=(POOLS_KEY,))]


def agent(names: PoolNames, agent_id: str) -> list[Grant]:
    """Return what one agent needs: to read its own two streams, and to write to the leader's three. No scripts."""
    check_agent_id(agent_id.removesuffix("*"))
    return [
        Grant(("ping", "select", "hello", "client|setname")),
        Grant(("xread", "xrange"), reads=(names.assignments(agent_id), names.control(agent_id))),
        Grant(("xadd",), writes=(names.registrations, names.heartbeats, names.results)),
    ]


def _scripts(names: PoolNames) -> Grant:
    return Grant(_SCRIPTS, both=(names.everything,))


def _ledger(names: PoolNames) -> tuple[str, ...]:
    """Return the keys that tell of tasks, agents and schedules, and how things stand."""
    streams = [names.submissions(level) for level in TaskPriority]
    streams += [names.commands, names.registrations, names.heartbeats, names.results, names.events, names.rejected]
    indexes = [names.pending, names.delayed, names.leases, names.finished, names.dead, names.agents]
    standing = [names.waiting, names.load, names.loops, names.audit, names.leader, names.epoch]
    records = [names.task("*"), names.children("*"), names.agent("*"), names.notes("*")]
    return (*streams, *indexes, *standing, *records, names.submitted("*"), names.queue("*"))
