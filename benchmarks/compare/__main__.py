"""Callboard beside other programs for the same purpose, on the same server, with the same work.

    python -m benchmarks.compare [--peers callboard arq ...] [--tasks 10000] [--runs 1] [--persistence none]

Makes an environment for each of them with pip, which takes some minutes the first time. A run of all takes a quarter
of an hour. Prints a table with ratios to Callboard, and writes `benchmarks/results/compare.json`.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any, Final

from benchmarks.compare.environments import peers, python_of
from benchmarks.compare.peer import URL_VARIABLE
from benchmarks.machine import about
from benchmarks.results import write
from bus.embedded import EmbeddedServer

ROOT: Final = Path(__file__).parents[2]
LIMIT_S: Final = 900
COLUMNS: Final = (
    ("drain/s", "drain_per_s"),
    ("end to end/s", "end_to_end_per_s"),
    ("submit many/s", "submit_many_per_s"),
    ("submit one/s", "submit_one_per_s"),
    ("awaited/s", "rate"),
    ("result p50 ms", "result_ms.p50"),
    ("result p99 ms", "result_ms.p99"),
    ("50 urgent ms", "urgent_ms"),
    ("rerun s", "rerun_s"),
)


def measured(peer: str, url: str, tasks: int) -> dict[str, Any]:
    """Run the producer in the peer's environment; return all that it has found."""
    command = [python_of(peer), "-m", "benchmarks.compare.producer", peer, "--tasks", str(tasks)]
    env = os.environ | {URL_VARIABLE: url, "PYTHONPATH": str(ROOT)}
    producer = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
    try:
        printed, _ = producer.communicate(timeout=LIMIT_S)
    finally:
        producer.terminate()  # it ends its workers
        producer.wait()
    found: dict[str, Any] = {}
    for line in printed.splitlines():
        if line.startswith("{"):
            found |= json.loads(line)
    return found


def flat(found: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested figures under dotted names."""
    flattened: dict[str, Any] = {}
    for name, value in found.items():
        flattened |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value}
    return flattened


def medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure; of what is no number in every run, the first that is not."""
    merged: dict[str, Any] = {}
    for name in dict.fromkeys(name for run in runs for name in run):
        values = [run.get(name) for run in runs]
        numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
        words = [value for value in values if isinstance(value, str | bool)]
        merged[name] = words[0] if words else round(median(numbers), 2) if numbers else None
    return merged


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Return a table, and below it what its figures depend on; in brackets the ratio to Callboard."""
    own = figures.get("callboard", {})
    rows = [["", *(title for title, _ in COLUMNS)]]
    for peer, found in figures.items():
        rows.append([peer, *(_cell(found, own if peer != "callboard" else {}, name) for _, name in COLUMNS)])
    lines = ["| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]]]
    notes = [
        f"- {peer}: {found['settings']}; rerun after {found['lease']}"
        for peer, found in figures.items()
        if "lease" in found
    ]
    return "\n".join([*lines, "", "† has no way to submit many in one step", "", *notes])


def _cell(found: dict[str, Any], own: dict[str, Any], name: str) -> str:
    value, ours = found.get(name), own.get(name)
    if name == "urgent_ms" and name in found and value is None:
        return "no priorities"
    if not isinstance(value, int | float):
        return "failed" if value is None else str(value)
    shown = f"{value:,}"
    if name == "submit_many_per_s" and found.get("bulk") is False:
        shown += " †"
    if name == "rate":
        return shown
    return f"{shown} ({value / ours:.2f})" if isinstance(ours, int | float) and ours else shown


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all of them, in turn, as often as is asked for; each round has a server of its own."""
    runs: dict[str, list[dict[str, Any]]] = {peer: [] for peer in options.peers}
    for peer in options.peers:
        python_of(peer)
    kind, machine = "", about()
    for turn in range(options.runs):
        for peer in options.peers:
            with tempfile.TemporaryDirectory() as folder:
                server = EmbeddedServer(data_dir=Path(folder), port=0, persistence=options.persistence)
                async with server:
                    kind = server.kind
                    found = flat(await asyncio.to_thread(measured, peer, server.url, options.tasks))
            print(f"{turn + 1}. {peer}: {json.dumps(found)}", file=sys.stderr, flush=True)
            runs[peer].append(found)
    return {
        **machine,
        "server": kind,
        "persistence": options.persistence,
        "tasks": options.tasks,
        "runs": options.runs,
        "figures": {peer: medians(found) for peer, found in runs.items()},
    }


def main() -> None:
    """Parse the arguments, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", nargs="+", choices=peers(), default=peers(), metavar="PEER", help=", ".join(peers()))
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=1, help="the median of each figure is told")
    parser.add_argument("--persistence", choices=("none", "everysec", "always"), default="none")
    found = asyncio.run(run(parser.parse_args()))
    path = write("compare", found)
    print(table(found["figures"]))
    print(f"\nIn brackets: divided by Callboard's. Written to {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
