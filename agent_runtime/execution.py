"""One attempt, as a pipeline of named steps: find → decode → invoke → encode.

An attempt is *settled* once: by what the pipeline comes to, or by a verdict from outside (cancelled, timed out, the
agent stops), whichever is first; what comes after that is dropped. It has *ended* when no code of it runs any more. The
two differ for code that does not stop when it is told to, a plain `def` in its thread above all: its verdict is
reported after `PATIENCE_S`, and its slot stays taken until it has ended; meanwhile it is *overdue*.
"""

import asyncio
import contextvars
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from functools import partial
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import to_json

from agent_runtime import outcome
from agent_runtime.agent import Agent
from agent_runtime.children import Children, Nursery, Room
from agent_runtime.context import TaskContext
from agent_runtime.definition import Capability
from agent_runtime.finite import is_finite
from agent_runtime.inbox import Attempt, AttemptKey
from agent_runtime.legible import why_illegible
from agent_runtime.outcome import Outcome
from bus.clock import wall_ms
from bus.messages import MAX_BODY_BYTES
from bus.states import TaskStatus

PATIENCE_S: Final = 0.5
"""How long code that was told to stop may take to clean up before its verdict is reported without it."""

MAX_OUTPUT_BYTES: Final = MAX_BODY_BYTES - 4096
"""The longest output, so that a report of it alone stays within the limit of a message."""

EAGER: Final = sys.version_info >= (3, 12)


