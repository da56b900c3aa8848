"""What the API tells whoever watches it. `metrics` implements this without being imported here."""

from typing import Final, Protocol


class ApiObserver(Protocol):
    """Told of each request when it has ended; must return at once and never raise. Durations in seconds."""

    def requested(self, route: str, method: str, status: int, seconds: float) -> None:
        """Take note that a request was answered; `route` is the path's template, or `other`."""

    def opened(self, difference: int) -> None:
        """Take note that so many more streams and waiting requests are open."""

    def dropped(self) -> None:
        """Take note that a stream was ended because its reader was too slow."""


class _Silent:
    def requested(self, route: str, method: str, status: int, seconds: float) -> None:
        pass

    def opened(self, difference: int) -> None:
        pass

    def dropped(self) -> None:
        pass


SILENT: Final[ApiObserver] = _Silent()
