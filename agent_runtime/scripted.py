"""Children in tests of an agent: answers that the test has written down take the place of the bus."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple

from pydantic_core import from_json, to_json

from agent_runtime import outcome
from bus.client import output_of, task_of
from bus.errors import UnknownTaskError
from bus.handle import TaskHandle
from bus.ids import TaskId, task_pool
from bus.messages import Outcome
from bus.states import TaskStatus
from bus.waiter import Waiter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent_runtime.inbox import AttemptKey
    from bus.family import Parent
    from bus.records import TaskCreate, TaskInDB


class Child(NamedTuple):
    """One child that a task has started."""

    parent: str
    """Id of the task that has started it."""
    capability: str
    payload: Any
    """As JSON has it."""
    options: Mapping[str, Any]
    """What else was given."""


class ScriptedNursery:
    """Answers children by `script`: by the capability's name, a result, or a function of the payload that makes it.

    The function may be a coroutine function; what it raises is how the child fails. Nothing is remembered from one
    attempt to the next.
    """

    def __init__(self, script: Mapping[str, object]) -> None:
        self.script = dict(script)
        self.children: list[Child] = []
        self._ids = count(1)
        self._working: dict[str, asyncio.Task[None]] = {}

    async def submit(
        self, parent: Parent, capability: object, payload: object, options: Mapping[str, Any]
    ) -> TaskHandle[Any]:
        """Start one child."""
        return self._start(parent, task_of(capability, payload, options), output_of(capability))

    async def submit_many(self, parent: Parent, tasks: Iterable[TaskCreate]) -> list[TaskHandle[Any]]:
        """Start many children."""
        return [self._start(parent, task, None) for task in tasks]

    def close(self) -> None:
        """Stop all children."""
        for work in list(self._working.values()):
            work.cancel()

    # --- what a handle needs of its client

    async def get(self, task_id: str, *, patience: float = 0.0) -> TaskInDB:  # noqa: ARG002 - as a client has it
        """Raise `UnknownTaskError`: there is no ledger."""
        raise UnknownTaskError(task_id)

    async def cancel(
        self,
        task_ids: list[str],
        reason: str = "",  # noqa: ARG002 - as a client has it
        *,
        by: str | None = None,  # noqa: ARG002
        grace: float | None = None,  # noqa: ARG002
    ) -> None:
        """Cancel children that have not ended."""
        for task_id in task_ids:
            if task_id in self._working:
                self._working[task_id].cancel()

    def _start(self, parent: Parent, task: TaskCreate, output: Any) -> TaskHandle[Any]:  # noqa: ANN401
        if task.capability not in self.script:
            raise LookupError(
                f"this test has no answer for a child {task.capability!r}: "
                f"write AgentKit(agent, children={{{task.capability!r}: …}})"
            )
        payload = from_json(to_json(task.payload, inf_nan_mode="constants"))
        options = {name: getattr(task, name) for name in task.model_fields_set - {"capability", "payload"}}
        self.children.append(Child(parent.id, task.capability, payload, options))
        waiter = Waiter(TaskId(f"{task_pool(parent.id)}.child-{next(self._ids)}"))
        answer = self.script[task.capability]
        work = self._working[waiter.task_id] = asyncio.create_task(self._work(waiter, answer, payload))
        work.add_done_callback(partial(self._ended, waiter))
        return TaskHandle(self, waiter, lambda _: None, output)

    def _ended(self, waiter: Waiter, _: object) -> None:
        del self._working[waiter.task_id]
        waiter.tell(_outcome(waiter, status=TaskStatus.CANCELLED))  # if it was stopped, perhaps before its first step

    @staticmethod
    async def _work(waiter: Waiter, answer: object, payload: object) -> None:
        try:
            found = answer(payload) if callable(answer) else answer
            if inspect.isawaitable(found):
                found = await found
            result = from_json(to_json(found, inf_nan_mode="constants"))
        except Exception as error:  # noqa: BLE001 - the border to the test's code
            bad = outcome.raised(error)
            waiter.tell(_outcome(waiter, status=bad.status, reason=bad.reason, error=bad.error))
        else:
            waiter.tell(_outcome(waiter, status=TaskStatus.COMPLETED, output=result))


def _outcome(waiter: Waiter, **fields: Any) -> Outcome:
    return Outcome.model_validate({"task_id": waiter.task_id, "attempt": 1, **fields})


class NoRoom:
    """The slots of a kit, of which there are always enough."""

    def leave(self, key: AttemptKey) -> None:
        """Do nothing."""

    async def come_back(self, key: AttemptKey) -> None:
        """Do nothing."""

    def come_back_at_once(self, key: AttemptKey) -> None:
        """Do nothing."""