class Pipeline:
    """What all attempts of one agent share: its methods, its threads, and who is told."""

    def __init__(  # noqa: PLR0913 - one for each thing that is to be told
        self,
        agent: Agent,
        *,
        threads: Executor,
        settled: Callable[["Execution", Outcome, float], None],
        ended: Callable[["Execution"], None],
        progress: Callable[[AttemptKey, float, str | None], None],
        extended: Callable[[AttemptKey, float], None],
        cancelling: Callable[[AttemptKey, str], None],
        nursery: Nursery,
        room: Room,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop_thread = threading.get_ident()
        self.threads = threads
        self.settled = settled
        self.ended = ended
        self.progress = progress
        self.extended = extended
        self.cancelling = cancelling
        self.nursery = nursery
        self.room = room
        self.withdrawn: frozenset[str] = frozenset()
        """Capabilities that are not offered now, by `name version`: what runs of them goes on."""
        self._known: dict[str, list[Operation]] = {}
        for method, capability in agent.capabilities.values():
            self._known.setdefault(capability.name, []).append(Operation(capability, getattr(agent, method)))

    def find(self, name: str, versions: str | None, exactly: str | None = None) -> "Operation | None":
        """Return the method for a capability: of version `exactly`, else the latest that fits the range.

        The leader says `exactly` which version it has matched, for only that one has the attributes that were asked
        for. Another one will not do: None then, as for a name that is unknown.
        """
        known = self._known.get(name)
        if known is None:
            return None
        if exactly is not None:
            return next((operation for operation in known if operation.capability.version == exactly), None)
        if self.withdrawn:
            known = [one for one in known if one.capability.key not in self.withdrawn] or known
        if len(known) == 1:  # the leader has compared the version
            return known[0]
        from packaging.specifiers import SpecifierSet  # noqa: PLC0415 - most agents never need it
        from packaging.version import Version  # noqa: PLC0415

        fits = SpecifierSet(versions or "", prereleases=True)
        fitting = [operation for operation in known if Version(operation.capability.version) in fits]
        return max(fitting, key=lambda operation: Version(operation.capability.version), default=None)

    def lacks(self, attempt: Attempt) -> bool:
        """Tell whether the agent has what `attempt` is for, and offers it no more."""
        known = self._known.get(attempt.task["capability"], ())
        meant = [one for one in known if attempt.version in (None, one.capability.version)]
        return bool(meant) and all(one.capability.key in self.withdrawn for one in meant)


class Operation:
    """A capability bound to the agent's object."""

    __slots__ = ("call", "capability", "dump", "load", "validate")

    def __init__(self, capability: Capability, call: Callable[..., Any]) -> None:
        self.capability = capability
        self.call = call
        self.load = capability.input.validator.validate_python
        self.validate = capability.output.validator.validate_python
        self.dump = capability.output.serializer.to_python

    def decode(self, payload: Any) -> Any:  # noqa: ANN401 - what the annotation says
        """Return the payload as the method wants it; raises `ValidationError`."""
        try:
            return self.load(payload)
        except ValidationError:
            # Strict models and some types take less from Python objects than from JSON, and JSON is what it was.
            return self.capability.input.validate_json(to_json(payload, inf_nan_mode="constants"))

    def encode(self, result: Any) -> tuple[bytes, Any]:  # noqa: ANN401 - whatever the method returned
        """Return the result as JSON, and validated; raises `ValueError` if it is not what was declared."""
        valid = self.validate(result)
        return to_json(self.dump(valid, mode="json", warnings="error"), inf_nan_mode="constants"), valid


class Execution:
    """One attempt under way."""

    __slots__ = (
        "_began",
        "_begun",
        "_children",
        "_context",
        "_extended",
        "_pipeline",
        "_run_timeout",
        "_settled",
        "_task",
        "_timeout",
        "_timers",
        "_verdict",
        "attempt",
        "operation",
        "overdue",
    )

    def __init__(self, pipeline: Pipeline, attempt: Attempt) -> None:
        self.attempt = attempt
        self.operation = pipeline.find(attempt.task["capability"], attempt.task.get("version"), attempt.version)
        self.overdue = False
        """True once it was reported without its code, which goes on and keeps the slot."""
        self._pipeline = pipeline
        self._began = time.monotonic()
        self._verdict: Outcome | None = None
        self._settled = False
        self._begun = False
        self._children: Children | None = None
        self._task: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._timeout: asyncio.TimerHandle | None = None
        self._extended = 0.0
        # As the submitter wrote it: the leader takes numbers in a text for numbers, too.
        given = attempt.task.get("run_timeout")
        self._run_timeout = None if given is None else float(given)
        metadata: Mapping[str, Any] = attempt.task.get("metadata") or {}
        run: Mapping[str, Any] | None = attempt.task.get("schedule")
        self._context = TaskContext(*attempt.key, metadata, None, self._progress, self._extend, self._family, run)

    @property
    def exclusive(self) -> bool:
        """True if it must not go on when the lease is in doubt."""
        return self.operation is not None and self.operation.capability.exclusive

    @property
    def settled(self) -> bool:
        """True once it is reported how it ended."""
        return self._settled

    def start(self) -> None:
        """Begin; its time runs from here. With eager tasks (Python 3.12 on) it may have ended when this returns."""
        loop = self._pipeline.loop
        self._began = time.monotonic()
        if (timeout := self._run_timeout) is not None:
            self._timeout = loop.call_later(timeout, self._time_is_over)
            self._context._deadline_ms = wall_ms() + timeout * 1000  # noqa: SLF001 - the two are one
        work: Coroutine[Any, Any, None] = self._run()
        if EAGER:
            self._task = asyncio.Task(work, loop=loop, eager_start=True)  # type: ignore[call-arg, unused-ignore]
        else:
            self._task = loop.create_task(work)

    def cancel(self, why: str, grace: float | None) -> None:
        """Stop the code within `grace` seconds, and say when it knows: a thread does when it has asked."""
        if self._settled or self._verdict is not None:
            return
        key, say = self.attempt.key, self._pipeline.cancelling
        at_once = self.operation is None or self.operation.capability.is_async
        if not at_once:
            self._context._seen = lambda: self._in_loop(partial(say, key, "acknowledged"))  # noqa: SLF001 - the two are one
        say(key, "acknowledged" if at_once else "delivered")
        self.stop(outcome.cancelled(why), PATIENCE_S if grace is None else max(0.0, grace))

    def stop(self, verdict: Outcome, patience: float = PATIENCE_S) -> None:
        """Stop the code and settle with `verdict`, at the latest after `patience` (s). The first verdict counts."""
        if self._settled or self._verdict is not None:
            return
        self._verdict = verdict
        self._context._cancel()  # noqa: SLF001 - the two are one
        if self._children is not None:
            self._children.let_go()
        self._timers.append(self._pipeline.loop.call_later(patience, self._give_up, verdict))
        # A task that is cancelled before its first step never runs any of its code, our `finally` included: the slot
        # would be lost. It finds the verdict by itself.
        if self._begun and self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        self._begun = True
        try:
            self._settle(await self._found())
        except asyncio.CancelledError:
            # Without a verdict nobody told it to stop: it awaited something that was cancelled.
            self._settle(outcome.failed("CancelledError", "the method ended by a cancellation of its own"))
            raise
        finally:
            for timer in (self._timeout, *self._timers):
                if timer is not None:
                    timer.cancel()
            self._pipeline.ended(self)

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
        result = await self._invoke(operation, payload)
        try:
            output, valid = operation.encode(result)
        except Exception as error:  # noqa: BLE001 - so with the user's validators and serializers
            return outcome.invalid_output(operation.capability.name, error)
        return self._checked(operation, output, valid)

    def _checked(self, operation: "Operation", output: bytes, result: object) -> Outcome:
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

    async def _invoke(self, operation: Operation, payload: Any) -> Any:  # noqa: ANN401 - the user's own types
        capability = operation.capability
        if capability.is_async:
            if capability.takes_context:
                return await operation.call(payload, self._context)
            return await operation.call(payload)
        arguments = (payload, self._context) if capability.takes_context else (payload,)
        return await self._in_thread(operation.call, arguments)

    async def _in_thread(self, call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
        future = self._pipeline.threads.submit(contextvars.copy_context().run, _called, call, arguments)
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
        if self._settled or self._timeout is None:
            return
        self._extended += seconds
        self._timeout.cancel()
        self._timeout = self._pipeline.loop.call_at(self._timeout.when() + seconds, self._time_is_over)
        self._pipeline.extended(self.attempt.key, self._extended)

    def _time_is_over(self) -> None:
        self.stop(outcome.timed_out((self._run_timeout or 0.0) + self._extended))

    def _note(self, fraction: float, note: str | None) -> None:
        if not self._settled:
            self._pipeline.progress(self.attempt.key, fraction, note)

    def _give_up(self, verdict: Outcome) -> None:
        """Report the verdict without the code, which does not stop."""
        self.overdue = not self._settled
        if verdict.status is TaskStatus.CANCELLED:
            self._verdict = verdict._replace(abandoned=True)
        self._settle(verdict)

    def _settle(self, found: Outcome) -> None:
        if self._settled:
            return
        self._settled = True
        self._context._cancel()  # noqa: SLF001 - from here on nothing of it counts
        self._pipeline.settled(self, self._verdict or found, time.monotonic() - self._began)


def _called(call: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:  # noqa: ANN401
    """Call a method in its thread, as a coroutine would."""
    try:
        return call(*arguments)
    except (StopIteration, GeneratorExit) as error:
        # What awaits a future takes these two for its own: before Python 3.12 it would wait for ever after the one, and
        # be closed without a word by the other.
        raise RuntimeError(f"the method raised {type(error).__name__}") from error
