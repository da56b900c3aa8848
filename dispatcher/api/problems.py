"""What the API answers when something is wrong: RFC 9457 problems, of kinds that are all listed here.

A problem's `type` is stable and is what programs look at; `detail` is for people and says what to do. Nothing that a
caller sent is repeated in it beyond names of fields.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException

from bus.connection import CONNECTION_ERRORS
from bus.errors import (
    BusUnavailableError,
    ClientTooOldError,
    DurabilityUnavailableError,
    NoLeaderError,
    NotDeadError,
    NotRunningError,
    PayloadTooLargeError,
    QueueFullError,
    SubmissionError,
    UnknownAgentError,
    UnknownScheduleError,
    UnknownTaskError,
    UnreadableTaskError,
)
from bus.task_pages import InvalidCursorError

MEDIA_TYPE: Final = "application/problem+json"
_URN: Final = "urn:callboard:problem:"
_FIELDS_TOLD: Final = 50
DEFECT: Final = "its traceback is in the log under the request's id: please report it"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of problem. `retry_after`, in seconds, is when another try makes sense."""

    slug: str
    status: int
    title: str
    retry_after: int | None = None

    @property
    def type(self) -> str:
        """The URI that programs compare."""
        return _URN + self.slug


UNAUTHENTICATED: Final = Kind("unauthenticated", 401, "A valid token is needed")
FORBIDDEN: Final = Kind("forbidden", 403, "The token does not allow this")
CROSS_SITE: Final = Kind("cross-site", 403, "A web page of another site may not do this")
NOT_FOUND: Final = Kind("not-found", 404, "There is nothing at this path")
UNKNOWN_TASK: Final = Kind("unknown-task", 404, "There is no such task")
UNKNOWN_AGENT: Final = Kind("unknown-agent", 404, "There is no such agent")
UNKNOWN_SCHEDULE: Final = Kind("unknown-schedule", 404, "There is no such schedule")
UNKNOWN_POOL: Final = Kind("unknown-pool", 404, "There is no such pool")
METHOD_NOT_ALLOWED: Final = Kind("method-not-allowed", 405, "The path does not have this method")
BODY_TIMEOUT: Final = Kind("body-timeout", 408, "The body did not arrive in time")
NOT_RUNNING: Final = Kind("not-running", 409, "The task, or the attempt that is meant, does not run")
NOT_DEAD: Final = Kind("not-dead", 409, "The task has not failed")
NEVER_VALID: Final = Kind("never-valid", 409, "The task's submission was wrong: there is nothing to run")
DURABILITY_UNAVAILABLE: Final = Kind("durability-unavailable", 409, "The server cannot give that durability")
SCHEDULE_BUSY: Final = Kind("schedule-busy", 409, "The schedule cannot do that now")
SUPERSEDED: Final = Kind("superseded", 409, "Another process has the agent's id now")
STALE_ATTEMPT: Final = Kind("stale-attempt", 409, "The attempt is not current any more")
SESSION_OVER: Final = Kind("session-over", 410, "The session is over")
BODY_TOO_LARGE: Final = Kind("body-too-large", 413, "The body is too large")
WRONG_HOST: Final = Kind("wrong-host", 421, "The Host header is not one of this server's")
INVALID: Final = Kind("invalid", 422, "Something in the request is wrong")
INVALID_CURSOR: Final = Kind("invalid-cursor", 422, "The cursor does not belong to this list")
TOO_MANY_REQUESTS: Final = Kind("too-many-requests", 429, "The token makes too many requests", 1)
QUEUE_FULL: Final = Kind("queue-full", 429, "As many tasks wait as may", 1)
INTERNAL: Final = Kind("internal", 500, "A defect of the API")
UNREADABLE_TASK: Final = Kind("unreadable-task", 500, "The record of the task cannot be read")
API_TOO_OLD: Final = Kind("api-too-old", 502, "The leader is of a newer release than this API process")
UNREADABLE_SCHEDULE: Final = Kind("unreadable-schedule", 500, "A schedule cannot be read")
SERVER_UNAVAILABLE: Final = Kind("server-unavailable", 503, "The Redis server does not answer", 2)
NO_LEADER: Final = Kind("no-leader", 503, "Nobody leads the pool", 2)
NOT_READ_YET: Final = Kind("not-read-yet", 503, "Submissions of the pool wait to be read", 1)
NOT_PROVEN: Final = Kind("not-proven", 504, "All is stored, and not proven to be as durable as was asked for")
BUSY: Final = Kind("busy", 503, "Too many streams, waits or questions are open", 1)
STOPPING: Final = Kind("stopping", 503, "This process is being stopped", 1)
TIMED_OUT: Final = Kind("timed-out", 503, "The answer took too long", 1)

