"""What a failed command says: one line on stderr that tells what to do, and an exit code. Never a traceback.

    UsageError    the command line is wrong (exit code 2)
    CommandError  anything else that stops a command and has words of its own (exit code 1)

Nothing slow is imported here: an error can only be one of pydantic's or redis-py's if the command has imported them.
"""

import os
import re
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cyclopts import CycloptsError

    from bus.embedded import EmbeddedServerError
    from bus.errors import QueueFullError

TRACEBACK_VARIABLE: Final = "CALLBOARD_TRACEBACK"

FAILED: Final = 1
USAGE: Final = 2
INTERRUPTED: Final = 128 + signal.SIGINT
PIPE_CLOSED: Final = 128 + signal.SIGPIPE

_LOG_STAMP: Final = re.compile(r"^\d+:\w \d\d \w+ \d{4} [\d:.]+ . ")
"""What each line in a server's log begins with."""
_DATA: Final = re.compile("append only file|AOF|RDB")
_SECRET: Final = re.compile(r"(?<=://)[^/@\s]*@")


class CommandError(Exception):
    """Stops a command; the text says what to do."""


class UsageError(CommandError):
    """The command line is wrong; the text says what to write instead."""


def without_secrets(text: str) -> str:
    """Return `text` with the user and password of every URL in it hidden."""
    return _SECRET.sub("***@", text)


def one_line(text: str) -> str:
    """Return `text` as it may be shown: on one line, no secrets in it."""
    return without_secrets(" ".join(text.split()))


def tell(error: BaseException) -> int:
    """Say on stderr what stopped the command, and return the exit code. Ctrl-C and a closed pipe say nothing."""
    error = _first(error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else FAILED
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return _pipe_closed()
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)
    try:
        if isinstance(error, ImportError):
            raise error  # what explains errors may be just what is broken
        code, text = _explain(error)
    except ImportError as broken:
        code, text = FAILED, _words_of_broken_installation(broken)
    sys.stderr.write(f"callboard: {one_line(text)}\n")
    return code


def _first(error: BaseException) -> BaseException:
    """Return the first error of a task group's, which is the one that stopped the others."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _pipe_closed() -> int:
    """Let nothing complain when Python flushes stdout at its end: whoever read it is gone."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED


def _explain(error: BaseException) -> tuple[int, str]:
    from cyclopts import CycloptsError  # noqa: PLC0415 - child processes do without it

    from bus.embedded import EmbeddedServerError  # noqa: PLC0415 - slow, and only a failure needs it
    from bus.errors import (  # noqa: PLC0415 - the same
        AgentRequestError,
        CallboardError,
        QueueFullError,
        RequirementSyntaxError,
        ScheduleError,
        SubmissionError,
    )
    from metrics.exposition import PortTakenError  # noqa: PLC0415 - the same

    if isinstance(error, CycloptsError):
        return USAGE, _words_of_wrong_argument(error)
    if isinstance(error, QueueFullError):
        return FAILED, words_of_full_queue(error)
    wrong = isinstance(error, UsageError | SubmissionError | ScheduleError | AgentRequestError | RequirementSyntaxError)
    if wrong:
        return USAGE, str(error)
    if isinstance(error, EmbeddedServerError):
        return FAILED, _words_of_embedded_server(error)
    if isinstance(error, CommandError | CallboardError | PortTakenError):
        return FAILED, str(error)
    return _explain_libraries(error)


def words_of_full_queue(error: "QueueFullError") -> str:
    """Name the option by which the command line waits, which the library does not know."""
    return f"{error.problem}: submit it again later, or let `--wait-for-room 1m` do that"


def _words_of_broken_installation(error: ImportError) -> str:
    while isinstance(error.__cause__, ImportError):
        error = error.__cause__
    return f"a part of this installation cannot be imported ({error}): install Callboard anew"


def _words_of_embedded_server(error: "EmbeddedServerError") -> str:
    """Add the options of the commands that start one, of which the library knows nothing."""
    from bus.embedded import DataDirInUseError, PortInUseError, ServerStartError  # noqa: PLC0415 - imported by now

    match error:
        case PortInUseError():
            return f"{error} by --redis-port"
        case DataDirInUseError():
            return f"{error} by --data-dir"
        case ServerStartError():
            lines = [_LOG_STAMP.sub("", line) for line in error.last_lines.splitlines()] or [""]
            if _DATA.search(lines[-1]):
                # What the server itself proposes would cut the data off.
                return (
                    f"the server cannot read the data in {error.log.parent}, which another or a newer one has written: "
                    "start that one, or choose another data directory by --data-dir"
                )
            return f"the server {error.what} ({lines[-1]}): see {error.log}"
        case _:
            return str(error)


def _words_of_wrong_argument(error: "CycloptsError") -> str:
    # Imported by now.
    from cyclopts import MissingArgumentError, UnknownCommandError, UnusedCliTokensError  # noqa: PLC0415

    error.verbose = False
    command = " ".join(("callboard", *(error.command_chain or ())))
    remedy = f"`{command} --help` shows what it takes"
    if isinstance(error, UnknownCommandError):
        # Its own text imports every command there is to find a similar name.
        name = (error.unused_tokens or ["?"])[0]
        return f"no command {name!r}: {remedy}"
    if isinstance(error, UnusedCliTokensError):
        return f"{', '.join(map(repr, error.unused_tokens or ()))} is one argument too many: {remedy}"
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.keyword or error.argument.name
        return f"{name} {'lacks its value' if name.startswith('-') else 'is missing'}: {remedy}"
    return f"{str(error).strip().rstrip('.')}: {remedy}"


def _explain_libraries(error: BaseException) -> tuple[int, str]:
    """Put an error of pydantic's, redis-py's or the system's into words."""
    from pydantic import ValidationError  # noqa: PLC0415 - slow
    from pydantic_settings import SettingsError  # noqa: PLC0415 - slow
    from redis import RedisError  # noqa: PLC0415 - slow

    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        text = problem["msg"].removeprefix("Value error, ")
        prefix = "CALLBOARD_API_" if error.title == "ApiSettings" else "CALLBOARD_"
        variable = f" (option, or {prefix}{where.partition('.')[0].upper()})" if where else ""
        return USAGE, f"{where}{variable}: {text}" if where else text
    if isinstance(error, SettingsError):
        return USAGE, f"{error}: correct that CALLBOARD_ variable"
    if isinstance(error, RedisError):
        return FAILED, f"the Redis server refused: {error}: check CALLBOARD_REDIS_URL and the rights of its user"
    if isinstance(error, OSError):
        # A time that ran out is one of the system's errors, too, and often has no words.
        return FAILED, f"{_words_of_system(error)}: check the path, the address and your rights"
    text = f"unexpected {type(error).__name__}: {error}: set {TRACEBACK_VARIABLE}=1 and run it again to see where"
    return FAILED, text


def _words_of_system(error: OSError) -> str:
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return error.strerror or str(error) or "it took too long"
