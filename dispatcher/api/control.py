"""What of its control stream an HTTP agent is to be told by a heartbeat: pure, so that any process tells the same.

The stream holds what the leader has said; nobody notes what was read. What is told again and what is not follows from
what the heartbeat says: how far it has read, which attempts it holds, which instructions it heeds.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bus.messages import (
    CancelAttempt,
    ChangeOffer,
    Instruction,
    RecallAttempt,
    Registered,
    Reregister,
    Superseded,
)
from dispatcher.api.schemas.agent_work import ControlMessage

Said = Registered | Reregister | Superseded | CancelAttempt | RecallAttempt | Instruction | ChangeOffer


@dataclass(frozen=True, slots=True)
class Known:
    """What a heartbeat says that its agent knows."""

    holding: Collection[tuple[str, int]] | None
    """The attempts that it holds; None: what it may hold is not to be looked at."""
    heeded: int
    updated: int
    """Number of the last change of its offer that its registration has confirmed."""


def to_be_told(said: Sequence[Said], known: Known) -> list[ControlMessage]:
    """Return what of `said`, the messages to one session in their order, its agent has yet to heed.

    Of instructions and changes only the latest counts; a request to register is over with the next registration.
    """
    told: list[ControlMessage] = []
    instruction: Instruction | None = None
    change: ChangeOffer | None = None
    register = False
    stops: dict[tuple[str, str, int], ControlMessage] = {}
    for one in said:
        match one:
            case CancelAttempt() | RecallAttempt():
                if known.holding is None or (one.task_id, one.attempt) in known.holding:
                    stops[one.type, one.task_id, one.attempt] = _stop(one)
            case Instruction() if one.number > known.heeded:
                instruction = one
            case ChangeOffer() if one.number > known.updated:
                change = one
            case Registered() | Reregister():
                register = isinstance(one, Reregister)
            case _:
                pass
    told += stops.values()
    if register:
        told.append(ControlMessage(type="register"))
    if change is not None:
        told.append(ControlMessage(type="update", number=change.number, overrides=change.overrides))
    if instruction is not None:
        told.append(
            ControlMessage(
                type=instruction.type,
                number=instruction.number,
                within=instruction.within,
                reason=instruction.reason or None,
            )
        )
    return told


def _stop(one: CancelAttempt | RecallAttempt) -> ControlMessage:
    if isinstance(one, RecallAttempt):
        return ControlMessage(type="recall", task_id=one.task_id, attempt=one.attempt)
    return ControlMessage(
        type="cancel",
        task_id=one.task_id,
        attempt=one.attempt,
        grace=one.grace,
        confirm=one.confirm,
        reason=one.reason or None,
    )
