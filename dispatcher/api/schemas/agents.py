"""Of agents: what is answered."""

from pydantic import BaseModel, ConfigDict, Field

from bus.records import AgentInfo, AgentWorkload
from bus.states import AgentHealth, AgentStatus


class AgentList(BaseModel):
    """One page of a list of agents, ordered by their ids."""

    model_config = ConfigDict(frozen=True)

    agents: tuple[AgentInfo, ...] = Field(description="The agents of this page; it may be short before the last.")
    next: str | None = Field(description="The `cursor` of the next page; null at the end of the list.")


class AgentState(BaseModel):
    """How one agent is."""

    model_config = ConfigDict(frozen=True)

    agent_id: str = Field(description="The agent's id.")
    status: AgentStatus = Field(description="What it is doing.")
    health: AgentHealth = Field(description="What its heartbeats show; only healthy agents are given work.")
    session: str = Field(description="The life of its process that the leader knows.")
    reason: str | None = Field(None, description="Why it is as it is.")
    workload: AgentWorkload | None = Field(None, description="What it has to do; null if no leader has said it lately.")


class WorkloadList(BaseModel):
    """What each agent has to do, as the leader last published it."""

    model_config = ConfigDict(frozen=True)

    pool: str = Field(description="The agents' pool.")
    agents: tuple[AgentWorkload, ...] = Field(description="One for each agent, ordered by their ids.")


class AgentLoad(BaseModel):
    """How full one agent is."""

    model_config = ConfigDict(frozen=True)

    agent_id: str = Field(description="The agent's id.")
    status: AgentStatus = Field(description="What it is doing.")
    slots: int = Field(description="Tasks that it runs at once.")
    used: int = Field(description="Slots that its tasks take.")
    load: float = Field(description="Used slots by slots; above 1 if it has work ahead.")


class LoadReport(BaseModel):
    """How full the agents of a pool are, the fullest first."""

    model_config = ConfigDict(frozen=True)

    pool: str = Field(description="The agents' pool.")
    slots: int = Field(description="Slots of all agents that work.")
    used: int = Field(description="Slots that their tasks take.")
    load: float = Field(description="Used slots by slots, 0 without any.")
    agents: tuple[AgentLoad, ...] = Field(description="One for each agent, the fullest first.")
