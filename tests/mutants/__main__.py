"""`python -m tests.mutants [WORD ...]`: break a copy of the program in each way, and see that its test goes red.

Words choose mutants by their names. The exit code is 1 if a test stayed green, or could not be run at all.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

from tests.mutants.catalogue import MUTANTS, Mutant
from tests.support.checkout import copy_checkout

TESTS_FAILED: Final = 1
"""The exit code of pytest when a test has failed; every other one means that something else is wrong."""


def main(words: list[str]) -> int:
    """Try the mutants whose names have all `words`; return the exit code."""
    chosen = [mutant for mutant in MUTANTS if all(word in mutant.name for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory(prefix="callboard-mutants-") as folder:
        copy = Path(folder)
        copy_checkout(copy)
        for mutant in chosen:
            began = time.monotonic()
            verdict = _try(mutant, copy)
            survivors += verdict != "noticed"
            _say(f"{verdict:<9} {time.monotonic() - began:5.1f} s  {mutant.name}  ({mutant.test})")
    _say(f"{len(chosen) - survivors} of {len(chosen)} mutants were noticed")
    return 1 if survivors else 0


def _try(mutant: Mutant, copy: Path) -> str:
    """Run the mutant's test in the broken copy, and repair the copy."""
    path = copy / mutant.file
    whole = path.read_text()
    if whole.count(mutant.old) != 1:
        return "OUTDATED"
    path.write_text(whole.replace(mutant.old, mutant.new))
    try:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", mutant.test]
        environment = os.environ | {"PYTHONPATH": str(copy)}
        ran = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, check=False)
    finally:
        path.write_text(whole)
    if ran.returncode == TESTS_FAILED:
        return "noticed"
    if ran.returncode:
        _say(ran.stdout[-2000:] + ran.stderr[-2000:])
        return "UNKNOWN"
    return "SURVIVED"


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
