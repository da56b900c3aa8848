"""Every metric moves when what it counts happens, and is what the catalogue and the docs say."""

from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.registry import CollectorRegistry

from agent_runtime.observer import RuntimeObserver
from dispatcher.observer import AgentGauge, DispatcherObserver, QueueGauge
from metrics import catalogue
from metrics.catalogue import DISPATCHER, RUNTIME, Kind, Metric
from metrics.collectors import OTHER, BatchHistogram, Bounded
from metrics.dispatcher_metrics import DispatcherMetrics
from metrics.runtime_metrics import RuntimeMetrics

DISPATCHER_MOVES: list[tuple[Callable[[DispatcherObserver], None], str, dict[str, str], float]] = [
    (lambda o: o.accepted("c", "LOW", 3), "callboard_tasks_accepted_total", {"capability": "c", "priority": "LOW"}, 3),
    (lambda o: o.placed("c", [0.1, 0.2]), "callboard_attempts_placed_total", {"capability": "c"}, 2),
    (lambda o: o.placed("c", [0.1, 0.2]), "callboard_task_queue_wait_seconds_count", {"capability": "c"}, 2),
    (
        lambda o: o.finished("c", "FAILED", "error", [1.0], [2.0]),
        "callboard_tasks_finished_total",
        {"capability": "c", "status": "FAILED", "reason": "error"},
        1,
    ),
    (
        lambda o: o.finished("c", "CANCELLED", "the words of somebody", [1.0], [2.0]),
        "callboard_tasks_finished_total",
        {"capability": "c", "status": "CANCELLED", "reason": ""},
        1,
    ),
    (
        lambda o: o.finished("c", "COMPLETED", "", [1.5], [2.5]),
        "callboard_task_run_seconds_sum",
        {"capability": "c"},
        1.5,
    ),
    (
        lambda o: o.finished("c", "COMPLETED", "", [1.5], [2.5]),
        "callboard_task_end_to_end_seconds_sum",
        {"capability": "c"},
        2.5,
    ),
    (lambda o: o.retried("c", "error", 2), "callboard_task_retries_total", {"capability": "c", "reason": "error"}, 2),
    (lambda o: o.cancels("given_up", 2), "callboard_cancels_total", {"outcome": "given_up"}, 2),
    (lambda o: o.requeued("c", 2), "callboard_dead_letters_requeued_total", {"capability": "c"}, 2),
    (lambda o: o.purged(3), "callboard_dead_letters_purged_total", {}, 3),
    (lambda o: o.dead_letters(4), "callboard_dead_letters", {}, 4),
    (
        lambda o: o.firings("nightly", "fired", 2),
        "callboard_schedule_firings_total",
        {"schedule": "nightly", "outcome": "fired"},
        2,
    ),
    (lambda o: o.stale("result", 2), "callboard_stale_reports_total", {"kind": "result"}, 2),
    (lambda o: o.unreadable("commands", 1), "callboard_unreadable_messages_total", {"topic": "commands"}, 1),
    (lambda o: o.audited("unknown_key", 2), "callboard_audit_findings_total", {"kind": "unknown_key"}, 2),
    (lambda o: o.defect(), "callboard_defects_total", {}, 1),
    (lambda o: o.decided(5, 0.01), "callboard_decisions_total", {}, 5),
    (lambda o: o.decided(5, 0.01), "callboard_scheduler_pass_seconds_sum", {}, 0.01),
    (lambda o: o.committed(5, 0.02), "callboard_commit_seconds_sum", {}, 0.02),
    (lambda o: o.leading(7), "callboard_leader", {}, 1),
    (lambda o: o.leading(7), "callboard_leader_epoch", {}, 7),
    (lambda o: o.backlog("results", 9), "callboard_stream_backlog", {"topic": "results"}, 9),
    (lambda o: o.parked("results", 4), "callboard_stream_parked", {"topic": "results"}, 4),
    (
        lambda o: o.queues([QueueGauge("c", "HIGH", 4)]),
        "callboard_tasks_waiting",
        {"capability": "c", "priority": "HIGH"},
        4,
    ),
    (
        lambda o: o.agents([AgentGauge("a", "IDLE", "healthy", 8, 2, 0.5)]),
        "callboard_agents",
        {"status": "IDLE", "health": "healthy"},
        1,
    ),
    (
        lambda o: o.agents([AgentGauge("a", "IDLE", "healthy", 8, 2, 0.5, paused=True)]),
        "callboard_agents_paused",
        {},
        1,
    ),
    (
        lambda o: o.agents([AgentGauge("a", "IDLE", "healthy", 8, 2, 0.5, requests=(("drain", "overdue"),))]),
        "callboard_agent_requests",
        {"kind": "drain", "state": "overdue"},
        1,
    ),
    (lambda o: o.agents([AgentGauge("a", "IDLE", "healthy", 8, 2, 0.5)]), "callboard_agent_slots", {"agent": "a"}, 8),
    (
        lambda o: o.agents([AgentGauge("a", "IDLE", "healthy", 8, 2, 0.5)]),
        "callboard_agent_slots_used",
        {"agent": "a"},
        2,
    ),
    (
        lambda o: o.agents([AgentGauge("a", "IDLE", "healthy", 8, 2, 0.5)]),
        "callboard_agent_heartbeat_age_seconds",
        {"agent": "a"},
        0.5,
    ),
]

