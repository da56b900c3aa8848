"""A copy of the checkout, in which a test may change the program."""

import shutil
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
PACKAGES: Final = ("agent_runtime", "benchmarks", "bus", "callboard", "dispatcher", "metrics", "tests")


def copy_checkout(folder: Path) -> None:
    """Copy all that the tests and benchmarks run into `folder`; put that first on the path to use it."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", ".environments"))
    shutil.copy(ROOT / "pyproject.toml", folder)
