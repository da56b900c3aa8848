"""Submitting children: what a task that runs sends on behalf of itself.

**Which child is which.** A parent that is tried again runs its code again, and shall find the children that it has,
with their results, instead of doing everything twice. So a child's id is derived from its parent and from what was
asked (capability, payload, options), and of equal ones from how many went before. What a parent asks in another order,
it finds all the same; what it asks differently is another child. Nothing is compared by position, so a parent whose
code takes another way the second time never gets a result that belongs to another question. A child that has FAILED or
was CANCELLED is no result: the next attempt submits it anew, as the next *edition*.

A `key` that was given is what it is everywhere, the pool's idempotency key; with `key=None` each child is a new one.
"""

import asyncio
import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from pydantic_core import to_json

from bus.client import Client, output_of, task_of
from bus.connection import CONNECTION_ERRORS
from bus.errors import SubmissionError
from bus.handle import TaskHandle
from bus.ids import TaskId, keyed_task_id, new_task_id, task_pool
from bus.messages import MAX_DEPTH
from bus.names import PoolNames
from bus.records import Guard, TaskCreate
from bus.states import TaskPriority, TaskStatus
from bus.submission import content_of, written

SUBMIT_AHEAD: Final = 1000
"""Children that are taken from an iterable before they are sent."""
ACCEPTED_POLL_S: Final = 0.02
ACCEPTED_POLL_MOST_S: Final = 0.5


@dataclass(slots=True)
class Parent:
    """A task that runs, as the parent of what it submits."""

    id: TaskId
    attempt: int
    depth: int
    """Its own depth."""
    trace: str
    priority: TaskPriority
    fairness_key: str | None
    asked: Counter[bytes] = field(default_factory=Counter)
    """How many equal children this attempt has asked for, by the digest of what was asked."""


class FamilyClient(Client):
    """A client for the children of tasks; one serves all tasks of an agent."""

    async def submit_child(
        self, parent: Parent, capability: object, payload: object, options: Mapping[str, Any]
    ) -> TaskHandle[Any]:
        """Publish one child; returns when the server has stored it, or the child is found that there is already.

        Raises as `Client.submit` does, and `SubmissionError` beyond the limit of depth or in another pool.
        """
        return await self._child(parent, task_of(capability, payload, options), output_of(capability))

    async def submit_children(self, parent: Parent, tasks: Iterable[TaskCreate]) -> list[TaskHandle[Any]]:
        """Publish many children, hundreds in one round trip; return their handles in order."""
        source, handles = iter(tasks), list[TaskHandle[Any]]()
        while chunk := list(islice(source, SUBMIT_AHEAD)):
            handles += await asyncio.gather(*(self._child(parent, task, None) for task in chunk))
        return handles

    async def _child(self, parent: Parent, task: TaskCreate, output: Any) -> TaskHandle[Any]:  # noqa: ANN401
        pool = task_pool(parent.id)
        if task.pool not in (None, pool):
            raise SubmissionError(
                f"a child lives in the pool of its parent, {pool!r}, and not in {task.pool!r}: "
                "submit it with a `Client` of your own; it is nobody's child then"
            )
        if parent.depth >= MAX_DEPTH:
            raise SubmissionError(
                f"task {parent.id} has depth {parent.depth}, and no child may be deeper than {MAX_DEPTH}: "
                "does a task call itself without an end?"
            )
        task, names = _with_inheritance(task, parent), PoolNames(pool)
        content = content_of(task)
        if "key" in task.model_fields_set:
            task_id = new_task_id(pool) if task.key is None else keyed_task_id(pool, task.key)
            known = await self._send_child(names, parent, task, task_id, content, keyed=task.key is not None)
        else:
            task_id, known = await self._same(names, parent, task, content)
        return self._handle(names, task_id, known=known, output=output)

    async def _same(self, names: PoolNames, parent: Parent, task: TaskCreate, content: bytes) -> tuple[TaskId, bool]:
        """Find or submit the child that is told by what was asked; tell its id, and whether it was there."""
        digest = hashlib.blake2b(content, digest_size=16).digest()
        number, parent.asked[digest] = parent.asked[digest], parent.asked[digest] + 1
        edition = 0
        while True:
            task_id = keyed_task_id(names.pool, f"child {parent.id} {digest.hex()} {number} {edition}")
            known = await self._send_child(names, parent, task, task_id, content, keyed=True)
            if not known or not await self._came_to_nothing(names, task_id):
                return task_id, known
            edition += 1

    async def _send_child(
        self, names: PoolNames, parent: Parent, task: TaskCreate, task_id: TaskId, content: bytes, *, keyed: bool
    ) -> bool:
        kin = {"parent": parent.id, "parent_attempt": parent.attempt, "depth": parent.depth + 1}
        more = to_json(kin)[1:-1] + b","
        submission = written(task, task_id, self._link.client_id, content, keyed=keyed, more=more)
        return await self._submitter.submit(names, submission)

    async def _came_to_nothing(self, names: PoolNames, task_id: TaskId) -> bool:
        """Tell whether a known child has FAILED or was CANCELLED; waits until the leader has read its submission.

        Such as that of an earlier attempt, which the leader cancels if it reads it only now.
        """
        wait = ACCEPTED_POLL_S
        while True:
            try:
                state: Any = await self._link.redis.hget(names.task(task_id), "state")
                unread = state is None and await self._link.redis.exists(names.submitted(task_id))
            except CONNECTION_ERRORS:
                unread, state = True, None
            if state is not None:
                status = Guard.parse(state.decode()).status
                return status.terminal and status is not TaskStatus.COMPLETED
            if not unread:
                return False
            await asyncio.sleep(wait)
            wait = min(2 * wait, ACCEPTED_POLL_MOST_S)


def _with_inheritance(task: TaskCreate, parent: Parent) -> TaskCreate:
    """Return the child with what it has of its parent, where it says nothing itself."""
    given = task.model_fields_set
    inherited: dict[str, Any] = {}
    if task.trace is None:
        inherited["trace"] = parent.trace
    if "priority" not in given:
        inherited["priority"] = parent.priority
    if "fairness_key" not in given and parent.fairness_key is not None:
        inherited["fairness_key"] = parent.fairness_key
    return task.model_copy(update=inherited)
