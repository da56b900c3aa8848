"""`Agent`: the class that an agent's author derives from."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, ClassVar, Final

from agent_runtime.definition import Capability, collect, read_acceptance
from agent_runtime.errors import AgentDefinitionError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from typing import Any

    from agent_runtime.settings import AgentSettings
    from bus.requirements import Clause, Value

_HOOKS: Final = ("on_start", "on_stop")


class Agent:
    """Derive from this, mark methods with `@capability`, and run it with `callboard agent module:Class`.

    One object lives as long as its process. Its methods run concurrently, up to `slots` at once: `async def` ones in
    one event loop, plain `def` ones in threads. A wrong definition raises `AgentDefinitionError` while the class is
    created.
    """

    slots: int = 1
    """How many tasks run at once; a task may take several."""

    resources: ClassVar[dict[str, float]] = {}
    """What it has for its tasks beside slots, such as ``{"gpu": 2, "mem_gb": 12}``: granted and returned exactly."""

    rate: str | None = None
    """Most tasks per time that it is to be given, such as ``5/s`` or ``600/min``; no limit when None."""

    agent_id: str | None = None
    """Name in the pool; made up when None. Settings and the command line win over it."""

    attributes: ClassVar[dict[str, Value]] = {}
    """What tasks can require or prefer of any capability of this agent, such as ``{"gpu": 24}``."""

    accepts: ClassVar[str | Sequence[Clause | str]] = ()
    """Which tasks it takes, by their `capability`, `priority`, `fairness_key` and `tags`: all conditions must be met.

    ``"fairness_key != batch, priority >= HIGH"``, or a sequence of conditions; `bus.requirement_text` has the grammar.
    """

    capabilities: ClassVar[dict[str, tuple[str, Capability]]] = {}
    """What it can do, read from its methods: by `name version`, the method's name and its definition."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for hook in _HOOKS:
            _check_hook(cls, hook)
        _check_slots(cls)
        cls.capabilities = collect(cls)
        read_acceptance(cls, cls.accepts)

    _updater: Callable[[Mapping[str, Any]], Awaitable[None]] | None = None
    """Set by what runs this object."""

    async def on_start(self) -> None:
        """Load models, open connections. The agent signs in when this returns; if it raises, the process ends."""

    async def on_stop(self) -> None:
        """Undo `on_start`. Called after the last task, also when the process stops because of an error."""

    async def update_capabilities(
        self,
        *,
        add: str | Iterable[str] = (),
        remove: str | Iterable[str] = (),
        attributes: Mapping[str, Value | None] | None = None,
        capability: str | None = None,
        slots: int | None = None,
        rate: str | None = None,
        accepts: str | Sequence[Clause | str] | None = None,
    ) -> None:
        """Change what this agent offers while it runs; returns when the dispatcher places tasks by it.

        `remove` are capabilities that it offers no more, by name or by ``"name version"``: what runs of them goes on,
        what has not begun goes to others; `add` are such as were removed. `attributes` are set, None removes one; with
        `capability` they are that capability's, else the agent's own. `slots`, `rate` (an empty text: none) and
        `accepts` take the place of the class's. What operators have changed wins over all of it.

        In `on_start` it returns at once, and the agent signs in with the changes. Without a dispatcher it waits;
        cancelling it takes nothing back. Raises `AgentDefinitionError`, and changes nothing, if it cannot be so;
        `RuntimeError` if the agent does not run, or its session ends meanwhile. Call it in the event loop.
        """
        if self._updater is None:
            raise RuntimeError("this agent does not run: await update_capabilities in on_start or in a capability")
        changes = {"add": add, "remove": remove, "attributes": attributes, "capability": capability, "slots": slots}
        await self._updater({**changes, "rate": rate, "accepts": accepts})

    def run(self, settings: AgentSettings | None = None) -> int:
        """Run this agent as the whole process until SIGTERM or SIGINT; return the exit code (see `ExitCode`).

        Settings come from the environment unless they are given. Logs to standard error unless logging is set up.
        """
        import logging  # noqa: PLC0415 - only here

        from agent_runtime.process import run_process  # noqa: PLC0415 - process imports this module
        from agent_runtime.settings import AgentSettings  # noqa: PLC0415 - pydantic-settings is for processes only

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        return run_process(self, settings or AgentSettings())


def _check_hook(owner: type, name: str) -> None:
    """Raise `AgentDefinitionError` for a hook that could not be awaited: it would fail at each start, for ever."""
    function = inspect.unwrap(getattr(owner, name))
    remedy = f"write `async def {name}(self) -> None:`"
    where = f"{owner.__qualname__}.{name}"
    if callable(function) and not inspect.isfunction(function):
        return  # a mock, or another object of the author's: only a call would tell
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise AgentDefinitionError(where, "it is a generator", f"{remedy}, and undo in on_stop what on_start has done")
    if not inspect.iscoroutinefunction(function):
        raise AgentDefinitionError(where, "it is not an `async def`", remedy)
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters):
        raise AgentDefinitionError(where, "it takes parameters that nobody could fill", remedy)


def _check_slots(owner: type[Agent]) -> None:
    """Raise `AgentDefinitionError` for what is no number of tasks; what an object computes is looked at later."""
    slots: object = owner.slots
    if isinstance(slots, property):
        return
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise AgentDefinitionError(
            f"{owner.__qualname__}.slots", f"{slots!r} is not a whole number above 0", "write e.g. `slots = 4`"
        )
