"""One attempt, as a pipeline of named steps: find → decode → invoke → encode.

An attempt is *settled* once: by what the pipeline comes to, or by a verdict from outside (cancelled, timed out, the
agent stops), whichever is first; what comes after that is dropped. It has *ended* when no code of it runs any more. The
two differ for code that does not stop when it is told to, a plain `def` in its thread above all: its verdict is
reported after `PATIENCE_S`, and its slot stays taken until it has ended; meanwhile it is *overdue*.
"""

import asyncio
import contextvars
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from agent_runtime import outcome
from agent_runtime.children import Children
from agent_runtime.context import TaskContext
from agent_runtime.finite import is_finite
from agent_runtime.inbox import Attempt
from agent_runtime.legible import why_illegible
from agent_runtime.outcome import Outcome
from agent_runtime.pipeline import Operation, Pipeline
from bus.clock import wall_ms
from bus.messages import MAX_BODY_BYTES
from bus.states import TaskStatus

PATIENCE_S: Final = 0.5
"""How long code that was told to stop may take to clean up before its verdict is reported without it."""

MAX_OUTPUT_BYTES: Final = MAX_BODY_BYTES - 4096
"""The longest output, so that a report of it alone stays within the limit of a message."""


class Execution:
    """One attempt under way."""

    __slots__ = (
        "_began",
        "_children",
        "_context",
        "_deadline_ms",
        "_extended",
        "_patience",
        "_pipeline",
        "_run_timeout",
        "_task",
        "_timeout",
        "_verdict",
        "attempt",
        "operation",
        "overdue",
        "settled",
    )

    def __init__(self, pipeline: Pipeline, attempt: Attempt) -> None:
        task = attempt.task
        self.attempt = attempt
        self.operation = pipeline.find(task["capability"], task.get("version"), attempt.version)
        self.overdue = False
        """True once it was reported without its code, which goes on and keeps the slot."""
        self.settled = False
        """True once it is reported how it ended."""
        self._pipeline = pipeline
        self._began = 0.0
        self._verdict: Outcome | None = None
        self._children: Children | None = None
        self._context: TaskContext | None = None
        self._task: asyncio.Task[None] | None = None
        self._patience: asyncio.TimerHandle | None = None
        self._timeout: asyncio.TimerHandle | None = None
        self._deadline_ms: float | None = None
        self._extended = 0.0
        # As the submitter wrote it: the leader takes numbers in a text for numbers, too.
        given = task.get("run_timeout")
        self._run_timeout = None if given is None else float(given)

    @property
    def exclusive(self) -> bool:
        """True if it must not go on when the lease is in doubt."""
        return self.operation is not None and self.operation.capability.exclusive

    @property
    def seconds(self) -> float:
        """How long it has run."""
        return time.monotonic() - self._began if self._began else 0.0

    async def run(self, task: asyncio.Task[None]) -> None:
        """Do all of it, in `task`, which is cancelled if it is to stop. Its time runs from here."""
        self._task = task
        self._began = time.monotonic()
        if self._run_timeout is not None:
            self._timeout = self._pipeline.loop.call_later(self._run_timeout, self._time_is_over)
            self._deadline_ms = wall_ms() + self._run_timeout * 1000
        try:
            self._settle(await self._found())
        except asyncio.CancelledError:
            # Without a verdict nobody told it to stop: it awaited something that was cancelled.
            self._settle(outcome.failed("CancelledError", "the method ended by a cancellation of its own"))
            raise
        finally:
            if self._timeout is not None:
                self._timeout.cancel()
            if self._patience is not None:
                self._patience.cancel()
            self._pipeline.ended(self)

    def cancel(self, why: str, grace: float | None) -> None:
        """Stop the code within `grace` seconds, and say when it knows: a thread does when it has asked."""
        if self.settled or self._verdict is not None:
            return
        key, say = self.attempt.key, self._pipeline.cancelling
        at_once = self.operation is None or self.operation.capability.is_async
        if not at_once and self._context is not None:
            self._context._seen = lambda: self._in_loop(partial(say, key, "acknowledged"))  # noqa: SLF001 - the two are one
        say(key, "acknowledged" if at_once else "delivered")
        self.stop(outcome.cancelled(why), PATIENCE_S if grace is None else max(0.0, grace))

    def stop(self, verdict: Outcome, patience: float = PATIENCE_S) -> None:
        """Stop the code and settle with `verdict`, at the latest after `patience` (s). The first verdict counts."""
        if self.settled or self._verdict is not None:
            return
        self._verdict = verdict
        if self._context is not None:
            self._context._cancel()  # noqa: SLF001 - the two are one
        if self._children is not None:
            self._children.let_go()
        self._patience = self._pipeline.loop.call_later(patience, self._give_up, verdict)
        if self._task is not None:  # one that has not begun finds the verdict when it does
            self._task.cancel()

    async def _found(self) -> Outcome:
        """Return what it comes to, whatever the user's code raises: the border to it is here.

        No exception may pass but a cancellation, or the attempt would never be reported and the task run for ever. So
        `SystemExit` and `KeyboardInterrupt`, too, end the attempt and not the agent: an agent's process takes its
        signals by handlers, and what is raised here was raised by the method.
        """
        if self._verdict is not None:
            return self._verdict
        try:
            return await self._steps()
        except asyncio.CancelledError:
            raise
        except GeneratorExit:
            if not self._pipeline.loop.is_running():
                raise  # the coroutine is closed because the loop is: there is nobody to tell
            return outcome.failed("GeneratorExit", "the method raised what only closes generators")
        except BaseException as error:  # noqa: BLE001 - see above
            return outcome.raised(error)

    async def _steps(self) -> Outcome:
        task, version, operation = self.attempt.task, self.attempt.version, self.operation
        if operation is None:
            what = f"{task['capability']} {version or ''}".strip()
            return outcome.failed("UnknownCapability", f"this agent has no {what}")
        try:
            payload = operation.decode(task.get("payload"))
        except ValidationError as error:
            return outcome.invalid_input(operation.capability.name, error)
        result = await self._called(operation, payload)
        try:
            output, valid = operation.encode(result)
        except Exception as error:  # noqa: BLE001 - so with the user's validators and serializers
            return outcome.invalid_output(operation.capability.name, error)
        return self._checked(operation, output, valid)

    def _checked(self, operation: Operation, output: bytes, result: object) -> Outcome:
        if len(output) > MAX_OUTPUT_BYTES:
            return outcome.failed(
                "OutputTooLarge",
                f"the output takes {len(output):,} bytes and the limit is {MAX_OUTPUT_BYTES:,}: "
                "store the data elsewhere and return a reference to it",
                retryable=False,
            )
        if why := why_illegible(output):
            return outcome.illegible_output(operation.capability.name, why)
        if not is_finite(output, result, operation.capability.output):
            return outcome.endless_output(operation.capability.name)
        return Outcome(TaskStatus.COMPLETED, output)

    def _called(self, operation: Operation, payload: Any) -> Awaitable[Any]:  # noqa: ANN401 - the user's own types
        capability = operation.capability
        if not capability.takes_context:
            return operation.call(payload) if capability.is_async else self._in_thread(operation.call, (payload,))
        attempt, task = self.attempt, self.attempt.task
        context = self._context = TaskContext(
            *attempt.key,
            task.get("metadata") or {},
            self._deadline_ms,
            self._progress,
            self._extend,
            self._family,
            task.get("schedule"),
        )
        if capability.is_async:
            return operation.call(payload, context)  # type: ignore[no-any-return]
        return self._in_thread(operation.call, (payload, context))

    async def _in_thread(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
        future = self._pipeline.threads.submit(contextvars.copy_context().run, _call, call, arguments)
        waiter = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            if not future.cancel():
                await asyncio.wait([waiter])  # a thread cannot be stopped; a second cancel gives up waiting for it
                if not waiter.cancelled():
                    waiter.exception()  # seen, and of no consequence
            raise

    def _family(self) -> Children:
        """Return the children of this attempt; most never have any."""
        if self._children is None:
            pipeline = self._pipeline
            self._children = Children(self.attempt, pipeline.nursery, pipeline.room, pipeline.loop)
            if self._verdict is not None:
                self._children.let_go()
        return self._children

    def _progress(self, fraction: float, note: str | None) -> None:
        self._in_loop(partial(self._note, fraction, note))

    def _extend(self, seconds: float) -> None:
        self._in_loop(partial(self._run_longer, seconds))

    def _in_loop(self, call: Callable[[], None]) -> None:
        if threading.get_ident() == self._pipeline.loop_thread:
            call()
        else:
            self._pipeline.loop.call_soon_threadsafe(call)

    def _run_longer(self, seconds: float) -> None:
        if self.settled or self._timeout is None:
            return
        self._extended += seconds
        self._timeout.cancel()
        self._timeout = self._pipeline.loop.call_at(self._timeout.when() + seconds, self._time_is_over)
        self._pipeline.extended(self.attempt.key, self._extended)

    def _time_is_over(self) -> None:
        self.stop(outcome.timed_out((self._run_timeout or 0.0) + self._extended))

    def _note(self, fraction: float, note: str | None) -> None:
        if not self.settled:
            self._pipeline.progress(self.attempt.key, fraction, note)

    def _give_up(self, verdict: Outcome) -> None:
        """Report the verdict without the code, which does not stop."""
        self.overdue = not self.settled
        if verdict.status is TaskStatus.CANCELLED:
            self._verdict = verdict._replace(abandoned=True)
        self._settle(verdict)

    def _settle(self, found: Outcome) -> None:
        if self.settled:
            return
        self.settled = True
        if self._context is not None:
            self._context._cancel()  # noqa: SLF001 - from here on nothing of it counts
        self._pipeline.settled(self, self._verdict or found, self.seconds)


def _call(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Call a method in its thread, as a coroutine would."""
    try:
        return call(*arguments)
    except (StopIteration, GeneratorExit) as error:
        # What awaits a future takes these two for its own: before Python 3.12 it would wait for ever after the one, and
        # be closed without a word by the other.
        raise RuntimeError(f"the method raised {type(error).__name__}") from error
