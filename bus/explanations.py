"""The answer when it is asked why a task waits, where it would go, why it is where it is, or how it ended."""

from pydantic import BaseModel, ConfigDict, Field

from bus.states import TaskStatus


class AgentGroup(BaseModel):
    """Agents that are alike in what keeps them from taking the task."""

    model_config = ConfigDict(frozen=True)

    count: int
    why: str = Field(description="Such as `lacks gpu == true`, `full`, `paused`, `free`.")


class NearestMiss(BaseModel):
    """The agent that lacks least."""

    model_config = ConfigDict(frozen=True)

    agent_id: str
    lacks: tuple[str, ...]


class LimitWait(BaseModel):
    """A limit that lets no more tasks pass now."""

    model_config = ConfigDict(frozen=True)

    key: str
    frees_in: float | None = Field(None, description="Seconds; None: when one of its tasks has ended.")


class Explanation(BaseModel):
    """Why a task waits, in numbers; of a planned one, whether and where it would go; of an ended one, how it ended."""

    model_config = ConfigDict(frozen=True)

    task_id: str | None = None
    status: TaskStatus | None = None
    text: str = Field(description="All of it in one line.")
    agents: int = Field(description="Agents that the pool knows; 0 if the task has ended.")
    eligible: int = Field(description="Agents that could run it if they had room; 0 if the task has ended.")
    groups: tuple[AgentGroup, ...] = Field((), description="Every agent is in one, the largest group first.")
    nearest: NearestMiss | None = Field(None, description="Where no agent is eligible.")
    limit: LimitWait | None = None
    starts_in: float | None = Field(None, description="Seconds until it may start at all.")
    ahead: int = Field(0, description="Tasks of the same requirement that are to be placed before it.")
    agent_id: str | None = Field(None, description="Who has it or had it last, or of a plan: who would get it now.")
    ended_at: int | None = Field(None, description="When it ended, ms since the epoch by the server's clock.")
