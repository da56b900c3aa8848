"""Settings of a dispatcher process; read by the composition root only."""

import os
import socket
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bus.connection import resolve_url
from bus.durations import Duration
from bus.ids import AGENT_ID_PATTERN, DEFAULT_POOL, check_pool


class DispatcherSettings(BaseSettings):
    """From arguments, else from the environment (prefix CALLBOARD_)."""

    model_config = SettingsConfigDict(env_prefix="CALLBOARD_", frozen=True, extra="ignore")

    redis_url: str = Field(default_factory=resolve_url, description="Server that the pools live on.")
    pools: Annotated[tuple[str, ...], NoDecode] = Field(
        (DEFAULT_POOL,), min_length=1, description="Pools to lead, or to stand by for; separated by commas."
    )
    dispatcher_id: str = Field(
        default_factory=lambda: f"{socket.gethostname()}-{os.getpid()}",
        pattern=AGENT_ID_PATTERN,
        description="Names this process in the lease and as a consumer; stable names leave no consumers behind.",
    )
    leader_lease: Duration = Field(timedelta(seconds=3), description="How long a silent leader is waited for.")
    retention: Duration = Field(timedelta(days=1), description="How long finished tasks are kept.")
    events_retention: Duration = Field(timedelta(minutes=15), description="How long events are kept, if not too many.")
    prefetch: Duration = Field(timedelta(milliseconds=20), description="Work an agent may have ahead of its slots.")
    retry_base: Duration = Field(timedelta(seconds=1), description="Upper bound of the first retry's backoff.")
    retry_cap: Duration = Field(timedelta(minutes=5), description="Upper bound of any retry's backoff.")

    @field_validator("pools", mode="before")
    @classmethod
    def _split_pools(cls, pools: object) -> object:
        return [pool.strip() for pool in pools.split(",")] if isinstance(pools, str) else pools

    @field_validator("pools")
    @classmethod
    def _pools_are_names(cls, pools: tuple[str, ...]) -> tuple[str, ...]:
        for pool in pools:
            check_pool(pool)
        return pools

    @model_validator(mode="after")
    def _lease_outlasts_renewals(self) -> Self:
        if self.leader_lease < timedelta(seconds=2):
            msg = "leader_lease must be at least 2 seconds: it is renewed every second"
            raise ValueError(msg)
        return self