KINDS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Kind))
"""All of them."""

ALWAYS: Final = (
    *(UNAUTHENTICATED, FORBIDDEN, CROSS_SITE, BODY_TIMEOUT, BODY_TOO_LARGE, WRONG_HOST, INVALID),
    *(TOO_MANY_REQUESTS, INTERNAL, API_TOO_OLD, SERVER_UNAVAILABLE, STOPPING, TIMED_OUT),
)
"""What any operation may answer."""


class FieldProblem(BaseModel):
    """What is wrong with one field of a request."""

    model_config = ConfigDict(frozen=True)

    field: str = Field(description="Where it is: `body.tasks.3.capability`, `query.limit`, `header.Idempotency-Key`.")
    message: str = Field(description="What is wrong with it.")


class Problem(BaseModel):
    """A problem as RFC 9457 has it."""

    model_config = ConfigDict(frozen=True)

    type: str = Field(description="Stable name of the kind of problem: what programs look at.")
    title: str = Field(description="What kind of problem it is, in words that are always the same.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What is wrong this time, and what to do.")
    request_id: str = Field(description="Names the request in the log of the API process.")
    errors: tuple[FieldProblem, ...] = Field((), description="The fields at fault.")
    facts: dict[str, str | int | None] | None = Field(
        None,
        description="What programs may want to know: the `status` of a task, the `bound` of a queue. May be absent.",
    )


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Iterable[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        facts: Mapping[str, str | int | None] | None = None,
    ) -> None:
        self.kind = kind
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.facts = None if facts is None else dict(facts)
        super().__init__(detail)


def field_problem(field: str, message: str) -> ProblemError:
    """Return the error for one field that is wrong."""
    return ProblemError(INVALID, f"{field}: {message}", errors=[FieldProblem(field=field, message=message)])


def problem_response(error: ProblemError, request_id: str) -> Response:
    """Return the response that tells of `error`."""
    kind = error.kind
    problem = Problem(
        type=kind.type,
        title=kind.title,
        status=kind.status,
        detail=error.detail,
        request_id=request_id,
        errors=error.errors,
        facts=error.facts,
    )
    headers = dict(error.headers)
    if kind.retry_after is not None:
        headers.setdefault("Retry-After", str(kind.retry_after))
    if kind is UNAUTHENTICATED:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(
        problem.model_dump_json(exclude=None if error.facts else {"facts"}), kind.status, headers, MEDIA_TYPE
    )


def as_problem(error: BaseException) -> ProblemError | None:  # noqa: C901, PLR0911, PLR0912 - a table, read from the top
    """Return what an error of the bus means to a caller; None for a defect."""
    match error:
        case ProblemError():
            return error
        case UnknownTaskError():
            return ProblemError(UNKNOWN_TASK, "it was never submitted, has ended long ago, or is not accepted yet")
        case UnknownAgentError():
            return ProblemError(UNKNOWN_AGENT, "it never signed in, or has been away for long: GET /api/v1/agents")
        case UnknownScheduleError():
            return ProblemError(UNKNOWN_SCHEDULE, "it was never made, or was deleted: GET /api/v1/schedules")
        case NotRunningError():
            return ProblemError(NOT_RUNNING, _not_running(error), facts={"status": error.status})
        case NotDeadError():
            detail = f"the task is {error.status}: only one that is FAILED is a dead letter"
            return ProblemError(NOT_DEAD, detail, facts={"status": error.status})
        case PayloadTooLargeError():
            return ProblemError(BODY_TOO_LARGE, str(error))
        case QueueFullError():
            of = {"pool": error.pool, "capability": error.capability, "bound": error.bound, "pending": error.pending}
            return ProblemError(QUEUE_FULL, "nothing was stored: submit it again later", facts=of)
        case SubmissionError():
            return field_problem("body", str(error))
        case UnreadableTaskError():
            return ProblemError(UNREADABLE_TASK, "it was written by a newer dispatcher, or is damaged: see the log")
        case ClientTooOldError():
            return ProblemError(API_TOO_OLD, f"{error}; what was asked for may have been done")
        case NoLeaderError():
            return _without_leader(error)
        case DurabilityUnavailableError():
            facts: dict[str, str | int | None] = {"durability": error.durability, "why": error.why}
            return ProblemError(DURABILITY_UNAVAILABLE, str(error), facts=facts)
        case InvalidCursorError():
            told = [FieldProblem(field="query.cursor", message=str(error))]
            return ProblemError(INVALID_CURSOR, str(error), errors=told)
        case BusUnavailableError():
            return ProblemError(SERVER_UNAVAILABLE, "try again: what was sent may or may not have been stored")
        case _ if isinstance(error, CONNECTION_ERRORS):
            return ProblemError(SERVER_UNAVAILABLE, "try again in a moment")
        case _:
            return None


