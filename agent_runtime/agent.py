"""`Agent`: the class that an agent's author derives from."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from agent_runtime.definition import Capability, collect

if TYPE_CHECKING:
    from agent_runtime.settings import AgentSettings
    from bus.requirements import Value


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

    capabilities: ClassVar[dict[str, tuple[str, Capability]]] = {}
    """What it can do, read from its methods: by `name version`, the method's name and its definition."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.capabilities = collect(cls)

    async def on_start(self) -> None:
        """Load models, open connections. The agent signs in when this returns; if it raises, the process ends."""

    async def on_stop(self) -> None:
        """Undo `on_start`. Called after the last task, also when the process stops because of an error."""

    def run(self, settings: AgentSettings | None = None) -> int:
        """Run this agent as the whole process until SIGTERM or SIGINT; return the exit code (see `ExitCode`).

        Settings come from the environment unless they are given. Logs to standard error unless logging is set up.
        """
        import logging  # noqa: PLC0415 - only here

        from agent_runtime.process import run_process  # noqa: PLC0415 - process imports this module
        from agent_runtime.settings import AgentSettings  # noqa: PLC0415 - pydantic-settings is for processes only

        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        return run_process(self, settings or AgentSettings())
