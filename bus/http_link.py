"""One HTTP client's way to the REST API: its connections, what is tried again, and which error a problem becomes.

*What is tried again.* A request that was not answered, or by 429 or 503, is sent again until `retry_for` seconds are
over, not before its `Retry-After`. What may have been done already is repeated only where that is harmless: reads, and
writes that carry a key, name what they mean, or say how something shall be. The errors are those of `bus.Client`.
"""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final, Self

from pydantic_core import from_json, to_json

from bus.backoff import Backoff
from bus.errors import (
    ApiProblemError,
    ApiUnavailableError,
    CallboardError,
    DurabilityNotProvenError,
    DurabilityUnavailableError,
    NoLeaderError,
    NotDeadError,
    NotRunningError,
    PayloadTooLargeError,
    QueueFullError,
    ScheduleError,
    SubmissionError,
    UnknownAgentError,
    UnknownScheduleError,
    UnknownTaskError,
    UnreadableTaskError,
)
from bus.ids import DEFAULT_POOL, check_pool
from bus.link import ANSWER_S
from bus.messages import MAX_BODY_BYTES

try:
    import httpx
except ImportError as error:  # an extra: programs that speak Redis have no use for it
    raise ImportError("bus.HttpClient needs httpx: pip install 'callboard[http]'") from error

DEFAULT_API_URL: Final = "http://127.0.0.1:8420"
RETRY_FOR_S: Final = 5.0
"""As long as `bus.Client` tries to store a submission."""
ANSWERED_IN_S: Final = 45.0
"""How long the API may take beyond what it was asked to wait; its own limit is 30 s."""
CONNECTIONS: Final = 64
_URN: Final = "urn:callboard:problem:"
_AGAIN: Final = frozenset({"too-many-requests", "busy", "stopping"})
"""Nothing was done."""
_PERHAPS: Final = frozenset({"server-unavailable", "timed-out", "body-timeout", ""})
"""It may have been done; "" is an answer of a proxy's."""
_UNSENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_BUSY_STATUSES: Final = frozenset({429, 502, 503, 504})


@dataclass(frozen=True, slots=True)
class About:
    """What a request is about: the fields of its errors."""

    task_id: str = "?"
    attempt: int | None = None
    agent_id: str = "?"
    schedule_id: str = "?"
    pool: str = DEFAULT_POOL
    size: int = 0
    """Bytes of a submission; 0: it is none."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer that is no success."""

    status: int
    slug: str
    detail: str
    request_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    retry_after: float | None = None

    @classmethod
    def of(cls, answer: httpx.Response) -> Self:
        """Read a problem; of what is none, what there is."""
        try:
            said = from_json(answer.content)
            slug = str(said["type"]).removeprefix(_URN)
            detail, facts = str(said["detail"]), said.get("facts") or {}
        except (ValueError, KeyError, TypeError, AttributeError):
            slug, detail, facts = "", answer.reason_phrase, {}
        after = answer.headers.get("retry-after", "")
        seconds = float(after) if after.isdecimal() else None
        return cls(answer.status_code, slug, detail, answer.headers.get("x-request-id", ""), facts, seconds)

    @property
    def passing(self) -> bool:
        """True if another try may go well."""
        return self.slug in _AGAIN or (self.slug in _PERHAPS and self.status in _BUSY_STATUSES)


@dataclass(frozen=True, slots=True)
class _Miss:
    """A try that failed."""

    error: CallboardError
    passing: bool
    """Another try may go well."""
    perhaps: bool
    """It may have been done all the same."""
    retry_after: float = 0.0


