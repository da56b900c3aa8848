"""The FastStream application of one pool, for whoever wants to know what is said on the bus.

It has the subscribers that a leader reads through, and as publishers the streams that a leader writes; `callboard
asyncapi` prints its document. A dispatcher process does not run it: `FastStream` would start every subscriber at once,
whether or not this process leads, and end the process when a consumer group is lost (see `dispatcher.intake`).
"""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from faststream import FastStream
from faststream.redis import StreamSub
from faststream.specification import AsyncAPI

from bus.broker import make_broker
from bus.connection import connect
from bus.ids import DEFAULT_POOL, check_pool
from bus.messages import Assignment, Control, EventBatch, Reply
from bus.names import DISPATCHERS_GROUP, PoolNames
from dispatcher.decoding import Batch
from dispatcher.intake import Intake
from dispatcher.pool import topics

if TYPE_CHECKING:
    from pydantic import BaseModel

_DESCRIPTION: Final = """\
Every message is plain JSON in the field `__data__` of a stream entry, so any language can take part with XADD and
XREAD. Messages carry a version `v`; unknown fields are ignored. Streams named with `{agent_id}` or `{client_id}` exist
once per agent or client. Agents and clients write to the streams that the leader receives from, and read those that it
sends to.
"""


async def _nobody(batch: Batch[Any]) -> None:
    raise RuntimeError(f"the application that documents the bus does not read {batch.topic.name}")


def build_app(pool: str = DEFAULT_POOL) -> FastStream:
    """Return the application of `pool`. Nothing is connected; `app.schema` makes the AsyncAPI document."""
    names = PoolNames(check_pool(pool))
    broker = make_broker()
    intake = Intake(
        broker,
        connect(name="callboard-asyncapi"),
        topics(names),
        group=DISPATCHERS_GROUP,
        consumer="leader",
        sink=_nobody,
    )
    written: tuple[tuple[str, str, type[BaseModel]], ...] = (
        ("assignments", f"{names.root}agent:{{agent_id}}:assignments", Assignment),
        ("control", f"{names.root}agent:{{agent_id}}:control", Control),
        ("replies", f"{names.root}client:{{client_id}}:replies", Reply),
        ("events", names.events, EventBatch),
    )
    for title, stream, model in written:
        broker.publisher(stream=StreamSub(stream), title=title, description=model.__doc__, schema=model)
    broker.context.set_global("intake", intake)  # FastStream itself holds its subscribers weakly
    return FastStream(
        broker,
        specification=AsyncAPI(title="Callboard", version=version("callboard"), description=_DESCRIPTION),
    )
