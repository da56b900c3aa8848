"""What a leader remembers, for the audit to compare with the ledger. Looks only; called between two passes.

Memory runs ahead of the ledger by a few passes. What differs now and is the same thing in a second, and in another, is
not on its way.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from bus.records import Guard
from dispatcher.audit.checks import TaskFacts
from dispatcher.audit.findings import Finding, Kind
from dispatcher.core.model import AgentState
from dispatcher.core.scheduler import Scheduler

PAGE: Final = 500


class LeaderMemory:
    """A view of a scheduler: `dispatcher.audit.auditor.Memory`."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._board = scheduler.board

    def unknown(self, facts: Iterable[TaskFacts]) -> list[Finding]:
        """Return a finding for each live task of the ledger that the leader does not know."""
        return [
            Finding(Kind.NOT_IN_MEMORY, one.task_id, f"is {state.split('/')[0]} for the ledger")
            for one in facts
            if (state := _live_state(one)) is not None and self._board.live(one.task_id) is None
        ]

    def pages(self) -> Iterator[Sequence[str]]:
        """Yield the ids of all tasks that the ledger should have."""
        ids = [task.id for task in self._board.tasks.values() if task.stored]
        for start in range(0, len(ids), PAGE):
            yield ids[start : start + PAGE]

    def still(self, task_id: str) -> bool:
        """Tell whether the ledger should have a live task."""
        task = self._board.live(task_id)
        return task is not None and bool(task.stored)

    def slots(self) -> list[Finding]:
        """Return a finding for each agent whose used slots are not what its tasks take."""
        return [
            Finding(Kind.SLOTS, agent.id, f"{agent.used - taken:+d} slots")
            for agent in self._board.fleet.agents.values()
            if agent.used != (taken := _taken(agent))
        ]


def _taken(agent: AgentState) -> int:
    """Return the slots of those tasks of an agent's session that do not wait for their children."""
    return sum(
        task.terms.requirement.slots
        for task in agent.tasks.values()
        if task.current is None or (task.current.session == agent.session and not task.current.waiting)
    )


def _live_state(facts: TaskFacts) -> str | None:
    try:
        guard = Guard.parse((facts.state or b"").decode())
    except ValueError:
        return None
    return None if guard.status.terminal else str(guard)
