"""The outermost layer: what holds of every request, whatever it asks for.

Each gets an id, which is in the answer and in the log; its body is read whole, up to a limit and within a time, before
anything looks at it; it is answered within a time, streams and waiting apart; a defect becomes a problem and a
traceback in the log. Requests that go well are logged at DEBUG: a line costs 80 µs, as much as the rest of the answer.

*Web pages.* A browser sends a page's requests to loopback, too. Where no token is asked for, a request must name this
server in its Host header (else any site could have its own name resolve to 127.0.0.1), and one that comes from a page
(it has an Origin) must come from a page of this server's or of a site that CORS allows.
"""

import asyncio
import logging
import re
from time import perf_counter
from typing import Any, Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bus.ids import new_nonce
from dispatcher.api.problems import (
    BODY_TIMEOUT,
    BODY_TOO_LARGE,
    CROSS_SITE,
    DEFECT,
    INTERNAL,
    STOPPING,
    TIMED_OUT,
    WRONG_HOST,
    ProblemError,
    as_problem,
    problem_response,
)
from dispatcher.api.site import Site

LOG = logging.getLogger("callboard.api")

BODY_S: Final = 15.0
"""How long a body may take to arrive."""
DEADLINE: Final = "callboard.deadline"
"""Where in the scope the request's deadline is, for those who may take longer."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "[::1]"})
_READ_ONLY: Final = frozenset({"GET", "HEAD", "OPTIONS"})


class Boundary:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, site: Site) -> None:
        self._app = app
        self._site = site
        host = site.settings.host
        self._names = _LOOPBACK_NAMES | {host, f"[{host}]"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        answer = _Answer(send, given if _REQUEST_ID.fullmatch(given) else new_nonce())
        scope.setdefault("state", {})["request_id"] = answer.request_id
        began = perf_counter()
        try:
            await self._serve(scope, headers, receive, answer)
        finally:
            self._tell(scope, answer, perf_counter() - began)

    async def _serve(self, scope: Scope, headers: Headers, receive: Receive, answer: "_Answer") -> None:
        problem: ProblemError | None
        try:
            self._check_origin(scope, headers)
            receive = await self._with_body(headers, receive)
            async with asyncio.timeout(self._site.settings.request_timeout.total_seconds()) as deadline:
                scope[DEADLINE] = deadline
                await self._app(scope, receive, answer.send)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            if not self._site.stopping.is_set():
                raise
            problem = ProblemError(STOPPING, "it may have been done all the same: ask another process")
        except TimeoutError:
            problem = ProblemError(TIMED_OUT, "it may have been done all the same")
        except Exception as error:
            problem = as_problem(error)
            if problem is None:
                LOG.exception("request %s failed by a defect", answer.request_id)
                problem = ProblemError(INTERNAL, DEFECT)
        else:
            return
        if answer.status == 0:
            await problem_response(problem, answer.request_id)(scope, receive, answer.send)

    def _check_origin(self, scope: Scope, headers: Headers) -> None:
        settings = self._site.settings
        if settings.guarded:
            return
        host = headers.get("host", "")
        if host and host.removesuffix(":" + host.rpartition(":")[2]) not in self._names and host not in self._names:
            raise ProblemError(WRONG_HOST, "address this server as localhost or 127.0.0.1")
        origin = headers.get("origin")
        if origin is None or scope["method"] in _READ_ONLY or origin in settings.cors_origins:
            return
        if origin.partition("://")[2] != host:
            raise ProblemError(
                CROSS_SITE, "a page of another site may not: name its origin in CALLBOARD_API_CORS_ORIGINS"
            )

    async def _with_body(self, headers: Headers, receive: Receive) -> Receive:
        """Read the body, and return what hands it out, then what comes after it."""
        limit = self._site.settings.max_body
        announced = headers.get("content-length")
        if announced is None and "transfer-encoding" not in headers:
            return receive
        if announced is not None and announced.isdecimal() and int(announced[:20]) > limit:
            raise self._too_large()
        body = bytearray()
        try:
            async with asyncio.timeout(BODY_S):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ClientDisconnect  # half a request asks for nothing
                    body += message.get("body", b"")
                    if len(body) > limit:
                        raise self._too_large()
                    more = message.get("more_body", False)
        except TimeoutError:
            raise ProblemError(BODY_TIMEOUT, f"it must arrive within {BODY_S:g} s") from None
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        return replay

    def _too_large(self) -> ProblemError:
        limit = self._site.settings.max_body
        return ProblemError(BODY_TOO_LARGE, f"at most {limit:,} bytes: send fewer tasks at once, or references to data")

    def _tell(self, scope: Scope, answer: "_Answer", seconds: float) -> None:
        route = _route(scope)
        self._site.observer.requested(route, scope["method"], answer.status, seconds)
        level = logging.DEBUG if answer.status < 400 else logging.INFO  # noqa: PLR2004 - HTTP's errors
        if LOG.isEnabledFor(level):
            path = scope.get("raw_path", b"").decode("ascii", "backslashreplace")[:200]
            told = (answer.request_id, scope["method"], path, answer.status, seconds * 1000)
            LOG.log(level, "request %s: %s %r answered %d in %.1f ms", *told)


def _route(scope: Scope) -> str:
    """Return the template of the path below the API's prefix; never a path itself, which would be without number."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "other"))


class _Answer:
    """The answer under way: what is added to each, and its status, 0 until it has begun."""

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self.request_id = request_id
        self.status = 0

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            headers.setdefault("Cache-Control", "no-store")
        await self._send(message)
