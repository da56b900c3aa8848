"""The errors that `agent_runtime` raises, and those that a capability may raise to it.

CallboardError
├── AgentDefinitionError     an agent class is wrong; raised while the class is created
├── AgentLoadError           what was named as an agent cannot be loaded
├── Reject                   raised by a capability: this task is wrong, do not try it again
└── RetryLater               raised by a capability: not now, try again after a while
"""

from pydantic import JsonValue

from bus.errors import CallboardError


class AgentDefinitionError(CallboardError):
    """An agent class cannot work as it is written; the text says where, what, and how to write it instead."""

    def __init__(self, where: str, problem: str, remedy: str) -> None:
        self.where = where
        self.problem = problem
        self.remedy = remedy
        super().__init__(f"{where}: {problem}: {remedy}")


class AgentLoadError(CallboardError):
    """The agent that was asked for cannot be loaded; the text is one line that says what to do."""


class Reject(CallboardError):  # noqa: N818 - authors raise it as a verb: `raise Reject("no such language")`
    """Raise this in a capability when the task itself is wrong: it FAILS as `rejected` and is never tried again.

    `details` is anything JSON can express, for programs that read the error.
    """

    def __init__(self, message: str, details: JsonValue = None) -> None:
        self.details = details
        super().__init__(message)


class RetryLater(CallboardError):  # noqa: N818 - authors raise it as a verb: `raise RetryLater(after=30)`
    """Raise this in a capability when the task cannot be done now: it is tried again `after` seconds at the earliest.

    It takes the place of the backoff. The attempt counts, as any that did not succeed: with the last of them the task
    has FAILED. Raises `ValueError` for a negative time.
    """

    def __init__(self, message: str = "not now", *, after: float) -> None:
        if not 0 <= after <= 366 * 86_400:
            raise ValueError(f"after is a number of seconds, 0 at least and a year at most, not {after!r}")
        self.after = after
        super().__init__(message)
