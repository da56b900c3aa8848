"""Reading requests strictly: what cannot be JSON again on its way to an agent is refused here, and what is misspelt.

The standard library's reader takes NaN, lone surrogates, and nesting that ends in a RecursionError; pydantic's refuses
them all, and is faster. A parameter of the query that an operation does not have would be passed over by FastAPI: a
filter that is misspelt would list, or cancel, everything.
"""

import json
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.dependencies.utils import get_flat_params
from fastapi.params import Query
from fastapi.routing import APIRoute
from pydantic_core import from_json

from dispatcher.api.direct import only


class _StrictRequest(Request):
    async def json(self) -> Any:  # noqa: ANN401 - JSON
        try:
            return from_json(await self.body(), allow_inf_nan=False)
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from None


class StrictRoute(APIRoute):
    """A route whose bodies and queries are read strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler of its requests."""
        handle = super().get_route_handler()
        names = frozenset(one.alias for one in get_flat_params(self.dependant) if isinstance(one.field_info, Query))

        async def strictly(request: Request) -> Response:
            only(request, names)
            return await handle(_StrictRequest(request.scope, request.receive))

        return strictly
