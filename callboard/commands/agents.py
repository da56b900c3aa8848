"""`callboard agents`: look at agents, pause, drain, restart and change them."""

from collections.abc import Mapping
from dataclasses import dataclass
from json import JSONDecodeError, loads
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from bus.agent_requests import AgentRequest, RequestState
from bus.client import Client
from bus.messages import CapabilitySpec
from bus.records import AgentInfo
from bus.requirement_text import format_clause
from callboard.agent_words import (
    override_rows,
    pause_words,
    request_words,
    resource_words,
    shut_words,
    slots_words,
    standing,
)
from callboard.connecting import connected
from callboard.failures import UsageError
from callboard.labels import is_internal
from callboard.moments import moment
from callboard.options import AsJson, Flag, RedisUrl, Seconds, name_and_value
from callboard.output import json_text, print_json, print_line, print_rows, print_table
from callboard.user import user

agents = App(name="agents", help="Look at agents, pause, drain, restart and change them.", result_action="return_value")

_AgentId = Annotated[str, Parameter(help="Id of the agent.")]
_Pool = Annotated[str | None, Parameter(help="The agent's pool.")]
_Texts = list[str] | None


@Parameter(name="*")
@dataclass(frozen=True)
class AskOptions:
    """How something is asked of an agent."""

    by: Annotated[str | None, Parameter(help="Who asks; else the name of the user.")] = None
    wait: Annotated[Flag, Parameter(help="Until it is done, refused or overdue; the exit code is 0 if it is done.")] = (
        False
    )
    pool: _Pool = None
    redis_url: RedisUrl = None
    json: AsJson = False

    @property
    def who(self) -> str:
        """Return who asks."""
        return user() if self.by is None else self.by


_ASK = AskOptions()
_Reason = Annotated[str, Parameter(help="Kept with the request, and passed on to the agent.")]
_Deadline = Annotated[
    Seconds | None, Parameter(help="After so long, tasks that still run are stopped and given to others.")
]


