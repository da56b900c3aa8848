"""`python -m tests.compiled [ARGUMENT ...]`: compile the core in a copy of the checkout, and run Python there.

Without arguments it runs the tests of the core and the simulation; with ``-m benchmarks.throughput``, say, that. The
exit code is that of what was run. Compiling takes two minutes, and needs a C compiler.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from hatch_build import compiled
from tests.support.checkout import ROOT, copy_checkout

TESTS: Final = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/dispatcher/core", "tests/simulation")


def main(arguments: list[str]) -> int:
    """Compile and run; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="callboard-compiled-") as folder:
        build, copy = Path(folder, "build"), Path(folder, "copy")
        copy.mkdir()
        copy_checkout(copy)
        for library in compiled(ROOT, build):
            shutil.copy(library, copy / library.relative_to(build))
        command = [sys.executable, *(arguments or TESTS)]
        return subprocess.run(command, cwd=copy, env=os.environ | {"PYTHONPATH": str(copy)}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
