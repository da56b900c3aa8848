"""How many Python functions the scheduling core calls for one task: of one version of Python always the same number.

    python -m benchmarks.core_calls

Only functions of this repository count, not those of libraries or the interpreter.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from benchmarks.core import Pool

OURS = tuple(str(Path(__file__).resolve().parents[1] / package) + "/" for package in ("dispatcher", "bus"))
AGENTS, CLASSES, WAITING, PASS, PASSES = 50, 10, 2000, 100, 20


def calls(work: Callable[[], object]) -> int:
    """Return how many functions `work` calls."""
    count = 0

    def profile(frame: FrameType, event: str, _: Any) -> None:  # noqa: ANN401 - as the interpreter has it
        nonlocal count
        if event == "call" and frame.f_code.co_filename.startswith(OURS):
            count += 1

    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def count() -> dict[str, float]:
    """Return calls per task, to accept one with none to run it, and to end one and place another."""
    pool = Pool(AGENTS, CLASSES)
    passes = [list(pool.submissions(PASS)) for _ in range(WAITING // PASS)]
    accepted = sum(calls(lambda events=events: pool.step(events)) for events in passes)  # type: ignore[misc]
    pool.sign_in()
    flowing = 0
    for _ in range(PASSES):
        events = [*pool.end(PASS), *pool.submissions(PASS)]
        flowing += calls(lambda events=events: pool.step(events))  # type: ignore[misc]
    return {
        "calls to accept": round(accepted / WAITING, 2),
        "calls to accept, place and end": round(flowing / (PASSES * PASS), 2),
    }


if __name__ == "__main__":
    print(json.dumps(count()))
