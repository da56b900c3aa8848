"""An API process: binds, serves, and stops within two seconds whatever is open."""

import asyncio
import contextlib
import errno
import logging
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn

from bus.connection import CONNECTION_ERRORS
from dispatcher.api.app import Exposition, build_api, no_metrics
from dispatcher.api.http_protocol import BoundedHttp
from dispatcher.api.observer import SILENT, ApiObserver
from dispatcher.api.settings import ApiSettings
from dispatcher.api.site import Site
from dispatcher.api.tokens import Tokens

LOG = logging.getLogger("callboard.api")

GRACE_S: Final = 1
"""What requests under way get when the process is told to stop: streams and waits end by themselves before."""
CLOSE_S: Final = 0.5
"""How long connections may take to close."""
_ASK_AGAIN_S: Final = 1.0
_BACKLOG: Final = 1024


class ApiError(Exception):
    """The API cannot be served as it was told to; the text says what to do."""


class _Server(uvicorn.Server):
    """Leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ApiService:
    """One API process. The server may be away at any time, also at the start."""

    def __init__(
        self, settings: ApiSettings, *, exposition: Exposition = no_metrics, observer: ApiObserver = SILENT
    ) -> None:
        self._settings = settings
        self._exposition = exposition
        self._observer = observer
        self.port = settings.port
        """Where it listens; once it is ready, if any free port was asked for."""

    @property
    def url(self) -> str:
        """The address of the API."""
        host = self._settings.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    async def run(self, stop: asyncio.Event, ready: asyncio.Event | None = None) -> None:
        """Serve until `stop` is set; `ready` is set when it listens.

        Raises `ApiError` if the port is taken, or if it is to listen beyond loopback and there is no token.
        """
        site = Site(self._settings, self._observer)
        try:
            if not self._settings.loopback and not await self._has_tokens(site, stop):
                return
            await self._serve(site, stop, ready)
        finally:
            with contextlib.suppress(TimeoutError):  # a server that hangs is not waited for
                async with asyncio.timeout(CLOSE_S):
                    await site.close()

    async def _has_tokens(self, site: Site, stop: asyncio.Event) -> bool:
        """Raise `ApiError` if there is no token, having waited for a server that is away; False if told to stop."""
        told = False
        while not stop.is_set():
            try:
                if await Tokens(site.redis).any():
                    return True
            except CONNECTION_ERRORS as error:
                if not told:
                    LOG.warning("the server does not serve, so whether there are tokens is not known yet: %s", error)
                told = True
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_ASK_AGAIN_S):
                        await stop.wait()
            else:
                raise ApiError(
                    f"there is no token, so nobody could use the API at {self._settings.host}: make one with "
                    "`callboard token create --scope admin`, or listen on 127.0.0.1"
                )
        return False

    def _bind(self) -> socket.socket:
        host, port = self._settings.host, self._settings.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ApiError(
                    f"port {port} on {host} is taken: choose another by --port (0 is any free one)"
                ) from None
            raise ApiError(f"cannot listen on {host} port {port} ({error.strerror}): correct --host") from None
        # Inherited by what it accepts, where asyncio does not set it for want of a protocol number. Without it the
        # body, which is written after the head, waits for a delayed acknowledgement: 40 ms for each answer.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening

    async def _serve(self, site: Site, stop: asyncio.Event, ready: asyncio.Event | None) -> None:
        listening = self._bind()
        self.port = listening.getsockname()[1]
        config = uvicorn.Config(
            build_api(site, self._exposition),
            http=BoundedHttp,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=GRACE_S,
            backlog=_BACKLOG,
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listening]), name="http")
        stopping = asyncio.create_task(stop.wait())
        try:
            LOG.info("the API is at %s/api/v1", self.url)
            if ready is not None:
                ready.set()
            await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            site.stop()
            server.should_exit = True
            await serving
