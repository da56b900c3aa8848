"""Who sits at the keyboard: named with what they ask for."""

from getpass import getuser


def user() -> str:
    """Return the user's name on this machine; empty if the machine has none for it."""
    try:
        return getuser()
    except (KeyError, OSError):  # a container whose user is a mere number
        return ""
