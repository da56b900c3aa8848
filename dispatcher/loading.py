"""What a new leader reads from the ledger: agents, then tasks in agents' hands, then waiting ones, highest score first."""

from collections.abc import AsyncIterator

from bus.connection import Redis
from bus.messages import TaskHeader
from bus.names import PoolNames
from bus.records import AgentRecord, Guard, Run
from dispatcher.core.config import SchedulerConfig
from dispatcher.core.model import AgentState, TaskState
from dispatcher.core.record import restore, restore_agent

PAGE = 1000


async def load_agents(redis: Redis, names: PoolNames, now: int) -> list[AgentState]:
    """Return all agents that the ledger knows, their leases starting at `now`."""
    ids = [raw.decode() for raw in await redis.zrange(names.agents, 0, -1)]
    agents: list[AgentState] = []
    for start in range(0, len(ids), PAGE):
        async with redis.pipeline(transaction=False) as pipe:
            for agent_id in ids[start : start + PAGE]:
                pipe.hget(names.agent(agent_id), "record")
            for raw in await pipe.execute():
                if raw is not None:
                    agents.append(restore_agent(AgentRecord.model_validate_json(raw), now))
    return agents


async def load_tasks(
    redis: Redis, names: PoolNames, config: SchedulerConfig
) -> AsyncIterator[list[tuple[TaskState, str]]]:
    """Yield all live tasks in pages, each with its agent's id: those in agents' hands, delayed ones, waiting ones."""
    for index in (names.leases, names.delayed, names.pending):
        start = 0
        while ids := [raw.decode() for raw in await redis.zrange(index, start, start + PAGE - 1)]:
            start += len(ids)
            async with redis.pipeline(transaction=False) as pipe:
                for task_id in ids:
                    pipe.hmget(names.task(task_id), "state", "spec", "run")
                rows = await pipe.execute()
            page: list[tuple[TaskState, str]] = []
            for task_id, (state, spec, run) in zip(ids, rows, strict=True):
                if state is None:
                    continue
                guard = Guard.parse(state.decode())
                if guard.status.terminal:
                    continue
                header = TaskHeader.model_validate_json(spec)
                page.append((restore(config, task_id, guard, header, Run.model_validate_json(run)), guard.agent_id))
            yield page