RUNTIME_MOVES: list[tuple[Callable[[RuntimeObserver], None], str, dict[str, str], float]] = [
    (lambda o: o.started("c", 2), "callboard_runtime_attempts_started_total", {"capability": "c"}, 2),
    (
        lambda o: o.finished("c", "FAILED", "error", [0.3, 0.4]),
        "callboard_runtime_attempts_finished_total",
        {"capability": "c", "status": "FAILED", "reason": "error"},
        2,
    ),
    (
        lambda o: o.finished("c", "COMPLETED", "", [0.3]),
        "callboard_runtime_attempt_seconds_sum",
        {"capability": "c"},
        0.3,
    ),
    (lambda o: o.slots(3, 8), "callboard_runtime_slots_used", {}, 3),
    (lambda o: o.slots(3, 8), "callboard_runtime_slots", {}, 8),
    (lambda o: o.heartbeat(ok=True), "callboard_runtime_heartbeats_total", {"result": "ok"}, 1),
    (lambda o: o.heartbeat(ok=False), "callboard_runtime_heartbeats_total", {"result": "failed"}, 1),
    (lambda o: o.reports(4, 0.01), "callboard_runtime_reports_total", {}, 4),
    (lambda o: o.reports(4, 0.01), "callboard_runtime_flush_seconds_sum", {}, 0.01),
    (lambda o: o.loop_lag(0.2), "callboard_runtime_loop_lag_seconds", {}, 0.2),
    (lambda o: o.connected(ok=True), "callboard_runtime_connected", {}, 1),
]


@pytest.mark.parametrize(("move", "name", "labels", "value"), DISPATCHER_MOVES)
def test_what_a_dispatcher_tells_moves_its_metric(
    move: Callable[[DispatcherObserver], None], name: str, labels: dict[str, str], value: float
) -> None:
    registry = CollectorRegistry()
    observer: DispatcherObserver = DispatcherMetrics(registry).of("p")
    move(observer)
    assert registry.get_sample_value(name, {"pool": "p", **labels}) == value


@pytest.mark.parametrize(("move", "name", "labels", "value"), RUNTIME_MOVES)
def test_what_an_agent_tells_moves_its_metric(
    move: Callable[[RuntimeObserver], None], name: str, labels: dict[str, str], value: float
) -> None:
    registry = CollectorRegistry()
    observer: RuntimeObserver = RuntimeMetrics("a", "p", registry)
    move(observer)
    assert registry.get_sample_value(name, {"pool": "p", "agent": "a", **labels}) == value


