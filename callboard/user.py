"""Who sits at the keyboard: named with what they ask for."""

from getpass import getuser
from typing import Annotated

from cyclopts import Parameter

By = Annotated[str | None, Parameter(help="Who wants it; else your name on this machine.")]


def user() -> str:
    """Return the user's name on this machine; empty if the machine has none for it."""
    try:
        return getuser()
    except (KeyError, OSError):  # a container whose user is a mere number
        return ""
