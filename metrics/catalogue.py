"""Every metric of Callboard, as data: name, kind, meaning, labels. No other module declares one.

Labels are bounded: statuses, reasons, priorities and topics are short lists; of the names that users choose
(capabilities, agents) only so many are told apart, see `metrics.collectors.Bounded`.

    python -m metrics.catalogue      prints docs/metrics.md
"""

import sys
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """What Prometheus calls the type of a metric."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


TASK_BUCKETS: Final = (
    *(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0),
    *(60.0, 300.0, 1800.0, 3600.0),
)
"""For what tasks do: from a millisecond to an hour."""
PASS_BUCKETS: Final = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""For what a dispatcher does in one go: from a tenth of a millisecond to a second."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. A counter's name is without the `_total` that Prometheus puts behind it."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()

    @property
    def exposed(self) -> str:
        """The name by which queries know it."""
        return f"{self.name}_total" if self.kind is Kind.COUNTER else self.name


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"callboard_{name}", Kind.COUNTER, text, labels)


def _gauge(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"callboard_{name}", Kind.GAUGE, text, labels)


def _histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Metric:
    return Metric(f"callboard_{name}", Kind.HISTOGRAM, text, labels, buckets)


TASKS_ACCEPTED: Final = _counter(
    "tasks_accepted", "Submissions taken into the ledger.", "pool", "capability", "priority"
)
TASKS_FINISHED: Final = _counter(
    "tasks_finished", "Tasks that became terminal.", "pool", "capability", "status", "reason"
)
FIRINGS: Final = _counter(
    "schedule_firings",
    "What became of schedules: instants fired, triggered, skipped or missed; tasks replaced.",
    *("pool", "schedule", "outcome"),
)
TASK_RETRIES: Final = _counter(
    "task_retries", "Tasks that went back to PENDING after an attempt.", "pool", "capability", "reason"
)
CANCELS: Final = _counter(
    "cancels",
    "Cancels that are over: the work has stopped (`finished`), nobody knows whether it has (`given_up`), or its result "
    "came before (`too_late`).",
    "pool",
    "outcome",
)
DEAD_REQUEUED: Final = _counter(
    "dead_letters_requeued", "Dead letters that were given a new life.", "pool", "capability"
)
DEAD_PURGED: Final = _counter("dead_letters_purged", "Dead letters that were deleted before their time.", "pool")
DEAD_LETTERS: Final = _gauge("dead_letters", "FAILED tasks that are kept, to be looked at, requeued or purged.", "pool")
ATTEMPTS_PLACED: Final = _counter("attempts_placed", "Attempts given to agents.", "pool", "capability")
QUEUE_WAIT: Final = _histogram(
    "task_queue_wait_seconds",
    "From the moment a task could start to its assignment, per attempt.",
    TASK_BUCKETS,
    "pool",
    "capability",
)
TASK_RUN: Final = _histogram(
    "task_run_seconds", "Run time of the last attempt of ended tasks.", TASK_BUCKETS, "pool", "capability"
)
END_TO_END: Final = _histogram(
    "task_end_to_end_seconds", "From a task's submission to its end.", TASK_BUCKETS, "pool", "capability"
)
TASKS_WAITING: Final = _gauge(
    "tasks_waiting", "Tasks that may start and have no agent.", "pool", "capability", "priority"
)
AGENTS: Final = _gauge("agents", "Known agents.", "pool", "status", "health")
AGENTS_PAUSED: Final = _gauge("agents_paused", "Agents that get nothing new because somebody has paused them.", "pool")
AGENT_REQUESTS: Final = _gauge(
    "agent_requests",
    "What agents were asked and have not done: `requested`, `confirmed` or `overdue`.",
    *("pool", "kind", "state"),
)
AGENT_SLOTS: Final = _gauge("agent_slots", "Tasks an agent runs at once.", "pool", "agent")
AGENT_SLOTS_USED: Final = _gauge("agent_slots_used", "Tasks in an agent's hands, running or about to.", "pool", "agent")
HEARTBEAT_AGE: Final = _gauge("agent_heartbeat_age_seconds", "Time since an agent was last heard of.", "pool", "agent")
STALE_REPORTS: Final = _counter(
    "stale_reports", "Reports refused: of an attempt that is not current, or of a stranger.", "pool", "kind"
)
UNREADABLE: Final = _counter("unreadable_messages", "Messages that could not be understood.", "pool", "topic")
DEFECTS: Final = _counter(
    "defects", "Failures of the dispatcher itself, each with a traceback in its log: please report them.", "pool"
)
AUDIT_FINDINGS: Final = _counter(
    "audit_findings", "What the leader's audits have found wrong; `callboard doctor` explains it.", "pool", "kind"
)
DECISIONS: Final = _counter("decisions", "Changes decided by the scheduler.", "pool")
PASS_SECONDS: Final = _histogram(
    "scheduler_pass_seconds", "CPU time of one pass of the scheduler.", PASS_BUCKETS, "pool"
)
COMMIT_SECONDS: Final = _histogram(
    "commit_seconds", "Round trip of storing one pass in the ledger.", PASS_BUCKETS, "pool"
)
LEADER: Final = _gauge("leader", "1 if this process leads the pool.", "pool")
LEADER_EPOCH: Final = _gauge("leader_epoch", "The epoch this process leads the pool with, 0 without the lead.", "pool")
BACKLOG: Final = _gauge("stream_backlog", "Entries of an inbound stream that are not consumed yet.", "pool", "topic")
PARKED: Final = _gauge(
    "stream_parked", "Entries of an inbound stream that wait for a dispatcher of a newer version.", "pool", "topic"
)

DISPATCHER: Final = (
    *(TASKS_ACCEPTED, TASKS_FINISHED, TASK_RETRIES, CANCELS, DEAD_REQUEUED, DEAD_PURGED, DEAD_LETTERS),
    *(ATTEMPTS_PLACED, QUEUE_WAIT, TASK_RUN, END_TO_END, TASKS_WAITING),
    *(AGENTS, AGENTS_PAUSED, AGENT_REQUESTS, AGENT_SLOTS, AGENT_SLOTS_USED),
    *(HEARTBEAT_AGE, STALE_REPORTS, UNREADABLE, DECISIONS, PASS_SECONDS),
    *(FIRINGS, DEFECTS, AUDIT_FINDINGS, COMMIT_SECONDS, LEADER, LEADER_EPOCH, BACKLOG, PARKED),
)
"""What a dispatcher exposes."""

RUN_STARTED: Final = _counter(
    "runtime_attempts_started", "Attempts begun by this agent.", "pool", "agent", "capability"
)
RUN_FINISHED: Final = _counter(
    "runtime_attempts_finished", "Attempts ended in this agent.", "pool", "agent", "capability", "status", "reason"
)
RUN_SECONDS: Final = _histogram(
    "runtime_attempt_seconds", "Run time of attempts in this agent.", TASK_BUCKETS, "pool", "agent", "capability"
)
RUN_SLOTS: Final = _gauge("runtime_slots", "Tasks this agent runs at once.", "pool", "agent")
RUN_SLOTS_USED: Final = _gauge("runtime_slots_used", "Tasks that run in this agent now.", "pool", "agent")
RUN_HEARTBEATS: Final = _counter(
    "runtime_heartbeats", "Heartbeats written (`ok`) or not (`failed`).", "pool", "agent", "result"
)
RUN_REPORTS: Final = _counter("runtime_reports", "Reports delivered.", "pool", "agent")
RUN_FLUSH: Final = _histogram(
    "runtime_flush_seconds", "Round trip of one flush of reports.", PASS_BUCKETS, "pool", "agent"
)
RUN_LAG: Final = _gauge("runtime_loop_lag_seconds", "How late this agent's event loop is.", "pool", "agent")
RUN_CONNECTED: Final = _gauge("runtime_connected", "1 while the server answers this agent.", "pool", "agent")

RUNTIME: Final = (
    *(RUN_STARTED, RUN_FINISHED, RUN_SECONDS, RUN_SLOTS, RUN_SLOTS_USED, RUN_HEARTBEATS, RUN_REPORTS, RUN_FLUSH),
    *(RUN_LAG, RUN_CONNECTED),
)
"""What an agent's process exposes."""

