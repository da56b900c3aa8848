"""Settings of an API process; read by the composition root only."""

import ipaddress
from datetime import timedelta
from functools import cached_property
from typing import Annotated, Self

from pydantic import AliasChoices, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bus.connection import resolve_url
from bus.durations import Duration
from bus.ids import DEFAULT_POOL, POOL_PATTERN

API_PORT = 8420


class ApiSettings(BaseSettings):
    """From arguments, else from the environment (prefix CALLBOARD_API_, of the server's URL CALLBOARD_)."""

    model_config = SettingsConfigDict(env_prefix="CALLBOARD_API_", frozen=True, extra="ignore", populate_by_name=True)

    redis_url: str = Field(
        default_factory=resolve_url,
        validation_alias=AliasChoices("redis_url", "CALLBOARD_REDIS_URL"),
        description="Server that the pools live on.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on; beyond loopback only where there are tokens.")
    port: int = Field(API_PORT, ge=0, le=65_535, description="Port to listen on; 0 is any free one.")
    pool: str = Field(DEFAULT_POOL, pattern=POOL_PATTERN, description="Pool of requests that name none.")
    require_token: bool | None = Field(
        None,
        description="Whether every request needs a token; when absent, it does unless only loopback is listened on.",
    )
    rate: float = Field(1000.0, gt=0, description="Requests per second that each token may make, in the long run.")
    burst: int = Field(2000, ge=1, description="Requests that each token may make at once after a pause.")
    max_body: int = Field(1024 * 1024, ge=1024, description="Bytes that the body of a request may have.")
    max_open: int = Field(1000, ge=1, description="Streams and waiting requests that may be open at a time.")
    max_wait: Duration = Field(
        timedelta(seconds=60), description="The longest that a request may wait for a result or for work."
    )
    request_timeout: Duration = Field(timedelta(seconds=30), description="How long a request may take, waiting apart.")
    heartbeat: Duration = Field(timedelta(seconds=15), description="Silence after which a stream says that it lives.")
    cors_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="Web sites whose pages may use the API; separated by commas."
    )

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, origins: object) -> object:
        if isinstance(origins, str):
            return [origin.strip() for origin in origins.split(",") if origin.strip()]
        return origins

    @model_validator(mode="after")
    def _strangers_need_a_token(self) -> Self:
        if self.require_token is False and not self.loopback:
            msg = f"require_token may be off on loopback only: listen on 127.0.0.1 instead of {self.host}"
            raise ValueError(msg)
        if "*" in self.cors_origins and not self.guarded:
            raise ValueError("pages of every site (`*`) may use the API only where tokens are required: require_token")
        return self

    @cached_property
    def loopback(self) -> bool:
        """True if only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @cached_property
    def guarded(self) -> bool:
        """True if every request needs a token."""
        return not self.loopback if self.require_token is None else self.require_token
