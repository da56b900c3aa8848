"""What an agent over HTTP offers: what it says, with what operators have changed of it.

An agent of the runtime applies such changes itself; for one that speaks HTTP it is done here, when it registers: told
of an update it only has to register again.
"""

from typing import Any

from bus.messages import Register
from bus.overrides import Overrides
from dispatcher.api.mailbox import Standing


def overridden(said: Register, standing: Standing | None) -> Register:
    """Return a registration with the operators' changes made, which it confirms; `standing` is the agent's so far."""
    if standing is None or standing.update is None:
        return said
    overrides = standing.wanted or standing.overrides
    if overrides is None:
        return said
    fields: dict[str, Any] = {"update": standing.update.number}
    left = tuple(spec for spec in said.capabilities if spec.name not in overrides.disabled)
    if not left:
        # Nothing is made of it then: an agent without capabilities is none.
        return said.model_copy(
            update=fields | {"update_error": "nothing would be left that it can do: pause it instead"}
        )
    return said.model_copy(update=fields | _changed(said, overrides) | {"capabilities": left})


def _changed(said: Register, overrides: Overrides) -> dict[str, Any]:
    kept = {name: value for name, value in said.attributes.items() if name not in overrides.without}
    changed: dict[str, Any] = {"attributes": {**kept, **overrides.attributes}}
    if overrides.slots is not None:
        changed["slots"] = overrides.slots
    return changed
