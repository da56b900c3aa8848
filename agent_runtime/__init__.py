"""What an agent's author imports: `Agent`, `@capability`, `TaskContext`, and what a capability may raise.

`agent_runtime.testing` tests an agent without a server; `agent_runtime.process` runs it.
"""

from agent_runtime.agent import Agent
from agent_runtime.context import TaskContext
from agent_runtime.definition import capability
from agent_runtime.errors import AgentDefinitionError, AgentLoadError, Reject, RetryLater

__all__ = ["Agent", "AgentDefinitionError", "AgentLoadError", "Reject", "RetryLater", "TaskContext", "capability"]