def invalid(errors: Iterable[tuple[Iterable[str | int], str]]) -> ProblemError:
    """Return the error for fields that are wrong: the names that lead to each, and what is wrong with it."""
    # Once each: dependencies share parameters, and each would tell of them.
    told = dict.fromkeys(
        (".".join(map(str, names)), message.removeprefix("Value error, ")) for names, message in errors
    )
    found = [FieldProblem(field=field, message=message) for field, message in islice(told, _FIELDS_TOLD)]
    first = found[0] if found else FieldProblem(field="body", message="it cannot be understood")
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return ProblemError(INVALID, f"{first.field}: {first.message}{more}", errors=found)


def _without_leader(error: NoLeaderError) -> ProblemError:
    detail = "no dispatcher answered: is one running (`callboard dispatcher`)?"
    if error.stored:
        detail = "it is stored, and will be done as soon as a dispatcher leads: start one, and do not ask again"
    return ProblemError(NO_LEADER, detail)


def _not_running(error: NotRunningError) -> str:
    if error.attempt is None:
        return f"the task is {error.status}: there is nothing to end"
    return f"attempt {error.attempt} does not run: the task is {error.status}, perhaps in another attempt"


def _of_http(error: HTTPException, path: str) -> ProblemError:
    if error.status_code == METHOD_NOT_ALLOWED.status:
        return ProblemError(METHOD_NOT_ALLOWED, "see Allow, or GET /openapi.json", headers=error.headers)
    if error.status_code == NOT_FOUND.status:
        return ProblemError(NOT_FOUND, "see GET /openapi.json for all there is")
    return ProblemError(INVALID, str(error.detail) if path else "it cannot be understood")


def handle_problems(app: FastAPI) -> None:
    """Have all that is raised in `app`, by FastAPI and Starlette too, answered by problems; defects pass through."""

    async def handle(request: Request, error: Exception) -> Response:
        if isinstance(error, RequestValidationError):
            problem: ProblemError | None = invalid((one["loc"], one["msg"]) for one in error.errors())
        elif isinstance(error, HTTPException):
            problem = _of_http(error, request.url.path)
        else:
            problem = as_problem(error)
        if problem is None:
            raise error
        return problem_response(problem, request.state.request_id)

    async def tell_defect(request: Request, _: Exception) -> Response:
        return problem_response(ProblemError(INTERNAL, DEFECT), request.state.request_id)

    app.add_exception_handler(Exception, tell_defect)  # and it is raised again, for the boundary to log
    kinds: Sequence[type[Exception]] = (
        *(RequestValidationError, HTTPException, ProblemError, UnknownTaskError, UnknownAgentError, SubmissionError),
        *(UnknownScheduleError, NotRunningError, NotDeadError),
        *(
            UnreadableTaskError,
            ClientTooOldError,
            NoLeaderError,
            InvalidCursorError,
            DurabilityUnavailableError,
            BusUnavailableError,
            *CONNECTION_ERRORS,
        ),
    )
    for kind in kinds:
        app.add_exception_handler(kind, handle)


def declared(*kinds: Kind) -> dict[int | str, dict[str, Any]]:
    """Return what a route declares of its errors: those of `kinds`, and those that any may answer."""
    by_status: dict[int | str, list[Kind]] = {}
    for kind in (*kinds, *ALWAYS):
        by_status.setdefault(kind.status, []).append(kind)
    return {status: _declaration(of_status) for status, of_status in sorted(by_status.items(), key=str)}


def _declaration(kinds: Sequence[Kind]) -> dict[str, Any]:
    examples = {
        kind.slug: {
            "summary": kind.title,
            "value": Problem(
                type=kind.type, title=kind.title, status=kind.status, detail="…", request_id="0198f3c2a1"
            ).model_dump(mode="json"),
        }
        for kind in kinds
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    found: dict[str, Any] = {
        "description": "; ".join(f"{kind.title} (`{kind.slug}`)" for kind in kinds),
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
    if any(kind.retry_after is not None for kind in kinds):
        found["headers"] = {
            "Retry-After": {
                "description": "Seconds after which another try makes sense.",
                "schema": {"type": "integer"},
            }
        }
    return found
