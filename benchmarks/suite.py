"""All benchmarks in one go, in less than ten minutes: a table, figures as JSON, and a picture.

    python -m benchmarks.suite [--only latency restart] [--quick]

Each part is the program of that name, in a process of its own, one after the other; a part that fails or takes too long
says so, and the others go on. Writes `suite.json` and `suite.svg` to `benchmarks/results`, which git ignores.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Final

from benchmarks import picture
from benchmarks.machine import about
from benchmarks.results import FOLDER, write

ROOT: Final = Path(__file__).parents[1]
LIMIT_S: Final = 180


@dataclass(frozen=True, slots=True)
class Part:
    """A program of `benchmarks`, and its arguments."""

    name: str
    program: str
    arguments: tuple[str, ...] = ()
    quick: tuple[str, ...] = ()
    """Arguments that take the place of the others where a short run is asked for."""

    @property
    def there(self) -> bool:
        """Whether this checkout has the program."""
        return importlib.util.find_spec(f"benchmarks.{self.program}") is not None


_FLOW: Final = ("--tasks", "20000", "--runs", "3")
_SHORT: Final = ("--tasks", "2000")
_EVERYSEC: Final = ("--persistence", "everysec")
PARTS: Final = (
    Part("throughput", "throughput", _FLOW, _SHORT),
    Part("throughput, everysec", "throughput", (*_FLOW, *_EVERYSEC), (*_SHORT, *_EVERYSEC)),
    Part("latency", "latency", (), ("--seconds", "1", "--tasks", "2000")),
    Part("restart", "restart"),
    Part("core", "core", ("--quick",), ("--quick",)),
    Part("idle", "idle", ("--agents", "50", "--beating", "1000", "--seconds", "5"), ("--seconds", "1")),
    Part("scale", "scale", ("--tasks", "50000", "--agents", "20", "--drained", "5000"), ("--tasks", "5000")),
)


@dataclass(frozen=True, slots=True)
class Target:
    """What a figure is to be."""

    part: str
    figure: str
    """Its path in what the part prints."""
    goal: float
    unit: str
    more_is_better: bool = False

    def of(self, figures: dict[str, Any]) -> float | None:
        """Return the figure that was measured; None if there is none."""
        found: Any = figures.get(self.part)
        for name in self.figure.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return float(found) if isinstance(found, int | float) else None

    def ratio(self, found: float) -> float:
        """Return how far the goal is reached: 1 and more is reached."""
        if not found:
            return 0.0
        return found / self.goal if self.more_is_better else self.goal / found


TARGETS: Final = (
    Target("throughput", "drain_per_s", 20_000, "/s", more_is_better=True),
    Target("throughput", "end_to_end_per_s", 12_000, "/s", more_is_better=True),
    Target("throughput", "enqueue_per_s", 65_000, "/s", more_is_better=True),
    Target("latency", "result.p50", 1.3, "ms"),
    Target("latency", "result.p99", 3.0, "ms"),
    Target("latency", "start.p50", 0.8, "ms"),
    Target("latency", "urgent", 25.0, "ms"),
    Target("latency", "half_load.p99", 30.0, "ms"),
    Target("restart", "agent_killed", 6.0, "s"),
    Target("restart", "leader_killed", 4.0, "s"),
    Target("restart", "server_back", 3.0, "s"),
)
"""From docs/guarantees.md (restart) and docs/performance.md."""


def run(part: Part, *, quick: bool) -> dict[str, Any]:
    """Run a part; return its figures, of several lines by their number, or why there are none."""
    if not part.there:
        return {"skipped": f"there is no benchmarks/{part.program}.py"}
    arguments = part.quick if quick else part.arguments
    command = [sys.executable, "-m", f"benchmarks.{part.program}", *arguments]
    try:
        ran = subprocess.run(  # noqa: S603 - our own
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=LIMIT_S
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"took more than {LIMIT_S} s"}
    lines = [json.loads(line) for line in ran.stdout.splitlines() if line.startswith("{")]
    if ran.returncode or not lines:
        return {"failed": (ran.stderr.strip().splitlines() or ["said nothing"])[-1]}
    figures: dict[str, Any] = lines[0] if len(lines) == 1 else {str(n): line for n, line in enumerate(lines, 1)}
    return figures


def flat(figures: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested figures under dotted names."""
    flattened: dict[str, Any] = {}
    for name, value in figures.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flattened


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return all figures, with what they are to be and how far they reach it."""
    goals = {(target.part, target.figure): target for target in TARGETS}
    rows = ["| part | figure | measured | target | reached |", "|---|---|---|---|---|"]
    for part, found in figures.items():
        for name, value in flat(found).items():
            target = goals.get((part, name))
            measured = target.of(figures) if target else None
            aim = f"{target.goal:g} {target.unit}" if target else ""
            reached = f"{target.ratio(measured):.2f}" if target and measured is not None else ""
            rows.append(f"| {part} | {name} | {value} | {aim} | {reached} |")
    return "\n".join(rows)


def main() -> int:
    """Parse the arguments, run, print, write, draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [part.name for part in PARTS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="PART", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a minute or two, to see that all of it works")
    options = parser.parse_args()
    machine, figures = about(), dict[str, dict[str, Any]]()
    for part in PARTS:
        if options.only is None or part.name in options.only:
            began = monotonic()
            figures[part.name] = run(part, quick=options.quick)
            print(f"{part.name}: {monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    path = write("suite", {**machine, "quick": options.quick, "figures": figures})
    drawing = FOLDER / "suite.svg"
    reached = [(f"{t.part} {t.figure}", t.of(figures), t.goal, t.unit, t.ratio) for t in TARGETS]
    drawing.write_text(
        picture.bars(
            f"Callboard {machine['commit']}, Python {machine['python']}, load {machine['load_before']}",
            [
                picture.Bar(name, ratio(found), f"{found:g} {unit}, target {goal:g}")
                for name, found, goal, unit, ratio in reached
                if found is not None
            ],
        )
    )
    print(table(figures))
    print(f"\nWritten to {path} and {drawing}", file=sys.stderr)
    return int(any("failed" in found and not isinstance(found["failed"], int) for found in figures.values()))


if __name__ == "__main__":
    sys.exit(main())
