"""An environment for each program that is compared, made by pip from its requirements when they have changed.

They are in a folder that git ignores. pip asks the index that it is configured for.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).parent
FOLDER: Final = HERE / ".environments"
REQUIREMENTS: Final = HERE / "requirements"


def peers() -> list[str]:
    """Return the names of all programs, Callboard first."""
    return ["callboard", *sorted(path.stem for path in REQUIREMENTS.glob("*.txt"))]


def python_of(peer: str) -> str:
    """Return the interpreter of its environment, which is made first if it must be."""
    if peer == "callboard":
        return sys.executable
    wanted = REQUIREMENTS / f"{peer}.txt"
    python, stamp = FOLDER / peer / "bin" / "python", FOLDER / peer / "requirements.txt"
    if not stamp.exists() or stamp.read_text() != wanted.read_text():
        print(f"making the environment of {peer}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", FOLDER / peer], check=True)  # noqa: S603
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run([python, "-m", "pip", "install", *quiet, "-r", wanted], check=True)  # noqa: S603
        stamp.write_text(wanted.read_text())
    return str(python)
