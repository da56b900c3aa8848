"""`python -m tests.chaos --minutes N --seed S`: a chaos run; exit code 1 if any promise was broken."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run


def main() -> int:
    """Run as the command line says; print seed, strikes and findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--keep", type=Path, help="folder for the evidence, which must not exist; else a temporary one")
    options = parser.parse_args()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = options.keep or Path(tempfile.mkdtemp(prefix=f"callboard-chaos-{seed}-")) / "run"
    report = asyncio.run(run(folder, seed=seed, minutes=options.minutes, agents=options.agents, say=_say))
    for line in report.lines():
        _say(line)
    return 1 if report.findings else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
