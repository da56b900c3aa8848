"""The errors that `bus` raises.

CallboardError
├── BusUnavailableError      the server does not answer
│   └── ApiUnavailableError  the REST API does not answer; of `HttpClient`
├── ApiProblemError          the REST API refuses a request, for a reason that only it has; of `HttpClient`
├── SubmissionError          a task could not be submitted
│   ├── PayloadTooLargeError
│   └── QueueFullError       as many tasks wait as may
├── DurabilityUnavailableError  the server cannot give the durability that is asked for; nothing is stored
├── DurabilityNotProvenError    what was submitted is stored, and not proven to be as durable as was asked for
├── TaskOutcomeError         a task ended otherwise than with a result
│   ├── TaskFailedError
│   ├── TaskCancelledError
│   └── TaskTimeoutError     it failed by a timeout, or the caller's own wait ran out
├── BusAddressError          a text is not the address of a Redis server
├── RequirementSyntaxError   a requirement that was given as a text cannot be read
├── ClientClosedError        its client was closed while somebody waited, or before
├── NoLeaderError            what only the leader can answer was not answered in time; a wish is done later
├── ClientTooOldError        the leader answers in a newer version of the messages than this program reads
├── UnknownTaskError         the ledger has no such task
├── NotDeadError             the task is no dead letter
├── NotRunningError          the task, or the attempt that was meant, does not run
├── UnreadableTaskError      the ledger has the task, and this program cannot read its record
├── UnknownAgentError        the pool knows no such agent
├── AgentRequestError        an agent could never be as it was asked to be
├── ScheduleError            a schedule cannot be, or cannot do what it was asked for
└── UnknownScheduleError     the pool has no such schedule
"""

from typing import Any, Final, Self

from pydantic import ValidationError

from bus.messages import TaskError

_SHOWN: Final = 40
"""Characters of a wrong text that are shown on either side of where it is wrong."""


class CallboardError(Exception):
    """Anything that Callboard raises for its users."""


class BusUnavailableError(CallboardError):
    """The Redis server does not answer; the text says where it was looked for and how to start one."""

    def __init__(self, url: str, cause: str) -> None:
        self.url = url
        self.cause = cause
        if "CERTIFICATE_VERIFY_FAILED" in cause:
            super().__init__(
                f"the server at {url} was not asked anything, for its certificate is not trusted ({cause}): name the "
                "authority that has signed it by ?ssl_ca_certs=/path/ca.pem in the URL, and the host as it is in there"
            )
            return
        super().__init__(
            f"no Redis server answers at {url} ({cause}): start one with `callboard up`, or set CALLBOARD_REDIS_URL"
        )


class ApiUnavailableError(BusUnavailableError):
    """The REST API does not answer, or cannot serve now; the text says where it was looked for."""

    def __init__(self, url: str, cause: str) -> None:
        super().__init__(url, cause)
        self.args = (
            f"the REST API at {url} does not serve ({cause}): start one with `callboard api`, or set CALLBOARD_API_URL",
        )


class ApiProblemError(CallboardError):
    """The REST API refuses a request: the token does not allow it, there is no such pool, a field is wrong.

    `type` is the problem's name in docs/api.md, `request_id` names the request in the log of the API.
    """

    def __init__(self, type_: str, status: int, detail: str, request_id: str) -> None:
        self.type = type_
        self.status = status
        self.detail = detail
        self.request_id = request_id
        super().__init__(f"the REST API answers {status} {type_} (request {request_id}): {detail}")


class SubmissionError(CallboardError):
    """A task could not be submitted; the text says what is wrong with it."""


class PayloadTooLargeError(SubmissionError):
    """A task's message is larger than the limit."""

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            f"the task takes {size:,} bytes and the limit is {limit:,}: pass a reference to the data instead"
        )


