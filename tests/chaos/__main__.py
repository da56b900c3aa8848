"""`python -m tests.chaos --minutes N --seed S`: a chaos run.

The exit code is 1 if any promise was broken, and 2 if none was, though a kind of fault struck too seldom.
"""

import argparse
import asyncio
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.chaos.run import run
from tests.chaos.server_faults import OF_ITS_DATA

ALONE = "CALLBOARD_CHAOS_ALONE"


def main() -> int:
    """Run as the command line says; print seed, strikes and findings."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--agents", type=int, default=4)
    parser.add_argument("--tasks", type=int, help="how many are submitted, about; else 5,500 a minute")
    parser.add_argument("--losing", choices=sorted(OF_ITS_DATA), help="let the server lose its data, too")
    parser.add_argument("--keep", type=Path, help="folder for the evidence, which must not exist; else a temporary one")
    options = parser.parse_args()
    _mount_for_ourselves_only()
    seed = secrets.randbelow(1_000_000) if options.seed is None else options.seed
    folder = options.keep or Path(tempfile.mkdtemp(prefix=f"callboard-chaos-{seed}-")) / "run"
    about = {name: getattr(options, name) for name in ("minutes", "agents", "tasks")}
    report = asyncio.run(run(folder, seed=seed, losing=OF_ITS_DATA.get(options.losing), say=_say, **about))
    for line in report.lines():
        _say(line)
    return 1 if report.findings else 2 if report.shortfalls() else 0


def _mount_for_ourselves_only() -> None:
    """Go on in a namespace of mounts of our own, if we may: it ends with us, however we end, and with it our disks."""
    program = shutil.which("unshare")
    alone = (str(program), "--mount")
    if ALONE in os.environ or program is None:
        return
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode == 0:
        os.environ[ALONE] = "1"
        os.execv(program, [*alone, sys.executable, "-m", "tests.chaos", *sys.argv[1:]])  # noqa: S606


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