class HttpLink:
    """The connections of one client."""

    def __init__(self, url: str | None, pool: str, *, token: str | None, retry_for: float) -> None:
        self.url = (url or os.environ.get("CALLBOARD_API_URL") or DEFAULT_API_URL).rstrip("/")
        self.pool = check_pool(pool)
        self._retry_for = retry_for
        token = token or os.environ.get("CALLBOARD_API_TOKEN")
        self.http = httpx.AsyncClient(
            base_url=f"{self.url}/api/v1",
            headers={} if token is None else {"Authorization": f"Bearer {token}"},
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=CONNECTIONS),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self.http.aclose()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        about: About | None = None,
        body: object = None,
        wait: float = 0.0,
        repeatable: bool = True,
        headers: Mapping[str, str] | None = None,
        **params: Any,
    ) -> Any:  # noqa: ANN401 - JSON
        """Send a request until it is answered; return the JSON. `body` is JSON already if it is bytes.

        Raises what `error_of` returns, and `ApiUnavailableError` when there is no answer for `retry_for` seconds.
        """
        content = body if isinstance(body, bytes) or body is None else to_json(body, inf_nan_mode="constants")
        given = {name: value for name, value in params.items() if value not in (None, (), [])}
        request = self.http.build_request(
            method,
            path,
            params=given | ({"wait": wait} if wait else {}),
            content=content,
            headers={**(headers or {}), **({} if content is None else {"Content-Type": "application/json"})},
            timeout=httpx.Timeout(ANSWERED_IN_S, connect=5.0, read=wait + ANSWERED_IN_S),
        )
        backoff, until = Backoff(base=0.05, cap=1.0), monotonic() + self._retry_for
        while True:
            told = await self._once(request, about or About(pool=self.pool))
            if not isinstance(told, _Miss):
                return from_json(told)
            pause = max(backoff.next(), told.retry_after)
            if not told.passing or (told.perhaps and not repeatable) or monotonic() + pause > until:
                raise told.error
            await asyncio.sleep(pause)

    async def _once(self, request: httpx.Request, about: About) -> "bytes | _Miss":
        """Send a request once; return the body of its answer, or why there is none."""
        try:
            answer = await self.http.send(request)
        except httpx.TransportError as cause:
            error = ApiUnavailableError(self.url, str(cause) or type(cause).__name__)
            return _Miss(error, passing=True, perhaps=not isinstance(cause, _UNSENT))
        if answer.is_success:
            return answer.content
        refusal = Refusal.of(answer)
        refused = self.error_of(refusal, about)
        perhaps = refusal.slug in _PERHAPS
        return _Miss(refused, passing=refusal.passing, perhaps=perhaps, retry_after=refusal.retry_after or 0.0)

    def error_of(self, refusal: Refusal, about: About) -> CallboardError:  # noqa: C901, PLR0911, PLR0912 - a table
        """Return the error that `bus.Client` raises for the same; `ApiProblemError` for what only the API has."""
        detail, facts = refusal.detail, refusal.facts
        match refusal.slug:
            case "unknown-task":
                return UnknownTaskError(about.task_id)
            case "not-read-yet":
                return UnknownTaskError(about.task_id, 1)
            case "unreadable-task":
                return UnreadableTaskError(about.task_id, detail)
            case "unknown-agent":
                return UnknownAgentError(about.agent_id, about.pool)
            case "unknown-schedule":
                return UnknownScheduleError(about.schedule_id, about.pool)
            case "schedule-busy" | "unreadable-schedule":
                return ScheduleError(detail)
            case "not-running":
                return NotRunningError(about.task_id, str(facts.get("status")), about.attempt)
            case "not-dead":
                return NotDeadError(about.task_id, str(facts.get("status")))
            case "no-leader":
                return NoLeaderError(about.pool, ANSWER_S)
            case "queue-full":
                of = facts.get("pool", about.pool), facts.get("capability")
                return QueueFullError(*of, bound=facts.get("bound", 0), pending=facts.get("pending", 0))
            case "durability-unavailable":
                return DurabilityUnavailableError(str(facts.get("durability")), str(facts.get("why")))
            case "not-proven":
                return DurabilityNotProvenError(str(facts.get("why")), [])
            case "body-too-large" if about.size:
                return PayloadTooLargeError(about.size, MAX_BODY_BYTES)
            case "invalid" if about.size:
                return SubmissionError(detail)
            case "invalid" if about.schedule_id != "?":
                return ScheduleError(detail)
            case _ if refusal.passing:
                return ApiUnavailableError(self.url, detail)
            case slug:
                return ApiProblemError(slug or str(refusal.status), refusal.status, detail, refusal.request_id)
