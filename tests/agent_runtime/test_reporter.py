"""Reports: what leaves when, in how many entries, and what happens when the server is away."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from pydantic_core import to_json
from redis.asyncio import Redis

from agent_runtime import outcome
from agent_runtime.inbox import AttemptKey
from agent_runtime.link import Link
from agent_runtime.observer import SILENT
from agent_runtime.outcome import Outcome
from agent_runtime.reporter import MAX_ITEMS, Reporter
from bus.messages import Report
from bus.states import TaskStatus
from tests.support.waiting import eventually

STREAM = "reports"


class Gate:
    """Stands for the server: each XADD waits for `open`, and may be made to fail. The reporter's only seam."""

    def __init__(self) -> None:
        self.reports: list[Report] = []
        self.sizes: list[int] = []
        self.failures = 0
        self.tries = 0
        self.open = asyncio.Event()
        self.open.set()

    async def xadd(self, name: str, fields: dict[str, bytes]) -> bytes:
        assert name == STREAM
        self.tries += 1
        await self.open.wait()
        if self.failures:
            self.failures -= 1
            raise ConnectionError("gone")
        body = fields["__data__"]
        self.sizes.append(len(body))
        self.reports.append(Report.model_validate_json(body))
        return b"1-0"


class Kit:
    def __init__(self, gate: Gate, limit: int) -> None:
        self.stored: list[AttemptKey] = []
        redis: Any = gate
        self.reporter = Reporter(
            redis,
            STREAM,
            agent_id="a1",
            session="s1",
            stored=self._store,
            record=str,
            link=Link("redis://x", SILENT),
            observer=SILENT,
            limit=limit,
        )
        self.task = asyncio.create_task(self.reporter.run())

    def _store(self, keys: Sequence[AttemptKey]) -> None:
        self.stored += keys

    async def idle(self) -> None:
        async with asyncio.timeout(30):
            await self.reporter.wait_until_idle()


@pytest.fixture
async def gate() -> Gate:
    return Gate()


@pytest.fixture
async def kit(gate: Gate) -> AsyncIterator[Kit]:
    made = Kit(gate, limit=20_000)
    yield made
    made.task.cancel()


def _done(output: object = None) -> Outcome:
    return Outcome(TaskStatus.COMPLETED, to_json(output))


async def test_what_begins_and_ends_in_one_flush_is_one_result(kit: Kit, gate: Gate) -> None:
    kit.reporter.started(("p.a", 1))
    kit.reporter.progress(("p.a", 1), 0.5, "half")
    kit.reporter.finished(("p.a", 1), _done({"n": 1}), 0.25)
    await kit.idle()
    [report] = gate.reports
    assert (report.agent_id, report.session, report.updates) == ("a1", "s1", ())
    [result] = report.results
    assert (result.task_id, result.attempt, result.output, result.duration) == ("p.a", 1, {"n": 1}, 0.25)
    assert kit.stored == [("p.a", 1)]


async def test_while_a_write_is_in_flight_everything_is_collected(kit: Kit, gate: Gate) -> None:
    gate.open.clear()
    kit.reporter.started(("p.a", 1))
    await eventually(lambda: gate.tries)
    for n in range(20):
        kit.reporter.progress(("p.a", 1), n / 20, str(n))
        kit.reporter.finished((f"p.b{n}", 1), _done(n), 0)
    kit.reporter.returned(("p.c", 3))
    assert kit.stored == []
    gate.open.set()
    await kit.idle()
    first, second = gate.reports
    assert [update.task_id for update in first.updates] == ["p.a"]
    assert first.updates[0].started_at is not None
    [update] = second.updates
    assert (update.progress, update.note, update.started_at) == (0.95, "19", None)
    assert len(second.results) == 20
    assert [(back.task_id, back.attempt) for back in second.returned] == [("p.c", 3)]
    assert len(kit.stored) == 21


async def test_failures_are_sent_with_all_that_is_known(kit: Kit, gate: Gate) -> None:
    kit.reporter.finished(("p.a", 2), outcome.timed_out(1.5), 1.5)
    kit.reporter.finished(("p.b", 1), outcome.cancelled("no need"), 0.5)
    await kit.idle()
    late, gone = gate.reports[0].results
    assert (late.status, late.reason, late.retryable) == (TaskStatus.FAILED, "timeout", True)
    assert late.error is not None
    assert "1.5 s" in late.error.message
    assert gone.status is TaskStatus.CANCELLED


async def test_an_entry_stays_below_the_limit_of_a_message(kit: Kit, gate: Gate) -> None:
    for n in range(10):
        kit.reporter.finished((f"p.{n}", 1), _done("x" * 7_000), 0)
    await kit.idle()
    assert max(gate.sizes) <= 20_000
    assert [len(report.results) for report in gate.reports] == [2] * 5
    assert kit.stored == [(f"p.{n}", 1) for n in range(10)]


async def test_an_entry_has_no_more_items_than_the_leader_takes_at_once(gate: Gate) -> None:
    kit = Kit(gate, limit=10**6)
    for n in range(MAX_ITEMS + 1):
        kit.reporter.returned((f"p.{n}", 1))
    await kit.idle()
    assert [len(report.returned) for report in gate.reports] == [MAX_ITEMS, 1]
    kit.task.cancel()


async def test_a_report_that_could_not_be_written_is_sent_again_and_only_then_stored(
    kit: Kit, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    gate.failures = 3
    kit.reporter.finished(("p.a", 1), _done(), 0)
    await kit.idle()
    assert gate.tries == 4
    assert len(gate.reports) == 1
    assert kit.stored == [("p.a", 1)]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_a_real_server_keeps_what_was_reported(redis: Redis, pool: str) -> None:
    stored: list[AttemptKey] = []
    reporter = Reporter(
        redis,
        f"{pool}:results",
        agent_id="a1",
        session="s1",
        stored=stored.extend,
        record=str,
        link=Link("redis://x", SILENT),
        observer=SILENT,
    )
    running = asyncio.create_task(reporter.run())
    reporter.finished(("p.a", 1), _done(float("nan")), 0)
    async with asyncio.timeout(30):
        await reporter.wait_until_idle()
    running.cancel()
    entries: Any = await redis.xrange(f"{pool}:results")
    [(_, fields)] = entries
    assert b'"output":NaN' in fields[b"__data__"]
    assert stored == [("p.a", 1)]
