"""Test an agent without a server: the same pipeline that runs real tasks, with the test as their submitter.

async with AgentKit(Counter()) as kit:
    assert await kit.run("text.count", {"text": "a b c"}) == {"words": 3}
"""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from pydantic import JsonValue
from pydantic_core import from_json, to_json

from agent_runtime.agent import Agent
from agent_runtime.definition import ATTRIBUTE, Capability
from agent_runtime.execution import Execution
from agent_runtime.inbox import Attempt, AttemptKey
from agent_runtime.offer import Offer
from agent_runtime.outcome import Outcome, cancelled
from agent_runtime.pipeline import Pipeline
from agent_runtime.registration import registration_of
from agent_runtime.scripted import Child, NoRoom, ScriptedNursery
from agent_runtime.settings import AgentSettings
from agent_runtime.turns import Turns
from bus.errors import TaskCancelledError, TaskFailedError, TaskTimeoutError
from bus.ids import new_session
from bus.messages import TaskError
from bus.states import FailureReason, TaskStatus

__all__ = ["AgentKit", "Child", "Progress"]

_POOL: Final = "test"


class Progress(NamedTuple):
    """One word of a task on its progress."""

    task_id: str
    fraction: float
    note: str | None


class AgentKit:
    """Runs single tasks on an agent. `on_start` and `on_stop` frame the `async with` block.

    Slots, retries and priorities are the dispatcher's and the worker's business: here each task is one attempt, begun
    at once.
    """

    def __init__(self, agent: Agent, *, children: Mapping[str, object] | None = None) -> None:
        """`children` has an answer for each capability of which its tasks start children.

        An answer is the result itself, or a function of the child's payload that returns it, or raises; it may be an
        `async def`.
        """
        self.agent = agent
        self._nursery = ScriptedNursery(children or {})
        self.progress: list[Progress] = []
        """All progress that was reported, in its order."""
        self._ids = count(1)
        self._outcomes: dict[AttemptKey, asyncio.Future[Outcome]] = {}
        self._running: dict[AttemptKey, Execution] = {}
        self._begin: deque[Execution] = deque()
        self._pipeline: Pipeline | None = None

    async def __aenter__(self) -> Self:
        session, settings = new_session(), AgentSettings(redis_url="redis://localhost")
        offer = Offer(self.agent, lambda: registration_of(self.agent, "kit", session, settings, {}))

        async def update(changes: Mapping[str, Any]) -> None:
            offer.change(**changes)

        self.agent._updater = update  # noqa: SLF001 - the kit runs it
        await self.agent.on_start()
        self._threads = ThreadPoolExecutor(max(1, self.agent.slots), thread_name_prefix="callboard-kit")
        self._turns = Turns(ready=lambda: bool(self._begin), following=self._following, waits=lambda _: None)
        self._pipeline = Pipeline(
            self.agent,
            threads=self._threads,
            settled=self._settled,
            ended=self._ended,
            progress=self._progressed,
            extended=lambda _key, _seconds: None,
            cancelling=lambda _key, _step: None,
            nursery=self._nursery,
            room=NoRoom(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for execution in list(self._running.values()):
            execution.stop(cancelled("the kit was closed"))
        self._nursery.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._pipeline = None
        await self.agent.on_stop()

    @property
    def children(self) -> list[Child]:
        """All children that were started, in their order."""
        return self._nursery.children

    async def run(
        self,
        capability: str | Callable[..., Any],
        payload: Any = None,  # noqa: ANN401 - JSON or a pydantic model, as for `Client.submit`
        *,
        version: str | None = None,
        run_timeout: float | None = None,
        metadata: Mapping[str, JsonValue] | None = None,
        attempt: int = 1,
    ) -> Any:  # noqa: ANN401 - JSON, or what the method's annotation says
        """Run one task and return its output as a client would get it: JSON, or typed if a method was given.

        Payload and output go through JSON, as they do on the wire. Raises `TaskFailedError` (`reason` and `error` say
        why), `TaskTimeoutError` or `TaskCancelledError`. Cancelling this call cancels the attempt.
        """
        if self._pipeline is None:
            raise RuntimeError("the kit is not open: use `async with AgentKit(agent) as kit:`")
        definition: Capability | None = getattr(capability, ATTRIBUTE, None)
        if definition is None and not isinstance(capability, str):
            raise TypeError(f"{capability!r} is neither a capability's name nor a method marked with @capability")
        task = {
            "capability": capability if definition is None else definition.name,
            "payload": from_json(to_json(payload, inf_nan_mode="constants")),
            "version": version if definition is None or version else f"=={definition.version}",
            "run_timeout": run_timeout,
            "metadata": dict(metadata or {}),
        }
        found = await self._outcome(Attempt(f"{_POOL}.{next(self._ids)}", attempt, 0, task), self._pipeline)
        return from_json(found) if definition is None else definition.output.validate_json(found)

    def cancel(self, reason: str = "") -> None:
        """Cancel all tasks that run now, as a submitter would."""
        for execution in list(self._running.values()):
            execution.stop(cancelled(reason or "cancelled"))

    async def _outcome(self, attempt: Attempt, pipeline: Pipeline) -> bytes:
        waiting: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._outcomes[attempt.key] = waiting
        execution = self._running[attempt.key] = Execution(pipeline, attempt)
        self._begin.append(execution)
        self._turns.wake()
        try:
            found = await waiting
        except asyncio.CancelledError:
            execution.stop(cancelled("the caller was cancelled"))
            raise
        finally:
            del self._outcomes[attempt.key]
        return _output_of(attempt.key[0], found)

    def _following(self) -> Execution | None:
        return self._begin.popleft() if self._begin else None

    def _settled(self, execution: Execution, found: Outcome, _seconds: float) -> None:
        waiting = self._outcomes.get(execution.attempt.key)
        if waiting is not None and not waiting.done():
            waiting.set_result(found)

    def _ended(self, execution: Execution) -> None:
        del self._running[execution.attempt.key]

    def _progressed(self, key: AttemptKey, fraction: float, note: str | None) -> None:
        self.progress.append(Progress(key[0], fraction, note))


def _output_of(task_id: str, found: Outcome) -> bytes:
    """Return the output; raises what a client's `result()` would."""
    if found.status is TaskStatus.COMPLETED:
        return found.output
    error = TaskError.model_validate_json(to_json(found.error))
    if found.status is TaskStatus.CANCELLED:
        raise TaskCancelledError(task_id, f"was cancelled: {error.message}", reason=error.message)
    kind = TaskTimeoutError if found.reason is FailureReason.TIMEOUT else TaskFailedError
    raise kind(task_id, f"failed: {error.type}: {error.message}", reason=found.reason, error=error)
