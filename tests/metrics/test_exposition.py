from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from socket import gethostname

import pytest
from prometheus_client.parser import text_string_to_metric_families

from metrics.exposition import MetricsServer, PortTakenError, new_registry


@contextmanager
def served(problems: list[str]) -> Iterator[MetricsServer]:
    server = MetricsServer(new_registry(), healthy=lambda: problems)
    try:
        yield server
    finally:
        server.stop()


def asked(server: MetricsServer, path: str, method: str = "GET") -> tuple[HTTPResponse, str]:
    connection = HTTPConnection(server.host, server.port, timeout=5)
    connection.request(method, path)
    response = connection.getresponse()
    body = response.read().decode()
    connection.close()
    return response, body


def test_metrics_are_text_that_prometheus_can_read() -> None:
    with served([]) as server:
        response, body = asked(server, "/metrics")
    assert response.status == 200
    names = {family.name for family in text_string_to_metric_families(body)}
    assert {"process_resident_memory_bytes", "python_info"} <= names


def test_on_all_addresses_the_machine_is_named() -> None:
    server = MetricsServer(new_registry(), host="0.0.0.0")  # noqa: S104 - as in a container
    server.stop()
    assert server.url == f"http://{gethostname()}:{server.port}/metrics"


def test_health_is_ok_or_says_what_is_wrong() -> None:
    problems: list[str] = []
    with served(problems) as server:
        assert (asked(server, "/healthz")[0].status, asked(server, "/healthz")[1]) == (200, "ok\n")
        problems.append("results: not subscribed")
        response, body = asked(server, "/healthz")
    assert (response.status, body) == (503, "results: not subscribed\n")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/", 404), ("POST", "/metrics", 405), ("HEAD", "/metrics", 405)]
)
def test_anything_else_is_answered_properly(method: str, path: str, status: int) -> None:
    with served([]) as server:
        assert asked(server, path, method)[0].status == status


def test_a_taken_port_is_one_line_that_says_what_to_do() -> None:
    with served([]) as server, pytest.raises(PortTakenError, match="choose another") as caught:
        MetricsServer(new_registry(), port=server.port)
    assert "\n" not in str(caught.value)


def test_after_the_stop_the_port_is_free_again() -> None:
    with served([]) as server:
        port = server.port
    MetricsServer(new_registry(), port=port).stop()
