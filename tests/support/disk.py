"""A disk of its own for a server, that may be filled to the last byte: a tmpfs, which only root may mount."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_BALLAST: Final = "ballast"
_CHUNK: Final = 1 << 20


class NoDiskError(Exception):
    """A disk cannot be mounted here; the text says why."""


@contextmanager
def disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """Have a disk of so many megabytes at `folder` while the block runs; its files are gone afterwards.

    Raises `NoDiskError` where mounting is not permitted.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _command("mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "callboard-test", str(folder))
    try:
        yield folder
    finally:
        # Lazily: what is killed at the end of a test may still have files open there for a moment.
        _command("umount", "-l", str(folder))


def fill(folder: Path) -> None:
    """Fill the disk at `folder` until not one byte more can be written."""
    file = os.open(folder / _BALLAST, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    chunk = bytes(_CHUNK)
    try:
        while chunk:
            try:
                os.write(file, chunk)
            except OSError:
                chunk = chunk[: len(chunk) // 2]
    finally:
        os.close(file)


def give_back(folder: Path) -> None:
    """Free what `fill` took."""
    (folder / _BALLAST).unlink(missing_ok=True)


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
    except FileNotFoundError as error:
        raise NoDiskError(str(error)) from error
    if done.returncode:
        raise NoDiskError(f"{' '.join(words)}: {done.stderr.strip()}")
