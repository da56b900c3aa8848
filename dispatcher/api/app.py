"""What the API consists of: the application with its routers, its problems, and the boundary around it.

CORS is around that, so that pages of allowed sites are told of every problem.
"""

from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from fastapi import APIRouter, FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

from dispatcher.api.boundary import Boundary
from dispatcher.api.direct import Direct
from dispatcher.api.openapi import finish
from dispatcher.api.problems import handle_problems
from dispatcher.api.routers import (
    agent_reports,
    agent_work,
    agents,
    cancelling,
    dead_letters,
    dispatch,
    events,
    monitoring,
    results,
    schedules,
    steering,
    task_steering,
    tasks,
)
from dispatcher.api.site import Site

PREFIX: Final = "/api/v1"
_PARTS: Final = (
    *(dispatch, results, cancelling, task_steering, tasks, dead_letters, schedules),
    *(agent_work, steering, agents, agent_reports, events),
)

Exposition = Callable[[], tuple[bytes, str]]
"""Returns the metrics of the process, and their media type."""

_DESCRIPTION: Final = """\
Submit tasks, wait for their results, look at tasks and agents, follow what happens.

- Errors are [RFC 9457](https://www.rfc-editor.org/rfc/rfc9457) problems; programs look at `type`.
- Every answer has an `X-Request-ID`, which the log has, too; send your own to choose it.
- Instants are milliseconds since the epoch by the Redis server's clock, durations are seconds.
"""


def no_metrics() -> tuple[bytes, str]:
    """Return nothing: for processes that count nothing."""
    return b"", "text/plain; version=0.0.4; charset=utf-8"


def build_app(site: Site, exposition: Exposition = no_metrics) -> FastAPI:
    """Return the application without its boundary: its `openapi()` is the document of the API."""
    app = FastAPI(
        title="Callboard",
        version=version("callboard"),
        description=_DESCRIPTION,
        docs_url="/docs",
        redoc_url=None,
        openapi_url="/openapi.json",
        redirect_slashes=False,
    )
    app.state.site = site
    app.state.metrics = exposition
    api = APIRouter(prefix=PREFIX)
    for part in _PARTS:
        api.include_router(part.router)
    api.include_router(monitoring.status_router)
    api.include_router(monitoring.probes)
    app.include_router(api)
    app.include_router(monitoring.probes, include_in_schema=False)
    handle_problems(app)
    finish(app)
    return app


def build_api(site: Site, exposition: Exposition = no_metrics) -> ASGIApp:
    """Return the whole API."""
    direct = Direct(build_app(site, exposition), {f"{PREFIX}/tasks/dispatch": dispatch.answer})
    app: ASGIApp = Boundary(direct, site)
    if site.settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=list(site.settings.cors_origins),
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID", "X-Request-ID"],
            expose_headers=["X-Request-ID", "Location", "Retry-After"],
        )
    return app
