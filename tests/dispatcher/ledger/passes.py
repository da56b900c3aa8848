"""Passes to be committed, and what is looked at afterwards: of several tests."""

from typing import Any

from pydantic_core import from_json, to_json
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from bus.messages import Control, Registered
from bus.names import PoolNames
from bus.records import AgentRecord
from bus.states import AgentHealth, AgentStatus, TaskStatus
from dispatcher.core.decisions import (
    AgentChange,
    AgentTransition,
    Answer,
    Decisions,
    Instruct,
    Note,
    NoteKind,
    Place,
    TaskTransition,
)
from tests.dispatcher.ledger.conftest import NOW, change, decisions

INDEXES = ("pending", "delayed", "leases", "finished", "dead")


def agent(agent_id: str) -> AgentRecord:
    """Return the record of an agent."""
    return AgentRecord(
        agent_id=agent_id,
        session="s1",
        status=AgentStatus.IDLE,
        health=AgentHealth.HEALTHY,
        slots=4,
        capabilities=(),
        registered_at=NOW,
    )


async def indexes(redis: Redis, names: PoolNames) -> dict[str, list[str]]:
    """Return the tasks in each index that has any."""
    found = {}
    for name in INDEXES:
        ids: Any = await redis.zrange(getattr(names, name), 0, -1)
        if ids:
            found[name] = [raw.decode() for raw in ids]
    return found


LIFE: tuple[tuple[str, str, Place, dict[str, Any]], ...] = (
    ("", "PENDING/0//", Place.WAITING, {}),
    ("PENDING/0//", "ASSIGNED/1/w/s1", Place.ACTIVE, {"to": "w"}),
    ("ASSIGNED/1/w/s1", "RUNNING/1/w/s1", Place.ACTIVE, {"release": "w"}),
    ("RUNNING/1/w/s1", "PENDING/1//", Place.DELAYED, {}),
    ("PENDING/1//", "ASSIGNED/2/v/s1", Place.ACTIVE, {"to": "v"}),
    ("ASSIGNED/2/v/s1", "COMPLETED/2//", Place.DONE, {"release": "v", "output": b'{"n": 1.50}'}),
)


def lose(_args: tuple[Any, ...]) -> None:
    """Lose a reply."""
    raise RedisConnectionError("the reply is lost")


def eventful(names: PoolNames, number: int) -> Decisions:
    """Return a pass that frees an agent's tasks, stores the agent as lost, and says all that can be said."""
    said = decisions(*(change(names, f"t{n}", after="CANCELLED/0//", place=Place.DONE) for n in range(number)))
    for one in said.changes:
        said.transitions.append(TaskTransition(one.task_id, TaskStatus.CANCELLED, 0, None, None, None, None))
        said.answers.append(Answer(one.task_id, "c1", to_json({"task_id": one.task_id})))
    said.answers.append(Answer(f"{names.pool}.elsewhere", "c1", to_json({"task_id": f"{names.pool}.elsewhere"})))
    said.agents.append(AgentChange("w", agent("w")))
    said.agent_transitions.append(AgentTransition("w", AgentStatus.ERROR, AgentHealth.LOST, None))
    said.instructions.append(Instruct("w", Control(Registered(session="s1"))))
    said.notes.append(Note(NoteKind.TOMBSTONE, f"{names.pool}.x", b"{}"))
    return said


async def said_of(redis: Redis, stream: str, field: str) -> list[str]:
    """Return the ids of the tasks that the entries of a stream speak of."""
    entries: Any = await redis.xrange(stream)
    return [item["task_id"] for _, fields in entries for item in from_json(fields[b"__data__"])[field]]