API_REQUESTS: Final = _counter(
    "api_requests", "Requests answered, by the template of their path below /api/v1.", "route", "method", "status"
)
API_SECONDS: Final = _histogram(
    "api_request_seconds", "Time from a request to the end of its answer, waiting included.", TASK_BUCKETS, "route"
)
API_OPEN: Final = _gauge("api_open", "Streams and waiting requests that are open.")
API_DROPPED: Final = _counter("api_streams_dropped", "Streams ended because their reader was too slow.")

API: Final = (API_REQUESTS, API_SECONDS, API_OPEN, API_DROPPED)
"""What an API process exposes."""

_HEAD: Final = """\
# Metrics

Every process serves `/metrics` for Prometheus and `/healthz` (200, or 503 with the reason). This page is printed by
`python -m metrics.catalogue`; a test keeps it true. Beside these there are prometheus-client's own metrics of the
process (`process_*`, `python_*`). The first 200 names
of capabilities and of schedules and 500 of agents are told apart, all others are summed up as `other`.
"""


def page() -> str:
    """Return docs/metrics.md."""
    parts = [_HEAD]
    for title, metrics in (("Of a dispatcher", DISPATCHER), ("Of an agent", RUNTIME), ("Of an API process", API)):
        parts += [f"\n## {title}\n\n", "| metric | kind | labels | meaning |\n|---|---|---|---|\n"]
        parts += [
            f"| `{m.exposed}` | {m.kind} | {', '.join(f'`{label}`' for label in m.labels)} | {m.help} |\n"
            for m in metrics
        ]
    return "".join(parts)


if __name__ == "__main__":
    sys.stdout.write(page())
