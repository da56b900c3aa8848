"""Options that several commands share, and the forms in which they are written."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from cyclopts import Parameter, Token
from cyclopts.validators import Number

from bus.durations import seconds
from callboard.failures import UsageError
from callboard.logs import Level, set_up

PORT_RANGE: Final = Number(gte=0, lte=65_535)


def _to_seconds(_: Any, tokens: list[Token]) -> float:  # noqa: ANN401 - the target type, as cyclopts hands it over
    return seconds(tokens[0].value)


def _to_duration(_: Any, tokens: list[Token]) -> timedelta:  # noqa: ANN401 - the same
    return timedelta(seconds=seconds(tokens[0].value))


Seconds = Annotated[float, Parameter(converter=_to_seconds, n_tokens=1, metavar="DURATION")]
Duration = Annotated[timedelta, Parameter(converter=_to_duration, n_tokens=1, metavar="DURATION")]

Flag = Annotated[bool, Parameter(show_default=False)]
RedisUrl = Annotated[
    str | None,
    Parameter(metavar="URL", help="The server's URL; else CALLBOARD_REDIS_URL, else where `callboard up` listens."),
]
AsJson = Annotated[Flag, Parameter(name="--json", help="Print JSON, for programs.")]


@Parameter(name="*")
@dataclass(frozen=True)
class LogOptions:
    """How a process logs to stderr."""

    log_level: Annotated[Level, Parameter(help="What is worth a line.")] = "info"
    log_json: Annotated[Flag, Parameter(help="Log JSON lines.")] = False

    def set_up(self) -> None:
        """Begin to log."""
        set_up(self.log_level, as_json=self.log_json)

    def arguments(self) -> list[str]:
        """Return the arguments that make a child process log in the same way."""
        return ["--log-level", self.log_level, *(["--log-json"] if self.log_json else [])]


LOG_DEFAULTS: Final = LogOptions()


def name_and_value(text: str, example: str = "--metadata owner=me") -> tuple[str, str]:
    """Split `name=value`. Raises `UsageError`."""
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise UsageError(f"{text!r} is not name=value: write e.g. {example}")
    return name, value


def given(**options: Any) -> dict[str, Any]:
    """Return those options that were given: settings take the others from the environment."""
    return {name: value for name, value in options.items() if value is not None}
