"""The harness itself: whoever does harm undoes his own only, and what a run has not shown it does not claim."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest
import pytest_asyncio

from tests.chaos.flight import Flight
from tests.chaos.journal import Journal
from tests.chaos.run import Report
from tests.support.proxy import Proxy, Trouble

ONE, TWO = {"token": "one"}, {"token": "two"}


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(100):
                writer.write(data)
        writer.close()

    async with await asyncio.start_server(echo, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with Proxy(f"redis://127.0.0.1:{port}/0") as proxy:
            yield proxy


async def answers(proxy: Proxy, within: float = 0.05) -> bool:
    """Tell whether a new connection is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2].partition("/")[0]))
    try:
        with suppress(TimeoutError, OSError):
            async with asyncio.timeout(within):
                writer.write(b"x")
                return await reader.read(1) == b"x"
        return False
    finally:
        writer.close()


@pytest.mark.parametrize("mine", [Trouble(cut=True), Trouble(up=True), Trouble(down=True), Trouble(delay=1.0)])
async def test_a_trouble_lasts_until_its_own_end_whoever_ends_another(proxy: Proxy, mine: Trouble) -> None:
    with proxy.trouble(mine):
        for other in (Trouble(cut=True), Trouble(up=True), Trouble(down=True), Trouble(drops_replies=1)):
            with proxy.trouble(other):
                assert not await answers(proxy)
            assert not await answers(proxy)
    assert await answers(proxy, within=5)


async def test_of_answers_so_many_are_lost_as_was_said(proxy: Proxy) -> None:
    with proxy.trouble(Trouble(cuts_at_reply=1)), proxy.trouble(Trouble(drops_replies=2)):
        assert [await answers(proxy, within=1) for _ in range(4)] == [False, False, False, True]
    assert proxy.replies_lost == 3


def test_work_is_in_flight_from_its_beginning_to_its_end_while_its_process_lives(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    assert not flight.has("")
    journal = Journal(tmp_path / f"agent-a1-{os.getpid()}.jsonl")
    journal.write("begin", **ONE)
    Journal(tmp_path / "agent-a2-4194305.jsonl").write("begin", **TWO)  # no process can have that id
    assert flight.has("a1")
    assert flight.has("")
    assert not flight.has("a2")
    journal.write("end", **ONE)
    assert not flight.has("")


def test_a_run_says_which_faults_met_too_little_work() -> None:
    report = Report(1, 10.0, 0, 0, 0.0, strikes={"storm": (12, 9), "flood": (12, 10)})
    assert report.shortfalls() == ["storm met work in flight 9 times, and 10 are due"]
    report = Report(1, 5.0, 0, 0, 0.0, strikes={"storm": (12, 5)}, never=2)
    assert report.shortfalls() == ["2 kinds of faults never struck"]
