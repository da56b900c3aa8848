"""What an agent offers now: what its object says, what its author changed at run time, what operators changed.

Later layers win: operators over the author, the author over the object. A change that cannot be registered raises, or
is answered with its error, and changes nothing.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import PydanticSerializationError

from agent_runtime.agent import Agent
from agent_runtime.definition import read_acceptance, refuse_id
from agent_runtime.errors import AgentDefinitionError
from bus.messages import CapabilitySpec, Register
from bus.overrides import Overrides
from bus.requirements import Clause, Value

UPDATE: Final = "update_capabilities"


@dataclass(frozen=True)
class Changes:
    """What the author has changed since the agent was started. An attribute that is None is one it has no more."""

    withdrawn: frozenset[str] = frozenset()
    """By `name version`."""
    attributes: Mapping[str, Value | None] = field(default_factory=dict)
    of: Mapping[str, Mapping[str, Value | None]] = field(default_factory=dict)
    """Attributes of single capabilities, by `name version`."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """Other fields of the registration."""


class Offer:
    """Used from the event loop only. `describe` returns what the object says of itself, as a registration."""

    def __init__(self, agent: Agent, describe: Callable[[], Register]) -> None:
        self._where = f"{type(agent).__qualname__}.{UPDATE}"
        self._agent = agent
        self._describe = describe
        self._known = {key: capability.spec for key, (_, capability) in agent.capabilities.items()}
        self._changes = Changes()
        self._overrides: Overrides | None = None
        self._revision = 0
        self.update = 0
        """Number of the last change by operators that was heard of."""
        self._error: str | None = None
        self.message = self._composed(self._changes, self._overrides, self._revision)
        """The registration that says all of it."""

    @property
    def withdrawn(self) -> frozenset[str]:
        """Capabilities that are not offered now, by `name version`."""
        offered = {f"{spec.name} {spec.version}" for spec in self.message.capabilities}
        return frozenset(self._known.keys() - offered)

    def refresh(self) -> None:
        """Read the object again: `on_start` may have changed what it says. Raises `AgentDefinitionError`."""
        self.message = self._composed(self._changes, self._overrides, self._revision)

    def change(
        self,
        *,
        add: str | Iterable[str] = (),
        remove: str | Iterable[str] = (),
        attributes: Mapping[str, Value | None] | None = None,
        capability: str | None = None,
        slots: int | None = None,
        rate: str | None = None,
        accepts: object = None,
    ) -> None:
        """Make a change of the author's, see `Agent.update_capabilities`. Raises `AgentDefinitionError`."""
        before = self._changes
        refuse_id(self._where, attributes or ())
        withdrawn = (before.withdrawn | self._keys(remove)) - self._keys(add)
        changes = replace(before, withdrawn=withdrawn)
        if attributes and capability is None:
            changes = replace(changes, attributes={**before.attributes, **attributes})
        elif attributes and capability is not None:
            new = {key: {**before.of.get(key, {}), **attributes} for key in self._keys(capability)}
            changes = replace(changes, of={**before.of, **new})
        rest: dict[str, Any] = {}
        if slots is not None:
            rest["slots"] = slots
        if rate is not None:
            rest["rate"] = rate or None
        if accepts is not None:
            rest["accepts"] = self._acceptance(accepts)
        self._take(replace(changes, rest={**before.rest, **rest}), self._overrides)

    def override(self, number: int, overrides: Overrides) -> None:
        """Make the changes that operators want, instead of earlier ones; an error is told by the registration."""
        if number <= self.update:
            return
        self.update, self._error = number, None
        try:
            self._take(self._changes, overrides)
        except AgentDefinitionError as error:
            self._error = f"{error.problem}: {error.remedy}"[:1000]
            self._take(self._changes, self._overrides)

    def _take(self, changes: Changes, overrides: Overrides | None) -> None:
        self.message = self._composed(changes, overrides, self._revision + 1)
        self._changes, self._overrides = changes, overrides
        self._revision += 1

    def _composed(self, changes: Changes, overrides: Overrides | None, revision: int) -> Register:
        said = self._describe()
        if not revision:
            return said
        fields = self._fields(said, changes, overrides or Overrides())
        fields |= {"revision": revision, "update": self.update, "update_error": self._error}
        try:
            return Register.model_validate_json(said.model_copy(update=fields).model_dump_json(warnings=False))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            part = ".".join(str(step) for step in first["loc"]) or "description"
            raise AgentDefinitionError(self._where, f"its {part} cannot be registered", first["msg"]) from None
        except PydanticSerializationError as error:
            raise AgentDefinitionError(self._where, f"it cannot be registered ({error})", "give plain values") from None

    def _fields(self, said: Register, changes: Changes, overrides: Overrides) -> dict[str, Any]:
        capabilities = [
            self._spec(key, spec, changes)
            for key, spec in self._known.items()
            if key not in changes.withdrawn and spec.name not in overrides.disabled
        ]
        if not capabilities:
            raise AgentDefinitionError(self._where, "nothing would be left that it can do", "pause it, or stop it")
        attributes = _merged(said.attributes, changes.attributes)
        attributes = {name: value for name, value in attributes.items() if name not in overrides.without}
        return {
            "capabilities": capabilities,
            **changes.rest,
            "attributes": {**attributes, **overrides.attributes},
            **({} if overrides.slots is None else {"slots": overrides.slots}),
        }

    @staticmethod
    def _spec(key: str, spec: CapabilitySpec, changes: Changes) -> CapabilitySpec:
        changed = changes.of.get(key)
        return spec if not changed else spec.model_copy(update={"attributes": _merged(spec.attributes, changed)})

    def _acceptance(self, accepts: object) -> tuple[Clause, ...]:
        return read_acceptance(type(self._agent), accepts)

    def _keys(self, named: str | Iterable[str]) -> frozenset[str]:
        """Return the `name version` of each capability that is named so, or by its name alone."""
        found: set[str] = set()
        for name in (named,) if isinstance(named, str) else named:
            keys = {key for key, spec in self._known.items() if name in (key, spec.name)}
            if not keys:
                known = ", ".join(repr(key) for key in self._known)
                raise AgentDefinitionError(
                    self._where, f"{name!r} is none of its capabilities", f"it has {known}: name one of these"
                )
            found |= keys
        return frozenset(found)


def _merged(before: Mapping[str, Value], changed: Mapping[str, Value | None]) -> dict[str, Value]:
    return {name: value for name, value in {**before, **changed}.items() if value is not None}
