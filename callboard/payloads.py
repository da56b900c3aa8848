"""Where the payloads of tasks come from: an argument, a file, or lines on stdin as they arrive."""

import asyncio
import os
import stat
from collections.abc import AsyncIterator
from contextlib import suppress
from json import JSONDecodeError, loads
from pathlib import Path
from typing import Any, Final

from callboard.failures import UsageError

_READ_BYTES: Final = 1 << 18


def parse(text: str | bytes, where: str) -> Any:  # noqa: ANN401 - JSON
    """Read one JSON document. Raises `UsageError`, which says where it is wrong."""
    try:
        return loads(text)
    except JSONDecodeError as error:
        line = f"line {error.lineno}, " if error.lineno > 1 else ""
        raise UsageError(f"{where} is not JSON: {error.msg} at {line}column {error.colno}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8: {error.reason} at byte {error.start + 1}") from None


def read_file(path: Path) -> bytes:
    """Return what a file holds. Raises `UsageError` if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}: check the path") from None


def open_file(path: Path | None) -> int:
    """Open a file for `json_lines`, or take stdin. Raises `UsageError` if it cannot be read."""
    if path is None:
        return os.dup(0)
    try:
        return os.open(path, os.O_RDONLY)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}: check the path") from None


async def json_lines(file: int) -> AsyncIterator[list[Any]]:
    """Yield the documents of newline-delimited JSON, all that have arrived at once; empty lines are left out.

    Raises `UsageError` for a line that is not JSON, when those before it have been yielded. Closes the file.
    """
    number = 0
    rest = b""
    try:
        while chunk := await _read(file):
            *lines, rest = (rest + chunk).split(b"\n")
            found, problem = _parse_lines(lines, number)
            number += len(lines)
            if found:
                yield found
            if problem is not None:
                raise problem
        if rest.strip():
            yield [parse(rest, f"line {number + 1}")]
    finally:
        os.close(file)


def _parse_lines(lines: list[bytes], before: int) -> tuple[list[Any], UsageError | None]:
    """Return the documents up to the first line that is wrong, and what is wrong with it."""
    found: list[Any] = []
    for number, line in enumerate(lines, before + 1):
        if line.strip():
            try:
                found.append(parse(line, f"line {number}"))
            except UsageError as error:
                return found, error
    return found, None


async def read_stdin() -> bytes:
    """Return all of stdin."""
    chunks = []
    file = open_file(None)
    try:
        while chunk := await _read(file):
            chunks.append(chunk)
    finally:
        os.close(file)
    return b"".join(chunks)


async def _read(file: int) -> bytes:
    """Read what there is, waiting in the loop and not in a thread, which Ctrl-C could not end."""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        loop = asyncio.get_running_loop()
        arrived = asyncio.Event()
        # Refused for what never makes one wait, such as /dev/null.
        with suppress(OSError):
            loop.add_reader(file, arrived.set)
            try:
                await arrived.wait()
            finally:
                loop.remove_reader(file)
    return os.read(file, _READ_BYTES)
