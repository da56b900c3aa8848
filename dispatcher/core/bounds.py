"""How many tasks may wait: the bounds that submitters are held to, and what counts for them.

A bound has a *scope*: a capability, or the whole pool (`*`). For each the ledger has the set of the ids of all tasks
that wait: the submit script adds what it stores and refuses what would be too much, the commit script takes out what
waits no longer and adds what comes back (a retry is never refused). A task is in it once, whether its submission is
unread, or accepted, or was written twice, so the number is exact whoever leads and whatever is repeated. Sets are kept
for scopes that are bounded, and for no others.

A new bound is in force when its set is complete: it is filled in several passes, while the changes of those passes are
taken along. Only then it becomes a note, which is what the submit script reads.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from pydantic_core import from_json, to_json

from bus.states import TaskStatus
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.decisions import Note, NoteKind, QueueChange
from dispatcher.core.fleet import Fleet

if TYPE_CHECKING:
    from dispatcher.core.board import Board

POOL: Final = "*"
"""The scope of the bound on all tasks of the pool: no capability has this name."""

FILL: Final = 2_000
"""Tasks that one pass looks at to fill the set of a new bound."""


class Bounds:
    """The bounds of one pool."""

    def __init__(self, config: SchedulerConfig) -> None:
        self._config = config
        self.in_force: dict[str, int] = {}
        """What submitters are held to, as the ledger has it."""
        self._wanted: dict[str, int] = {}
        self._filling: dict[str, list[str]] = {}
        """By scope, the tasks that are still to be looked at before its bound is in force."""
        self._suspects: list[tuple[str, str]] = []
        """Scope and task, where the ledger may count one that does not wait."""
        self._began = False

    @property
    def busy(self) -> bool:
        """True while another pass has something to do here."""
        return bool(self._filling)

    def scopes(self, capability: str) -> tuple[str, ...]:
        """Return the scopes for which a task of `capability` counts."""
        if not self.in_force and not self._filling:
            return ()
        return tuple(s for s in (POOL, capability) if s in self.in_force or s in self._filling)

    def restore(self, scope: str, value: bytes) -> None:
        """Take over a bound that is in force."""
        self.in_force[scope] = int(from_json(value))

    def settle(self, board: "Board") -> None:
        """Follow what agents state, and fill a set further; at the end of a pass, when its tasks are where they are."""
        fleet, notes, queues = board.fleet, board.draft.notes, board.draft.queues
        if fleet.stated or not self._began:
            fleet.stated, self._began = False, True
            self._wanted = self._wants(fleet)
            for scope in [s for s in (*self.in_force, *self._filling) if s not in self._wanted]:
                self._filling.pop(scope, None)
                self.in_force.pop(scope, None)
                notes.append(Note(NoteKind.BOUND, scope, None))
                queues.append(QueueChange(scope))
            for scope, most in self._wanted.items():
                if scope not in self.in_force and scope not in self._filling:
                    self._filling[scope] = list(board.tasks)
                    queues.append(QueueChange(scope))
                elif self.in_force.get(scope, most) != most:
                    self._enforce(scope, notes)
        if self._suspects:
            self._acquit(board)
        budget = FILL
        for scope, left in list(self._filling.items()):
            waiting = [task_id for task_id in left[:budget] if self._counts(board, scope, task_id)]
            if waiting:
                queues.append(QueueChange(scope, add=waiting))
            self._filling[scope] = left[budget:]
            budget -= min(budget, len(left))
            if not self._filling[scope]:
                del self._filling[scope]
                self._enforce(scope, notes)

    def suspect(self, scopes: Iterable[str], task_ids: Iterable[str]) -> None:
        """Let these tasks count no more unless they wait when the pass is over."""
        self._suspects += [(scope, task_id) for scope in scopes for task_id in task_ids]

    def _acquit(self, board: "Board") -> None:
        suspects, self._suspects = self._suspects, []
        for scope, task_id in suspects:
            if scope in self.in_force and not self._counts(board, scope, task_id):
                board.draft.queues.append(QueueChange(scope, remove=[task_id]))

    def _enforce(self, scope: str, notes: list[Note]) -> None:
        self.in_force[scope] = self._wanted[scope]
        notes.append(Note(NoteKind.BOUND, scope, to_json(self._wanted[scope])))

    @staticmethod
    def _counts(board: "Board", scope: str, task_id: str) -> bool:
        task = board.live(task_id)
        if task is None or task.status is not TaskStatus.PENDING:
            return False
        return scope in (POOL, task.terms.requirement.capability)

    def _wants(self, fleet: Fleet) -> dict[str, int]:
        """Return what is configured, and of what agents state the strictest."""
        wanted = dict(self._config.capability_max_pending)
        for spec in (spec for agent in fleet.agents.values() for spec in agent.capabilities):
            if spec.max_pending is not None:
                wanted[spec.name] = min(spec.max_pending, wanted.get(spec.name, spec.max_pending))
        if self._config.max_pending is not None:
            wanted[POOL] = self._config.max_pending
        return wanted
