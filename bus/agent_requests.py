"""What is asked of an agent, and how far that has come: requested, confirmed by the agent, done, or overdue.

An agent has at most one request about its life (pause, resume, drain, restart: the latest wins) and one about what it
offers (update). Both are part of its record, and so is a pause, which outlives the request for it.
"""

from enum import StrEnum
from typing import Final, Self

from pydantic import BaseModel, ConfigDict, Field

CONFIRM_MS: Final = 5_000
"""An agent that has not confirmed a request for so long is overdue: its heartbeats come each second."""
WRAP_UP_MS: Final = 5_000
"""What an agent may take beyond its deadline to stop its tasks, report them and sign out."""
RESTART_MS: Final = 60_000
"""A restart without a deadline is overdue after so long, unless a new session has signed in."""


class RequestKind(StrEnum):
    """What an agent is asked to do."""

    PAUSE = "pause"  # take nothing new, keep what runs, hand back what has not begun
    RESUME = "resume"  # work again: ends a pause, and a drain or restart that has not ended the process yet
    DRAIN = "drain"  # take nothing new, finish, stop
    RESTART = "restart"  # the same, and start anew
    UPDATE = "update"  # offer something else


class RequestState(StrEnum):
    """How far a request has come."""

    REQUESTED = "requested"
    CONFIRMED = "confirmed"  # the agent knows, and is at it
    DONE = "done"
    OVERDUE = "overdue"  # neither confirmed nor done when it should have been; it may still be
    REFUSED = "refused"  # it cannot be done; `error` says why


class AgentRequest(BaseModel):
    """One request. Instants are ms since the epoch by the server's clock."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    id: str = Field(description="As the client named it.")
    number: int = Field(description="Later requests of an agent have higher numbers.")
    kind: RequestKind
    session: str = Field(description="The session that was to be told.")
    requested_at: int
    by: str = ""
    reason: str = ""
    deadline: int | None = Field(None, description="When tasks that still run are stopped.")
    due: int | None = Field(None, description="When it is overdue though the agent has confirmed it.")
    confirmed_at: int | None = None
    done_at: int | None = None
    error: str | None = Field(None, description="Why it cannot be done.")
    forget: bool = Field(default=False, description="The agent's record is dropped when a drain is done.")
    state: RequestState | None = Field(None, description="As it was when the record was read.")
    overdue_for: float | None = Field(None, description="Seconds.")

    @property
    def open(self) -> bool:
        """True while something is still to come."""
        return self.done_at is None and self.error is None

    def overdue_ms(self, now: int) -> int:
        """Return for how long it has been overdue; 0 if it is not."""
        if not self.open:
            return 0
        if self.confirmed_at is None:
            due: int | None = self.requested_at + CONFIRM_MS
        else:
            due = self.due
        return 0 if due is None else max(0, now - due)

    def state_at(self, now: int) -> RequestState:
        """Return how far it is."""
        if self.error is not None:
            return RequestState.REFUSED
        if self.done_at is not None:
            return RequestState.DONE
        if self.overdue_ms(now):
            return RequestState.OVERDUE
        return RequestState.REQUESTED if self.confirmed_at is None else RequestState.CONFIRMED

    def seen_at(self, now: int) -> Self:
        """Return it with what depends on the time."""
        late = self.overdue_ms(now)
        return self.model_copy(update={"state": self.state_at(now), "overdue_for": late / 1000 if late else None})


class Pause(BaseModel):
    """A pause that stands; a new session of the agent is paused, too."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    since: int
    until: int | None = Field(None, description="When it ends by itself.")
    by: str = ""
    note: str = ""

    @property
    def words(self) -> str:
        """Say who paused it and what for: `paused by alice: disk swap`."""
        return f"paused{f' by {self.by}' if self.by else ''}{f': {self.note}' if self.note else ''}"
