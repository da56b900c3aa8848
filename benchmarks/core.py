"""The scheduling core alone: placements per second and memory, by agents, requirement classes and waiting tasks.

    python -m benchmarks.core [--quick]

No server and no other process takes part. For each size a scheduler is filled with waiting tasks spread over the
classes, agents of eight slots sign in, and then, pass after pass, a hundred running tasks end and a hundred others take
their place. Prints one JSON line per size:

- ``placements_per_s``: tasks placed per second of CPU in the placing part of a pass alone;
- ``tasks_per_s``: the same, with all else that the pass does for them: results taken, decisions written down;
- ``bytes_per_waiting_task``: memory that the core holds per waiting task (omitted where few wait).
"""

import argparse
import json
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from time import process_time
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bus.messages import CapabilitySpec, Register, Report, TaskHeader, TaskResult
from bus.states import TaskStatus
from dispatcher.core.events import Event, Reported, SignedIn, Submitted
from dispatcher.core.scheduler import Scheduler

START = 1_800_000_000_000
SLOTS = 8
PASS = 100
WARM_PASSES, PASSES = 20, 150
MANY = 10_000

FULL = [
    (10, 1, 1_000),
    (1_000, 1, 1_000),
    (1_000, 100, 1_000),
    (1_000, 100, 100_000),
    (1_000, 100, 1_000_000),
    (1_000, 1_000, 100_000),
    (10_000, 100, 100_000),
    (10_000, 1_000, 1_000_000),
]
QUICK = [(10, 1, 1_000), (1_000, 100, 100_000)]


class Pool:
    """A scheduler with `agents` of equal capabilities, fed by hand; measures its placing apart from all else."""

    def __init__(self, agents: int, classes: int) -> None:
        self.scheduler = Scheduler(seed=1)
        self.now = START
        self.agents = agents
        self.placing_s = 0.0
        self.running: list[tuple[str, str, int]] = []
        self._ids = 0
        self._headers = [
            TaskHeader.model_validate({"capability": "work", "prefers": [f"zone == z{n}"], "reply_to": "c"})
            for n in range(classes)
        ]
        place = self.scheduler._place  # noqa: SLF001 - what is to be measured

        def measured() -> None:
            began = process_time()
            place()
            self.placing_s += process_time() - began

        self.scheduler._place = measured  # type: ignore[method-assign] # noqa: SLF001

    def submissions(self, count: int) -> Iterator[Event]:
        """Make submissions, in turn of each class."""
        for _ in range(count):
            self._ids += 1
            header = self._headers[self._ids % len(self._headers)]
            # As they come from the wire: every header is an object of its own, and is dropped after the pass.
            yield Submitted(f"default.{self._ids:026d}", header.model_copy(), b"{}", self.now)

    def step(self, events: list[Event]) -> int:
        """Let the scheduler take `events`; return how many tasks it placed."""
        self.now += 1
        decisions = self.scheduler.step(events, self.now)
        placed = [t for t in decisions.transitions if t.status is TaskStatus.ASSIGNED]
        self.running += [(t.task_id, t.agent_id or "", t.attempt) for t in placed]
        return len(placed)

    def sign_in(self) -> None:
        """Let all agents sign in."""
        spec = CapabilitySpec(name="work")
        for n in range(self.agents):
            message = Register(
                agent_id=f"a{n}",
                session="s",
                capabilities=(spec,),
                slots=SLOTS,
                attributes={"zone": f"z{n % 10}"},
                lease=86_400,
            )
            self.step([SignedIn(message, self.now)])

    def end(self, count: int) -> list[Event]:
        """Make the reports that the longest running tasks have ended."""
        ended, self.running = self.running[:count], self.running[count:]
        return [
            Reported(
                Report(
                    agent_id=agent_id,
                    session="s",
                    results=(TaskResult(task_id=task_id, attempt=attempt, status=TaskStatus.COMPLETED, duration=5.0),),
                ),
                self.now,
            )
            for task_id, agent_id, attempt in ended
        ]


def measure(agents: int, classes: int, waiting: int) -> dict[str, Any]:
    """Measure one size."""
    pool = Pool(agents, classes)
    memory = None
    if waiting >= MANY:
        tracemalloc.start()
    for first in range(0, waiting, 500):
        pool.step(list(pool.submissions(min(500, waiting - first))))
    if waiting >= MANY:
        memory = tracemalloc.get_traced_memory()[0] / waiting
        tracemalloc.stop()
    pool.sign_in()
    count = min(PASS, agents * SLOTS)
    for _ in range(WARM_PASSES):
        pool.step([*pool.end(count), *pool.submissions(count)])
    pool.placing_s, placed, seconds = 0.0, 0, 0.0
    for _ in range(PASSES):
        events = [*pool.end(count), *pool.submissions(count)]
        began = process_time()
        placed += pool.step(events)
        seconds += process_time() - began
    found: dict[str, Any] = {"agents": agents, "classes": classes, "waiting": waiting}
    found |= {"placements_per_s": round(placed / pool.placing_s), "tasks_per_s": round(placed / seconds)}
    return found if memory is None else found | {"bytes_per_waiting_task": round(memory)}


def main() -> None:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="only two sizes, in some seconds")
    for size in QUICK if parser.parse_args().quick else FULL:
        print(json.dumps(measure(*size)), flush=True)


if __name__ == "__main__":
    main()