class QueueFullError(SubmissionError):
    """As many tasks of a pool, or of one capability, wait as may: nothing of the refused one is kept.

    `capability` is None if the bound is the pool's; `pending` is how many waited. Of a `submit_many`, `handles` are
    those of the tasks that were sent, in order: None in the place of each that was refused; the others are stored.
    """

    retry_after: Final = 1.0
    """Seconds after which it may be worth another try; `wait_for_room` tries by itself."""

    def __init__(self, pool: str, capability: str | None, *, bound: int, pending: int) -> None:
        self.pool = pool
        self.capability = capability
        self.bound = bound
        self.pending = pending
        self.handles: list[Any] = []
        what = f"pool {pool!r}" if capability is None else f"{capability} in pool {pool!r}"
        self.problem = f"{pending:,} tasks of {what} wait, and no more than {bound:,} may"
        super().__init__(f"{self.problem}: submit it again later, or let `wait_for_room` seconds do that")


class DurabilityUnavailableError(CallboardError):
    """The server cannot give the durability that is asked for: nothing was stored. The text says what it lacks."""

    def __init__(self, durability: str, why: str) -> None:
        self.durability = durability
        self.why = why
        super().__init__(f"nothing was submitted, for durability {durability} cannot be had: {why}")


class DurabilityNotProvenError(CallboardError):
    """All that was submitted is stored and will be done, but a failure now may lose it: the proof did not come in time.

    `handles` are those of the tasks. Submitting keyed tasks again asks for the proof again, and stores nothing twice.
    """

    def __init__(self, why: str, handles: list[Any]) -> None:
        self.why = why
        self.handles = handles
        what = f"task {handles[0].id} is" if len(handles) == 1 else f"{len(handles) or 'all'} tasks are"
        super().__init__(
            f"{what} submitted, and not proven to be as durable as was asked for: {why}; submit with a `key` to try "
            "the proof again"
        )


class BusAddressError(CallboardError, ValueError):
    """A text is not the address of a Redis server."""

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(
            f"{url!r} is not where a Redis server can be: write redis://host:port/0, rediss://… or unix:///path, as "
            "the `url` or in CALLBOARD_REDIS_URL"
        )


class RequirementSyntaxError(CallboardError, ValueError):
    """A text is no requirement; its own text is one line, a traceback shows the place with a caret below.

    `column` counts from 1; `expected` says what may stand there; `what` says what the text should have been.
    """

    def __init__(self, text: str, column: int, expected: str, *, what: str, example: str) -> None:
        self.text = text
        self.column = column
        self.expected = expected
        at = column - 1
        before, after = text[max(at - _SHOWN, 0) : at], text[at : at + _SHOWN]
        self.add_note(f"{text}\n{' ' * at}^")
        super().__init__(
            f"{before + '^' + after!r} is not a {what}: column {column} (^): expected {expected}: write {example}"
        )


class ClientClosedError(CallboardError):
    """A result was waited for through a client that is closed. The task goes on."""

    def __init__(self, task_id: str) -> None:
        self.task_id = task_id
        super().__init__(
            f"the client of task {task_id} is closed: await results inside of `async with Client()`, or ask another one"
        )


class NoLeaderError(CallboardError):
    """Nobody answered what only the leader of a pool can answer.

    With `stored` it was no mere question but a wish, which lies in the pool and will be done as soon as one leads.
    """

    def __init__(self, pool: str, seconds: float, *, stored: bool = False) -> None:
        self.pool = pool
        self.stored = stored
        silence = f"nobody who leads pool {pool!r} answered within {round(seconds, 1 if seconds >= 1 else 3):g} s: "
        remedy = "does a dispatcher run (`callboard dispatcher`)?"
        if stored:
            remedy = (
                "what was asked for is stored, and will be done as soon as one leads: do not ask again, start one "
                "(`callboard dispatcher`)"
            )
        super().__init__(silence + remedy)


class ClientTooOldError(CallboardError):
    """The leader of a pool answers in a newer version of the messages than this program reads: upgrade it.

    What was asked for has been heeded all the same; records tell what came of it.
    """

    def __init__(self, pool: str, version: int, reads: int) -> None:
        self.pool = pool
        self.version = version
        super().__init__(
            f"the leader of pool {pool!r} answers in version {version} of the messages, and this program reads "
            f"{reads}: upgrade it; a wish was heeded all the same, and records tell what came of it"
        )


