"""Submitting tasks: the one operation that programs call thousands of times a second."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter
from pydantic_core import to_json

from bus.durability import promised
from bus.errors import QueueFullError  # noqa: TC001 - FastAPI reads the names of this module
from bus.records import TaskCreate
from bus.submission import Submission, in_calls, send, submission_to
from dispatcher.api.admission import BEARER, PoolQuery, Submits, Visit, in_pool
from dispatcher.api.direct import json_body, only, validated
from dispatcher.api.problems import (
    DURABILITY_UNAVAILABLE,
    NOT_PROVEN,
    QUEUE_FULL,
    UNKNOWN_POOL,
    ProblemError,
    declared,
    field_problem,
)
from dispatcher.api.schemas.tasks import (
    NewTask,
    TaskDispatchRequest,
    TaskDispatchResponse,
)
from dispatcher.api.tokens import SUBMIT


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        async def handle(request: Request) -> Response:
            return await answer(request)

        return handle


router: Final = APIRouter(prefix="/tasks", tags=["tasks"], route_class=_Route)

Key = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=200,
        description="Submit once: a second request with this key stores nothing and answers the same ids. Becomes the "
        "key of a task that has none of its own; in a batch, with `#` and the task's place from 0.",
    ),
]


Durable = Annotated[
    Literal["fsync", "replicated"] | None,
    Query(
        description="Answer when the tasks are on the server's disk (`fsync`) or on a replica (`replicated`). Refused "
        "as `durability-unavailable` before anything is stored where the server cannot give that."
    ),
]


_submits: Final = in_pool(SUBMIT)
_DURABILITY: Final[TypeAdapter[Literal["fsync", "replicated"] | None]] = TypeAdapter(Durable)
_POOL: Final[TypeAdapter[str | None]] = TypeAdapter(PoolQuery)
_KEY: Final[TypeAdapter[str | None]] = TypeAdapter(Key)
_ASKED: Final = TypeAdapter(TaskDispatchRequest)


@router.post(
    "/dispatch",
    status_code=202,
    summary="Submit tasks",
    responses=declared(UNKNOWN_POOL, QUEUE_FULL, DURABILITY_UNAVAILABLE, NOT_PROVEN),
    response_model=TaskDispatchResponse,
    response_description="All of them are stored, but those that there was no room for.",
)
async def dispatch(
    visit: Submits, asked: TaskDispatchRequest, idempotency_key: Key = None, durability: Durable = None
) -> Response:
    """Submit one task, or up to a thousand at once.

    The answer is the receipt: they are stored, and will be done whatever becomes of this process. If the server stops
    to answer in the midst of a batch, some may be stored; with keys the whole batch may be sent again.
    """
    tasks = _keyed(asked, idempotency_key)
    made = [submission_to(visit.names.pool, task, None) for task in tasks]
    prover = await promised(visit.site.link, durability)
    known, refused = await _store(visit, made)
    if prover is not None and (why := await prover.prove()) is not None:
        detail = f"{why}: all is stored, and a failure now may lose it; with keys it may be sent again"
        raise ProblemError(NOT_PROVEN, detail, facts={"why": why})
    headers = {"Location": f"/api/v1/tasks/{made[0].task_id}"} if len(made) == 1 else {}
    # Not by way of `TaskDispatchResponse`: to make a model of each of a thousand takes as long as to submit them.
    told = [{"id": one.task_id, "known": place in known, "refused": place in refused} for place, one in enumerate(made)]
    return Response(to_json({"pool": visit.names.pool, "tasks": told}), 202, headers, "application/json")


async def answer(request: Request) -> Response:
    """Read the request, and `dispatch`: what FastAPI would do, see `dispatcher.api.direct`."""
    only(request, {"pool", "durability"})
    pool = validated(_POOL, request.query_params.get("pool"), "query.pool")
    visit = await _submits(request, await BEARER(request), pool)
    key = validated(_KEY, request.headers.get("idempotency-key"), "header.idempotency-key")
    durability = validated(_DURABILITY, request.query_params.get("durability"), "query.durability")
    # The first name tells one from many, which the caller knows.
    asked = validated(_ASKED, await json_body(request), "body", skip=1)
    return await dispatch(visit, asked, key, durability)


def _keyed(asked: TaskDispatchRequest, key: str | None) -> list[TaskCreate]:
    if key is None:
        return list(asked.tasks)
    if isinstance(asked.root, NewTask):
        if asked.root.key not in (None, key):
            raise field_problem("body.key", "it differs from the Idempotency-Key: leave one of them out")
        return [asked.root.model_copy(update={"key": key})]
    return [
        task if task.key is not None else task.model_copy(update={"key": f"{key}#{place}"})
        for place, task in enumerate(asked.tasks)
    ]


async def _store(visit: Visit, made: list[Submission]) -> tuple[set[int], set[int]]:
    """Store all; return the places of those that were known, and of those that there was no room for.

    Raises `QueueFullError` if there was none for any.
    """
    site = visit.site
    if len(made) == 1:
        return ({0} if await site.submitter.submit(visit.names, made[0]) else set()), set()
    known, refused = set[int](), set[int]()
    first: QueueFullError | None = None
    done = 0
    for part in in_calls(made):
        sent = await send(site.redis, site.link.url, visit.names, part)
        known |= {done + place for place in sent.known}
        refused |= {done + place for place in sent.refused}
        for place, refusal in sent.refused.items():
            first = first or refusal.error(visit.names, part[place])
        done += len(part)
    if first is not None and len(refused) == len(made):
        raise first
    return known, refused
