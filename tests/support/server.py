"""The one server that a test run uses: a real one, always.

In this order: the server that `CALLBOARD_TEST_REDIS_URL` names; a container of `redis:7-alpine` where a
Docker engine and that image are at hand (not with `CALLBOARD_TEST_DOCKER=0`); an embedded server without
persistence.
"""

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from bus.embedded import EmbeddedServer

_IMAGE: Final = "redis:7-alpine"
_ENGINE_TIMEOUT: Final = 5.0
_PULL_TIMEOUT: Final = 60.0


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers at `url`."""

    url: str
    kind: str
    """Name and version, such as `valkey 9.1.2`."""
    origin: str
    """Where it came from, for the summary of the run."""


@contextmanager
def running_server() -> Iterator[RunningServer]:
    """Provide the server for the duration of the block."""
    if url := os.environ.get("CALLBOARD_TEST_REDIS_URL"):
        yield RunningServer(url, _kind(url), "CALLBOARD_TEST_REDIS_URL")
    elif os.environ.get("CALLBOARD_TEST_DOCKER") != "0" and _docker_can_run(_IMAGE):
        with _container() as server:
            yield server
    else:
        with _embedded() as server:
            yield server


@contextmanager
def _embedded() -> Iterator[RunningServer]:
    # A runner with a loop of its own: `asyncio.run` would unset the loop that pytest-asyncio has set.
    with (
        tempfile.TemporaryDirectory(prefix="callboard-test-") as folder,
        asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner,
    ):
        server = EmbeddedServer(data_dir=Path(folder), persistence="none")
        runner.run(server.start())
        try:
            yield RunningServer(server.url, server.kind, "embedded")
        finally:
            runner.run(server.stop())


@contextmanager
def _container() -> Iterator[RunningServer]:
    # The reaper's image is not at hand where images cannot be pulled; the block below stops the container.
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")
    from testcontainers.community.redis import RedisContainer  # noqa: PLC0415 - slow, and reads the setting

    with RedisContainer(_IMAGE) as container:
        url = f"redis://{container.get_container_host_ip()}:{container.get_exposed_port(container.port)}/0"
        yield RunningServer(url, _kind(url), f"container {_IMAGE}")


def _docker_can_run(image: str) -> bool:
    """Tell whether an engine answers and has the image, or pulls it quickly. Never hangs."""
    docker = shutil.which("docker")
    return (
        docker is not None
        and _succeeds([docker, "version", "--format", "{{.Server.Version}}"], _ENGINE_TIMEOUT)
        and (
            _succeeds([docker, "image", "inspect", image], _ENGINE_TIMEOUT)
            or _succeeds([docker, "pull", "--quiet", image], _PULL_TIMEOUT)
        )
    )


def _succeeds(command: list[str], timeout: float) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=timeout).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _kind(url: str) -> str:
    with Redis.from_url(url, socket_timeout=_ENGINE_TIMEOUT, retry=Retry(NoBackoff(), 0)) as client:
        information = client.info("server")
    name = information.get("server_name", "redis")
    return f"{name} {information.get(f'{name}_version', 'of unknown version')}"