class UnknownTaskError(CallboardError):
    """The ledger has no task of this id: it was never submitted, waits unread, or its retention is over."""

    def __init__(self, task_id: str, unread: int = 0) -> None:
        self.task_id = task_id
        self.unread = unread
        words = "it was never submitted, or its retention is over"
        if unread:
            words = f"{unread:,} submissions wait to be read; does a dispatcher run (`callboard dispatcher`)?"
        super().__init__(f"no task {task_id}: {words}")


class NotDeadError(CallboardError):
    """The task is live, or has ended otherwise than FAILED."""

    def __init__(self, task_id: str, status: str) -> None:
        self.task_id = task_id
        self.status = status
        super().__init__(f"task {task_id} is {status}, and no dead letter: `callboard tasks get` shows it")


class NotRunningError(CallboardError):
    """The task, or the attempt of it that was meant, does not run: there is nothing that could be overdue."""

    def __init__(self, task_id: str, status: str, attempt: int | None = None) -> None:
        self.task_id = task_id
        self.status = status
        self.attempt = attempt
        what = f"task {task_id}" if attempt is None else f"attempt {attempt} of task {task_id}"
        super().__init__(f"{what} does not run (the task is {status}): `callboard tasks get` shows what does")


class UnreadableTaskError(CallboardError):
    """The record of a task cannot be read: written by a newer version, damaged, or not permitted to this client."""

    def __init__(self, task_id: str, cause: str) -> None:
        self.task_id = task_id
        self.cause = cause
        super().__init__(
            f"the record of task {task_id} cannot be read ({cause}): is this program older than the dispatcher?"
        )


class UnknownAgentError(CallboardError):
    """The pool knows no agent of this id: it never signed in, or has been away for long."""

    def __init__(self, agent_id: str, pool: str) -> None:
        self.agent_id = agent_id
        super().__init__(f"no agent {agent_id} in pool {pool!r}: `callboard agents list` shows those it knows")


class AgentRequestError(CallboardError, ValueError):
    """What was asked of an agent could never be; the text says why. Nothing was asked."""


class ScheduleError(CallboardError):
    """A schedule cannot be so, or cannot do now what it was asked for; the text says why."""


class UnknownScheduleError(CallboardError):
    """The pool has no schedule of this id."""

    def __init__(self, schedule_id: str, pool: str) -> None:
        self.schedule_id = schedule_id
        super().__init__(f"no schedule {schedule_id} in pool {pool!r}: `callboard schedules list` shows those it has")


class TaskOutcomeError(CallboardError):
    """A task ended without a result."""

    def __init__(
        self, task_id: str, message: str, *, reason: str | None = None, error: TaskError | None = None
    ) -> None:
        self.task_id = task_id
        self.reason = reason
        self.error = error
        super().__init__(f"task {task_id} {message}")


class TaskFailedError(TaskOutcomeError):
    """All allowed attempts failed, or the task was rejected; `reason` and `error` say why."""


class TaskCancelledError(TaskOutcomeError):
    """The task was cancelled; `reason` says what for, `by` who did it.

    With `given_up` its code may still run: it did not stop in time, or its agent was lost.
    """

    by: str | None = None
    given_up: bool = False

    @classmethod
    def of(
        cls, task_id: str, reason: str | None, *, by: str | None, given_up: bool, error: TaskError | None = None
    ) -> Self:
        """Make the error of a cancelled task."""
        because = f": {reason}" if reason else ""
        doubt = " (it did not stop in time, and may still run)" if given_up else ""
        made = cls(task_id, f"was cancelled{because}{doubt}", reason=reason, error=error)
        made.by, made.given_up = by, given_up
        return made


class TaskTimeoutError(TaskOutcomeError):
    """The task failed by a timeout, or the caller's own `timeout` ran out (`reason` is None: the task goes on)."""


def first_problem(error: ValidationError) -> str:
    """Say in one line what is wrong with what was given, and where."""
    problem = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in problem["loc"])
    text = problem["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text
