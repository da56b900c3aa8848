"""`/metrics` and `/healthz` of a process, served by threads of their own: also when its event loop is stuck.

prometheus-client's WSGI application does the work; the standard library's server carries it. That is enough for a
scraper every few seconds, and costs an agent no further dependency.
"""

import errno
from collections.abc import Callable, Iterable
from socket import gethostname
from socketserver import ThreadingMixIn
from threading import Thread
from typing import Any, Final, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    GCCollector,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
    make_wsgi_app,
)
from prometheus_client.registry import CollectorRegistry

_TEXT: Final = ("Content-Type", "text/plain; charset=utf-8")
_POLL_S: Final = 0.2
_ALL_ADDRESSES: Final = "0.0.0.0"  # noqa: S104 - compared with, not bound


class PortTakenError(Exception):
    """Somebody else listens on the port."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port
        super().__init__(f"port {port} on {host} is taken: choose another for the metrics (0 is any free one)")


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 32


class _Handler(WSGIRequestHandler):
    timeout = 10
    """Seconds after which a silent connection is given up."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the overridden signature
        """Say nothing: a scrape is no event."""


def new_registry() -> CollectorRegistry:
    """Return a registry with what prometheus-client tells of the process itself."""
    registry = CollectorRegistry(auto_describe=True)
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


def exposition_of(registry: CollectorRegistry) -> Callable[[], tuple[bytes, str]]:
    """Return what makes the text of a registry, and tells its media type: for a process with a server of its own."""
    return lambda: (generate_latest(registry), CONTENT_TYPE_LATEST)


class MetricsServer:
    """Serve a registry over HTTP until `stop`.

    `healthy` returns what is wrong, in words, and nothing when all is well; it is called from another thread. `port` 0
    is any free one. Raises `PortTakenError`, or `OSError` for an address that is not this machine's.
    """

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        healthy: Callable[[], list[str]] = list,
    ) -> None:
        self._metrics = make_wsgi_app(registry)
        self._healthy = healthy
        try:
            self._server = make_server(host, port, self._serve, server_class=_Server, handler_class=_Handler)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(host, port) from None
            raise
        self.host = host
        self.port: int = self._server.server_port
        self._thread = Thread(target=self._server.serve_forever, args=(_POLL_S,), name="metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the metrics are: at this machine's name if they are served on all of its addresses."""
        host = gethostname() if self.host == _ALL_ADDRESSES else self.host
        return f"http://{host}:{self.port}/metrics"

    def stop(self) -> None:
        """Stop serving; returns within a fifth of a second."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _serve(self, environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] != "GET":
            start("405 Method Not Allowed", [_TEXT, ("Allow", "GET")])
            return [b"only GET\n"]
        match environ["PATH_INFO"]:
            case "/metrics":
                return cast("Iterable[bytes]", self._metrics(environ, start))
            case "/healthz":
                problems = self._healthy()
                start("503 Service Unavailable" if problems else "200 OK", [_TEXT])
                return ["".join(f"{problem}\n" for problem in problems).encode() or b"ok\n"]
            case _:
                start("404 Not Found", [_TEXT])
                return [b"there are /metrics and /healthz\n"]
