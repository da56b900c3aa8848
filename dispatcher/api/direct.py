"""The way of requests that must cost little: past FastAPI, which documents them as it does all others.

Submitting one task takes FastAPI half a millisecond to find the route and what it depends on, twice of all the rest.
So such an operation is found by its exact path, and reads its request itself, by the functions in here.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Final, TypeVar

from fastapi import FastAPI, Request, Response
from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.types import Receive, Scope, Send

from dispatcher.api.problems import field_problem, invalid

Answer = Callable[[Request], Awaitable[Response]]
T = TypeVar("T")

_JSON: Final = re.compile(r"application/(.+\+)?json")


class Direct:
    """An ASGI application around FastAPI's: it answers what is posted to `routes`, by path, and passes the rest on."""

    def __init__(self, app: FastAPI, routes: Mapping[str, Answer]) -> None:
        self._app: Final = app
        self._routes = {path: (_Named(path), answer) for path, answer in routes.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = self._routes.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"], answer = found
        scope["app"] = self._app
        response = await answer(Request(scope, receive))
        await response(scope, receive, send)


class _Named:
    """A route, by what the boundary tells of it."""

    def __init__(self, path: str) -> None:
        self.path: Final = path


def only(request: Request, names: AbstractSet[str]) -> None:
    """Raise the problem `invalid` if the query has other parameters than `names`."""
    if not request.scope["query_string"]:
        return
    unknown = [name for name in request.query_params if name not in names]
    if unknown:
        may = f"it may have {', '.join(sorted(names))}" if names else "it may have none"
        raise invalid([(("query", name), f"there is no such parameter: {may}") for name in unknown])


async def json_body(request: Request) -> object:
    """Return the body, read as strictly as by `strict`. Raises the problem `invalid`."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json" and not (
        media_type.startswith("application/") and media_type.endswith("+json")
    ):
        raise field_problem("body", "send JSON, with `Content-Type: application/json`")
    try:
        return from_json(await request.body(), allow_inf_nan=False)
    except ValueError as error:
        raise field_problem("body", f"it is not JSON: {error}") from None


def validated(adapter: TypeAdapter[T], given: object, where: str, *, skip: int = 0) -> T:
    """Return a part of a request, validated. Raises the problem `invalid`, whose fields are told to be in `where`.

    Of the names that lead to a field the first `skip` are left out: those that only the model has.
    """
    try:
        return adapter.validate_python(given)
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False, include_input=False)
        raise invalid([((where, *one["loc"][skip:]), one["msg"]) for one in errors]) from None
