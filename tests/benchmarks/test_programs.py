"""The benchmarks work, and print what they say that they print; what figures they print is nobody's business here."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import latency
from benchmarks.compare import environments
from benchmarks.compare.peer import URL_VARIABLE
from bus.embedded import EmbeddedServer
from tests.callboard.commandline import environment
from tests.docs.pages import ROOT


def _printed(*command: str, **env: str) -> list[dict[str, Any]]:
    ran = subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=environment() | env, check=True, capture_output=True, text=True
    )
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.timeout(180)
def test_latency_prints_the_figures_that_it_tells_of() -> None:
    (found,) = _printed("benchmarks.latency", "--seconds", "1", "--tasks", "500")
    told = {name for line in re.findall(r"``\w+``.*", latency.__doc__ or "") for name in re.findall(r"``(\w+)``", line)}
    assert found.keys() == told
    assert found["start"]["p50"] <= found["result"]["p50"] <= found["result"]["p99"]


@pytest.mark.timeout(180)
async def test_callboard_is_measured_as_other_programs_are(tmp_path: Path) -> None:
    async with EmbeddedServer(data_dir=tmp_path, port=0, persistence="none") as server:
        about, through, urgent = _printed(
            "benchmarks.compare.producer",
            *("callboard", "--tasks", "300", "--parts", "throughput", "urgent"),
            **{URL_VARIABLE: server.url},
        )
    assert about.keys() == {"settings", "lease", "bulk"}
    assert {"drain_per_s", "end_to_end_per_s", "submit_one_per_s", "submit_many_per_s"} < through.keys()
    assert urgent["urgent_ms"] > 0


@pytest.mark.parametrize("peer", environments.peers())
def test_a_program_that_is_compared_has_an_adapter_and_pinned_requirements(peer: str) -> None:
    assert (environments.HERE / "adapters" / f"{peer}.py").exists()
    if peer != "callboard":
        lines = (environments.REQUIREMENTS / f"{peer}.txt").read_text().splitlines()
        assert all(re.fullmatch(r"[\w\[\],-]+==[\w.]+", line) for line in lines)
