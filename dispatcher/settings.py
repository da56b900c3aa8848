"""Settings of a dispatcher process; read by the composition root only."""

import os
import socket
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bus.connection import resolve_url
from bus.durations import Duration
from bus.ids import AGENT_ID_PATTERN, DEFAULT_POOL, check_pool
from dispatcher.placement_settings import fairness_weights, head_starts, max_pending, split

Items = Annotated[tuple[str, ...], NoDecode]


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

    head_starts: Items = Field((), description="Head starts of priorities: `HIGH=10m`, of one pool `reports:HIGH=1h`.")
    fairness_weights: Items = Field((), description="Shares of fairness keys that are not 1: `tenant-a=3`.")
    max_pending: Items = Field(
        (), description="Most tasks that may wait: `10000` of the pool, `text.count=500` of a capability."
    )
    fail_fast_grace: Duration = Field(
        timedelta(seconds=10), description="How long tasks that fail fast wait for agents that may be starting."
    )
    breaker_failures: int = Field(
        20, ge=0, description="Failures in a row that shut a capability off at an agent; 0 is never."
    )
    cancel_grace: Duration = Field(
        timedelta(seconds=5), description="How long an agent has to stop what is cancelled, if the cancel does not say."
    )
    breaker_cooldown: Duration = Field(timedelta(seconds=5), description="How long that lasts at first.")
    audit_every: Duration = Field(
        timedelta(minutes=5), description="Time from one audit of a pool by its leader to the next; 0 is never."
    )
    recall_after: Duration = Field(
        timedelta(milliseconds=100), description="How long work ahead of slots waits before others may have it."
    )

    @field_validator("pools", "head_starts", "fairness_weights", "max_pending", mode="before")
    @classmethod
    def _split_items(cls, given: object) -> object:
        return split(given)

    @field_validator("head_starts", "fairness_weights", "max_pending")
    @classmethod
    def _policies_can_be_read(cls, items: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        check = {"head_starts": head_starts, "fairness_weights": fairness_weights, "max_pending": max_pending}
        pools = info.data.get("pools", ())
        for pool in pools:
            check[info.field_name or ""](items, pools, pool)
        return items

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
