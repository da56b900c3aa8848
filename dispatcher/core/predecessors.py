"""Sessions that another process has replaced, as long as they may still do work that must never run twice at once.

Of two processes with one id the newer has it, and the older is told so. Until it hears of that it goes on with what it
has, but with exclusive work for no longer than the lease that its last heartbeat has confirmed: then it cancels that.
So the exclusive tasks of a session that was replaced stay with it until that lease is over, counted from its last
heartbeat and on the horizon, when every heartbeat and report that it wrote before has been read. What it reports of
them meanwhile counts, and each further heartbeat prolongs the lease, as it does for the process that wrote it. Nobody
waits for its other tasks.

The record of the agent names such sessions, so that the next leader waits for them, too: a whole lease, since nobody
has listened to them until then.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bus.records import Replaced
from bus.states import AgentStatus

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bus.messages import CapabilitySpec
    from dispatcher.core.model import AgentState, TaskState


@dataclass(slots=True)
class Predecessor:
    """A session that was replaced and holds exclusive tasks. Durations and instants are milliseconds."""

    exclusive: frozenset[str]
    """Capabilities that it, or its successor, says must never run twice at once."""
    lease_ms: int
    last_beat: int

    @property
    def until(self) -> int:
        """When it will have stopped for certain."""
        return self.last_beat + self.lease_ms


def inherit(agent: "AgentState", session: str, capabilities: "Iterable[CapabilitySpec]") -> dict[str, Predecessor]:
    """Return the predecessors of `session`, which takes the place of `agent`'s or is the same."""
    found = dict(agent.predecessors)
    if agent.session != session and agent.status is not AgentStatus.STOPPED:
        exclusive = frozenset(spec.name for spec in (*agent.capabilities, *capabilities) if spec.exclusive)
        if any(task.terms.requirement.capability in exclusive for task in _held(agent, agent.session)):
            found[agent.session] = Predecessor(exclusive, agent.lease_ms, agent.last_beat)
    return found


def keeps(agent: "AgentState", task: "TaskState", at: int) -> bool:
    """Tell whether the session that has the task may still run it at `at`, and nobody else may then."""
    predecessor = None if task.current is None else agent.predecessors.get(task.current.session)
    return (
        predecessor is not None
        and task.terms.requirement.capability in predecessor.exclusive
        and predecessor.until > at
    )


def heard(agent: "AgentState", session: str, at: int) -> None:
    """Note a heartbeat of an earlier session."""
    predecessor = agent.predecessors.get(session)
    if predecessor is not None:
        predecessor.last_beat = max(predecessor.last_beat, at)


def tidy(agent: "AgentState") -> int | None:
    """Forget predecessors that hold nothing more; return when the next of the others will have stopped."""
    held = {task.current.session for task in agent.tasks.values() if task.current is not None}
    agent.predecessors = {session: one for session, one in agent.predecessors.items() if session in held}
    return min((one.until for one in agent.predecessors.values()), default=None)


def stored(agent: "AgentState") -> tuple[Replaced, ...]:
    """Return what the next leader has to know of them."""
    return tuple(
        Replaced(session=session, lease=one.lease_ms / 1000, exclusive=tuple(sorted(one.exclusive)))
        for session, one in agent.predecessors.items()
    )


def restored(replaced: "Iterable[Replaced]", now: int) -> dict[str, Predecessor]:
    """Return them as a leader does that comes at `now`."""
    return {one.session: Predecessor(frozenset(one.exclusive), int(one.lease * 1000), now) for one in replaced}


def _held(agent: "AgentState", session: str) -> "list[TaskState]":
    return [task for task in agent.tasks.values() if task.current is not None and task.current.session == session]
