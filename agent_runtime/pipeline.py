"""What all attempts of one agent share: its methods with what pydantic made of their annotations, and who is told."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import to_json

from agent_runtime.writing import writer_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Executor

    from agent_runtime.agent import Agent
    from agent_runtime.children import Nursery, Room
    from agent_runtime.definition import Capability
    from agent_runtime.execution import Execution
    from agent_runtime.inbox import Attempt, AttemptKey
    from agent_runtime.outcome import Outcome


class Pipeline:
    """What all attempts of one agent share: its methods, its threads, and who is told."""

    def __init__(  # noqa: PLR0913 - one for each thing that is to be told
        self,
        agent: Agent,
        *,
        threads: Executor,
        settled: Callable[[Execution, Outcome, float], None],
        ended: Callable[[Execution], None],
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

    def find(self, name: str, versions: str | None, exactly: str | None = None) -> Operation | None:
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

    __slots__ = ("call", "capability", "load", "validate", "write")

    def __init__(self, capability: Capability, call: Callable[..., Any]) -> None:
        self.capability = capability
        self.call = call
        self.load = capability.input.validator.validate_python
        self.validate = capability.output.validator.validate_python
        self.write = writer_of(capability.output)

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
        return self.write(valid), valid