@agents.command(name="list")
async def list_agents(*, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """List every agent that the pool knows."""
    async with connected(redis_url, pool) as bus:
        found = sorted(await bus.agents(), key=lambda info: info.agent_id)
    if json:
        print_json(found)
        return 0
    asked = {info.agent_id: words for info in found if (words := standing(info))}
    columns = ("id", "status", "health", "slots", "completed", "failed", "capabilities")
    print_table(
        (*columns[:3], "asked of it", *columns[3:]) if asked else columns,
        (_row(info, asked) for info in found),
        spare=("failed", "completed"),
        caption="" if found else "no agents: start one with `callboard agent module:Class`",
    )
    return 0


def _row(info: AgentInfo, asked: Mapping[str, str]) -> tuple[object, ...]:
    load = info.workload
    done = ("", "") if load is None else (load.completed, load.failed)
    told = (asked.get(info.agent_id, ""),) if asked else ()
    return info.agent_id, info.status, info.health, *told, slots_words(info), *done, _names(info)


def _names(info: AgentInfo) -> str:
    return ", ".join(f"{spec.name} (shut off)" if spec.name in info.shut else spec.name for spec in info.capabilities)


@agents.command
async def get(agent_id: _AgentId, /, *, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """Show everything that is known of an agent."""
    async with connected(redis_url, pool) as bus:
        info = await bus.agent(agent_id)
    if json:
        print_json(info)
        return 0
    load = info.workload
    rows: list[tuple[str, object]] = [
        ("status", info.status),
        ("reason", info.reason),
        ("paused", None if info.pause is None else pause_words(info.pause)),
        ("request", None if info.request is None else request_words(info.request)),
        ("update", None if info.update is None else request_words(info.update)),
        ("health", info.health),
        ("slots", slots_words(info)),
        ("resources", resource_words(info)),
        ("rate", info.rate),
        ("completed", None if load is None else load.completed),
        ("failed", None if load is None else load.failed),
        ("session", info.session),
        ("signed in", moment(info.registered_at)),
        ("heartbeat", f"each {info.heartbeat_interval:g} s, lost after {info.lease:g} s"),
        *((f"attribute {name}", json_text(value)) for name, value in info.attributes.items()),
        *(override_rows(info.overrides) if info.overrides is not None else ()),
        ("accepts", ", ".join(map(format_clause, info.accepts)) or None),
        *((name, value) for name, value in info.metadata.items() if not is_internal(name)),
        *((f"capability {spec.name}", _capability(info, spec)) for spec in info.capabilities),
    ]
    print_rows(f"agent {info.agent_id}", rows)
    return 0


def _capability(info: AgentInfo, spec: CapabilitySpec) -> str:
    until = info.shut.get(spec.name)
    return f"{spec.version} {json_text(spec.attributes)}" + ("" if until is None else f": {shut_words(until)}")


@agents.command
async def pause(
    agent_id: _AgentId,
    /,
    *,
    note: Annotated[str, Parameter(help="What for: shown wherever tasks wait because of it.")] = "",
    for_: Annotated[Seconds | None, Parameter(name="--for", help="Resume it by itself after so long.")] = None,
    ask: AskOptions = _ASK,
) -> int:
    """Give an agent nothing new. It keeps what runs; what it has not begun goes to others."""
    async with connected(ask.redis_url, ask.pool) as bus:
        request = await bus.pause_agent(agent_id, note, for_=for_, by=ask.who)
        return await _asked(bus, agent_id, "pause", request, ask)


@agents.command
async def resume(agent_id: _AgentId, /, *, reason: _Reason = "", ask: AskOptions = _ASK) -> int:
    """Give an agent work again: ends a pause, and a drain or restart that has not ended its process yet."""
    async with connected(ask.redis_url, ask.pool) as bus:
        request = await bus.resume_agent(agent_id, reason, by=ask.who)
        return await _asked(bus, agent_id, "resume", request, ask)


@agents.command
async def drain(
    agent_id: _AgentId, /, *, reason: _Reason = "", deadline: _Deadline = None, ask: AskOptions = _ASK
) -> int:
    """Ask an agent to finish what it has, take nothing new, and stop."""
    async with connected(ask.redis_url, ask.pool) as bus:
        request = await bus.drain_agent(agent_id, reason, deadline=deadline, by=ask.who)
        return await _asked(bus, agent_id, "drain", request, ask)


@agents.command
async def restart(
    agent_id: _AgentId, /, *, reason: _Reason = "", deadline: _Deadline = None, ask: AskOptions = _ASK
) -> int:
    """Ask an agent to finish what it has and start anew."""
    async with connected(ask.redis_url, ask.pool) as bus:
        request = await bus.restart_agent(agent_id, reason, deadline=deadline, by=ask.who)
        return await _asked(bus, agent_id, "restart", request, ask)


@agents.command
async def update(  # noqa: PLR0913 - one per option
    agent_id: _AgentId,
    /,
    *,
    attribute: Annotated[
        _Texts, Parameter(metavar="NAME=VALUE", help="""Set it, e.g. region=eu or models='["a", "b"]'.""")
    ] = None,
    remove_attribute: Annotated[_Texts, Parameter(metavar="NAME", help="Let the agent not have it.")] = None,
    disable: Annotated[_Texts, Parameter(metavar="CAPABILITY", help="Give it nothing of this any more.")] = None,
    enable: Annotated[_Texts, Parameter(metavar="CAPABILITY", help="Take back that it was disabled.")] = None,
    slots: Annotated[int | None, Parameter(validator=Number(gte=1, lte=100_000), help="Tasks at once.")] = None,
    reset: Annotated[Flag, Parameter(help="Take back all that was changed before.")] = False,
    reason: _Reason = "",
    ask: AskOptions = _ASK,
) -> int:
    """Change what an agent offers, while it runs and in its next sessions; each option may be repeated."""
    if slots is None and not (attribute or remove_attribute or disable or enable or reset):
        raise UsageError("nothing is to be changed: give --attribute, --disable, --slots or another of its options")
    async with connected(ask.redis_url, ask.pool) as bus:
        request = await bus.update_agent(
            agent_id,
            attributes=dict(_attribute(text) for text in attribute or ()),
            remove_attributes=remove_attribute or (),
            disable=disable or (),
            enable=enable or (),
            slots=slots,
            reset=reset,
            reason=reason,
            by=ask.who,
        )
        return await _asked(bus, agent_id, "update", request, ask)


def _attribute(text: str) -> tuple[str, Any]:
    """Split `name=value`; the value is JSON, or else the text itself."""
    name, value = name_and_value(text, "--attribute region=eu")
    try:
        return name, loads(value)
    except JSONDecodeError:
        return name, value


async def _asked(bus: Client, agent_id: str, command: str, request: str, ask: AskOptions) -> int:
    found: AgentRequest | None = None
    if ask.wait:
        found = await bus.wait_agent(agent_id, request)
    state = RequestState.REQUESTED if found is None or found.state is None else found.state
    if ask.json:
        error = None if found is None else found.error
        print_json({"agent_id": agent_id, "requested": command, "request": request, "state": state, "error": error})
    elif found is None:
        print_line(f"asked {agent_id} to {command}")
    else:
        print_line(f"{agent_id}: {request_words(found)}")
    return 0 if not ask.wait or state is RequestState.DONE else 1
