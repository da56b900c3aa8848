"""Which agent had the last task of each sticky key: it is preferred for the next, and never waited for.

Kept by task apart from `TaskState` and `Terms`: most tasks have no key, and a million that have may have as many keys.
What was last given is remembered for `KEPT` keys, those used last; each change is a note, so that the next leader
prefers the same. Counted is what was given, not what was begun, so that a burst of one new key goes to one agent.
"""

from typing import Final

from pydantic_core import from_json, to_json

from dispatcher.core.decisions import Note, NoteKind
from dispatcher.core.fleet import Fleet, RequirementClass
from dispatcher.core.model import AgentState

KEPT: Final = 100_000
"""So many keys are remembered."""


class Sticky:
    """The sticky keys of one pool."""

    def __init__(self) -> None:
        self.wanted: dict[str, str] = {}
        """The key of each live task that has one, by the task's id."""
        self._last: dict[str, str] = {}
        """The agent of each key; the key used last is at the end."""

    def preferred(self, task_id: str, cls: RequirementClass, fleet: Fleet) -> AgentState | None:
        """Return the agent that had the task's key last, if it is eligible and has a free slot now."""
        key = self.wanted.get(task_id)
        last = None if key is None else self._last.get(key)
        agent = None if last is None else fleet.agents.get(last)
        if agent is None or not cls.mask >> agent.index & 1 or not agent.open:
            return None
        return agent if agent.fits(cls.requirement) else None

    def given(self, task_id: str, agent_id: str) -> list[Note]:
        """Note that the task went to an agent; return what the next leader must know of it."""
        key = self.wanted.get(task_id)
        if key is None:
            return []
        before = self._last.pop(key, None)
        self._last[key] = agent_id
        if before == agent_id:
            return []
        notes = [Note(NoteKind.STICKY, key, to_json({"agent": agent_id}))]
        if len(self._last) > KEPT:
            oldest = next(iter(self._last))
            del self._last[oldest]
            notes.append(Note(NoteKind.STICKY, oldest, None))
        return notes

    def restore(self, key: str, value: bytes) -> None:
        """Take over what an earlier leader noted."""
        self._last[key] = str(from_json(value)["agent"])
