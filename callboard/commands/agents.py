"""`callboard agents`: look at agents, drain and restart them."""

from typing import Annotated

from cyclopts import App, Parameter

from bus.records import AgentInfo
from bus.requirement_text import format_clause
from callboard.connecting import connected
from callboard.labels import is_internal
from callboard.moments import moment
from callboard.options import AsJson, RedisUrl
from callboard.output import json_text, print_json, print_line, print_rows, print_table

agents = App(name="agents", help="Look at agents, drain and restart them.", result_action="return_value")

_AgentId = Annotated[str, Parameter(help="Id of the agent.")]
_Pool = Annotated[str | None, Parameter(help="The agent's pool.")]
_Reason = Annotated[str, Parameter(help="Passed on to the agent.")]


@agents.command(name="list")
async def list_agents(*, pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False) -> int:
    """List every agent that the pool knows."""
    async with connected(redis_url, pool) as bus:
        found = sorted(await bus.agents(), key=lambda info: info.agent_id)
    if json:
        print_json(found)
        return 0
    print_table(
        ("id", "status", "health", "slots", "completed", "failed", "capabilities"),
        (_row(info) for info in found),
        spare=("failed", "completed"),
        caption="" if found else "no agents: start one with `callboard agent module:Class`",
    )
    return 0


def _used(info: AgentInfo) -> str:
    load = info.workload
    return str(info.slots) if load is None else f"{load.running + load.assigned}/{info.slots}"


def _row(info: AgentInfo) -> tuple[object, ...]:
    load = info.workload
    done = ("", "") if load is None else (load.completed, load.failed)
    return info.agent_id, info.status, info.health, _used(info), *done, _names(info)


def _names(info: AgentInfo) -> str:
    return ", ".join(spec.name for spec in info.capabilities)


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
        ("health", info.health),
        ("slots", _used(info)),
        ("completed", None if load is None else load.completed),
        ("failed", None if load is None else load.failed),
        ("session", info.session),
        ("signed in", moment(info.registered_at)),
        ("heartbeat", f"each {info.heartbeat_interval:g} s, lost after {info.lease:g} s"),
        *((f"attribute {name}", json_text(value)) for name, value in info.attributes.items()),
        ("accepts", ", ".join(map(format_clause, info.accepts)) or None),
        *((name, value) for name, value in info.metadata.items() if not is_internal(name)),
        *((f"capability {spec.name}", f"{spec.version} {json_text(spec.attributes)}") for spec in info.capabilities),
    ]
    print_rows(f"agent {info.agent_id}", rows)
    return 0


@agents.command
async def drain(
    agent_id: _AgentId, /, *, reason: _Reason = "", pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False
) -> int:
    """Ask an agent to finish what it has, take nothing new, and stop."""
    async with connected(redis_url, pool) as bus:
        await bus.drain_agent(agent_id, reason)
    _asked(agent_id, "drain", as_json=json)
    return 0


@agents.command
async def restart(
    agent_id: _AgentId, /, *, reason: _Reason = "", pool: _Pool = None, redis_url: RedisUrl = None, json: AsJson = False
) -> int:
    """Ask an agent to finish what it has and start anew."""
    async with connected(redis_url, pool) as bus:
        await bus.restart_agent(agent_id, reason)
    _asked(agent_id, "restart", as_json=json)
    return 0


def _asked(agent_id: str, command: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"agent_id": agent_id, "requested": command})
    else:
        print_line(f"asked {agent_id} to {command}")
