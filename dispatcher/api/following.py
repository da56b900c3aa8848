"""Following a feed from a position: catching up from the stream, then reading along, to the end of either side."""

from collections.abc import AsyncIterator, Callable

from bus.names import PoolNames
from dispatcher.api.feed import Behind, Event, EventId
from dispatcher.api.site import Site
from dispatcher.api.streams import HEARTBEAT, message

_BYE = message("bye", {"detail": "this process is being stopped: begin again behind the last id"})
_RETRY = b"retry: 1000\n\n"


async def follow(
    site: Site, names: PoolNames, position: EventId | None, wanted: Callable[[Event], bool]
) -> AsyncIterator[tuple[bytes, Event | None]]:
    """Yield pieces to send, each with the last event that is in it (None if none is), until `site` stops.

    `position` is the last event that is not wanted any more; None is the latest there is.
    """
    feed = site.feed(names)
    tip = await feed.start()
    yield _RETRY, None
    if position is None:
        position = tip
    else:
        lost = await feed.gap(position)
        if lost is not None:
            yield _gap(position, lost), None
            position = EventId(lost.ms, lost.seq, -1) if lost > position else tip
    following = False
    while not site.stopping.is_set():
        seen = feed.version
        try:
            events = feed.after(position)
            following = True
        except Behind:
            if following:
                site.observer.dropped()
                yield _dropped(position), None
                return
            events = await feed.stored(position)
            if not events:
                position = feed.floor  # nothing is kept between the two
                continue
        if not events:
            if not await feed.news(seen, site.settings.heartbeat.total_seconds()):
                yield HEARTBEAT, None
            continue
        position = events[-1].id
        found = [event for event in events if wanted(event)]
        if found:
            yield b"".join(message(event.kind, event.data, str(event.id)) for event in found), found[-1]
    yield _BYE, None


def _gap(position: EventId, lost: EventId) -> bytes:
    return message("gap", {"after": str(position), "first": str(lost), "detail": "events in between are not kept"})


def _dropped(position: EventId) -> bytes:
    detail = "the reader is too slow: begin again behind `after`, with fewer events"
    return message("dropped", {"after": str(position), "detail": detail})
