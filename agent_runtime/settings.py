"""Settings of an agent's process; read by the composition root only."""

from datetime import timedelta
from typing import Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from bus.connection import resolve_url
from bus.durations import Duration
from bus.ids import DEFAULT_POOL, check_agent_id, check_pool


class AgentSettings(BaseSettings):
    """From arguments, else from the environment (prefix CALLBOARD_)."""

    model_config = SettingsConfigDict(env_prefix="CALLBOARD_", frozen=True, extra="ignore")

    redis_url: str = Field(default_factory=resolve_url, description="Server that the pool lives on.")
    pool: str = Field(DEFAULT_POOL, description="Pool to work in.")
    agent_id: str | None = Field(None, description="Name of this agent, unique in the pool; made up when absent.")
    slots: int | None = Field(None, ge=1, le=100_000, description="Tasks at once; what the agent says when absent.")
    heartbeat_interval: Duration = Field(timedelta(seconds=1), description="How often the agent says that it lives.")
    lease: Duration = Field(timedelta(seconds=5), description="Silence after which its tasks are given to others.")
    grace: Duration = Field(timedelta(seconds=10), description="How long running tasks may go on after a stop.")

    @field_validator("pool")
    @classmethod
    def _pool_is_a_name(cls, pool: str) -> str:
        return check_pool(pool)

    @field_validator("agent_id")
    @classmethod
    def _agent_id_fits_into_a_key(cls, agent_id: str | None) -> str | None:
        return None if agent_id is None else check_agent_id(agent_id)

    @model_validator(mode="after")
    def _lease_outlasts_heartbeats(self) -> Self:
        if self.heartbeat_interval < timedelta(milliseconds=50):
            msg = "heartbeat_interval must be at least 50 milliseconds"
            raise ValueError(msg)
        if self.lease < 3 * self.heartbeat_interval:
            msg = "lease must be at least three times heartbeat_interval, so that one lost beat loses no agent"
            raise ValueError(msg)
        if self.grace < timedelta(0):
            msg = "grace must not be negative"
            raise ValueError(msg)
        return self