def _base(sample: str, metric: Metric) -> bool:
    return sample.removesuffix("_count").removesuffix("_sum") == metric.exposed


@pytest.mark.parametrize("metric", DISPATCHER, ids=lambda m: m.exposed)
def test_every_metric_of_a_dispatcher_is_moved_by_a_test(metric: Metric) -> None:
    assert any(_base(name, metric) for _, name, _, _ in DISPATCHER_MOVES)


@pytest.mark.parametrize("metric", RUNTIME, ids=lambda m: m.exposed)
def test_every_metric_of_an_agent_is_moved_by_a_test(metric: Metric) -> None:
    assert any(_base(name, metric) for _, name, _, _ in RUNTIME_MOVES)


def test_names_and_kinds_in_the_registry_are_those_of_the_catalogue() -> None:
    registry = CollectorRegistry()
    DispatcherMetrics(registry).of("p")
    RuntimeMetrics("a", "p", registry)
    found = {(family.name, family.type) for family in registry.collect()}
    assert found == {(metric.name, metric.kind.value) for metric in (*DISPATCHER, *RUNTIME)}


def test_units_are_in_the_names_and_every_histogram_has_buckets() -> None:
    for metric in (*DISPATCHER, *RUNTIME):
        assert (metric.kind is Kind.HISTOGRAM) == bool(metric.buckets)
        assert metric.kind is not Kind.HISTOGRAM or metric.name.endswith("_seconds")
        assert not metric.name.endswith("_total")
        assert metric.help.endswith(".")


def test_the_page_of_the_docs_is_what_the_catalogue_prints() -> None:
    assert Path("docs/metrics.md").read_text(encoding="utf-8") == catalogue.page()


def test_a_flood_of_names_is_summed_up_as_other() -> None:
    bounded = Bounded(2)
    assert [bounded(name) for name in ("a", "b", "c", "a", "d")] == ["a", "b", OTHER, "a", OTHER]


def test_an_agent_that_is_gone_is_not_shown_any_more_and_neither_is_a_pool_that_is_not_led() -> None:
    registry = CollectorRegistry()
    observer = DispatcherMetrics(registry).of("p")
    observer.agents([AgentGauge("a", "IDLE", "healthy", 1, 0, 0.1), AgentGauge("b", "IDLE", "healthy", 1, 0, 0.1)])
    observer.agents([AgentGauge("b", "IDLE", "healthy", 1, 0, 0.1)])
    assert registry.get_sample_value("callboard_agent_slots", {"pool": "p", "agent": "a"}) is None
    assert registry.get_sample_value("callboard_agent_slots", {"pool": "p", "agent": "b"}) == 1
    observer.leading(0)
    assert registry.get_sample_value("callboard_agent_slots", {"pool": "p", "agent": "b"}) is None


def test_two_pools_in_one_process_are_shown_side_by_side() -> None:
    registry = CollectorRegistry()
    metrics = DispatcherMetrics(registry)
    for pool, number in (("p", 1), ("q", 2)):
        metrics.of(pool).queues([QueueGauge("c", "LOW", number)])
    labels = {"capability": "c", "priority": "LOW"}
    shown = [registry.get_sample_value("callboard_tasks_waiting", {"pool": pool, **labels}) for pool in ("p", "q")]
    assert shown == [1, 2]


def test_a_batch_falls_into_the_buckets_prometheus_expects() -> None:
    registry = CollectorRegistry()
    histogram = BatchHistogram(Metric("h_seconds", Kind.HISTOGRAM, "H.", ("x",), (0.1, 1.0)), registry)
    histogram.observe(("a",), [0.05, 0.1, 0.5, 7.0])
    values = [registry.get_sample_value("h_seconds_bucket", {"x": "a", "le": le}) for le in ("0.1", "1.0", "+Inf")]
    assert values == [2, 3, 4]
    assert registry.get_sample_value("h_seconds_count", {"x": "a"}) == 4
