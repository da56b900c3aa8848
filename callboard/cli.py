"""The command `callboard`: which commands there are. Each lives in a module of its own, imported when it is called.

Nothing else may be imported here: `--help` must answer at once.
"""

import inspect
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, Parameter

from callboard.failures import tell

_COMMANDS: Final = (
    ("up", "Start a server, a dispatcher, the REST API and agents; Ctrl-C stops them all."),
    ("demo", "Watch a census of Python's standard library, with an agent killed half way."),
    ("dispatcher", "Run a dispatcher: it leads its pools, or stands by for them."),
    ("agent", "Run an agent, and start it anew when it crashes."),
    ("api", "Serve the REST API."),
    ("token", "Make, list and revoke tokens of the REST API."),
    ("submit", "Submit a task, or many; print ids, or wait for results."),
    ("tasks", "Look at tasks, fetch their results, cancel them."),
    ("dead", "Look at tasks that have failed, requeue and purge them."),
    ("agents", "Look at agents, pause, drain, restart and change them."),
    ("schedules", "Look at schedules, make, pause, trigger and delete them."),
    ("doctor", "Check a live pool against everything that must hold, explain, and repair."),
    ("acl", "Print rules for Redis' access control lists, a user for each role."),
    ("asyncapi", "Print the AsyncAPI document of everything that is said on the bus."),
    ("version", "Print the versions of Callboard and of what it runs on."),
)

_EPILOGUE: Final = (
    "The server is looked for at CALLBOARD_REDIS_URL, else where `callboard up` listens. "
    "A DURATION is written 500ms, 5s, 1m30s, 2h or 7d; a bare number is seconds."
)
_ALIASES: Final = {"--version": "version", "-V": "version", "help": "--help"}
"""What people try who know other programs."""


def build_app(called: str | None = None) -> App:
    """Return the command line's application; of the command that is called its own docstring is the help."""
    app = App(
        name="callboard",
        help="An asyncio message bus for agents on Redis Streams.",
        help_epilogue=_EPILOGUE,
        # Docstrings are Markdown, in which lines may be joined; what is above is not worth its import.
        help_format="markdown" if called in dict(_COMMANDS) else "plaintext",
        version_flags=(),
        help_on_error=False,
        result_action="return_value",
        default_parameter=Parameter(negative=()),
    )
    for place, (name, text) in enumerate(_COMMANDS):
        told = {} if name == called else {"help": text}
        app.command(f"callboard.commands.{name}:{name}", name=name, sort_key=place, **told)
    return app


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; whatever goes wrong is said in one line."""
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except BaseException as error:  # noqa: BLE001 - the border to the user
        return tell(error)


def _run(arguments: Sequence[str]) -> int:
    words = [_ALIASES.get(word, word) for word in arguments[:1]] + list(arguments[1:])
    command, bound, _ = build_app(words[0] if words else None).parse_args(words, exit_on_error=False, print_error=False)
    result = command(*bound.args, **bound.kwargs)
    if inspect.iscoroutine(result):
        import asyncio  # noqa: PLC0415 - half of the time that --help takes is spent on imports

        with asyncio.Runner() as runner:
            result = runner.run(result)
    sys.stdout.flush()
    return result if isinstance(result, int) else 0
