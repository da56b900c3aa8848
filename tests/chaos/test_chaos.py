"""A short chaos run with a fixed seed: the promises of docs/guarantees.md, judged by what the parties wrote."""

from pathlib import Path

import pytest

from tests.chaos.run import run

MINUTES = 0.6
AHEAD = 300
SEED = 7


@pytest.mark.timeout(300)
async def test_whatever_breaks_nothing_is_lost_and_nothing_is_counted_twice(tmp_path: Path) -> None:
    report = await run(tmp_path / "run", seed=SEED, minutes=MINUTES, ahead=AHEAD)
    assert report.findings == [], "\n".join(report.lines())
    assert report.submitted > 500
    assert sum(at_work for _, at_work in report.strikes.values()) > 5
