"""A leader by hand: writes to an agent's streams what a dispatcher would, and reads what the agent writes."""

from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis

from bus.ids import Pool
from bus.messages import (
    Assignment,
    CancelAttempt,
    Heartbeat,
    Instruction,
    Message,
    RecallAttempt,
    Register,
    Registered,
    Registration,
    Report,
    Reregister,
    SubmitTask,
    Superseded,
    TaskResult,
    Unregister,
)
from bus.names import PoolNames
from tests.support.waiting import eventually


class HandLeader:
    """Reads everything from the start, so that nothing an agent said is missed."""

    def __init__(self, redis: Redis, pool: str) -> None:
        self.redis = redis
        self.names = PoolNames(Pool(pool))
        self.registrations: list[Register | Unregister] = []
        self.heartbeats: list[Heartbeat] = []
        self.reports: list[Report] = []
        self._cursors = {
            self.names.registrations: "0-0",
            self.names.heartbeats: "0-0",
            self.names.results: "0-0",
        }

    async def read(self) -> None:
        """Take what is new on the three streams of the agents."""
        for stream in self._cursors:
            entries: Any = await self.redis.xrange(stream, min=f"({self._cursors[stream]}")
            for entry_id, fields in entries:
                self._cursors[stream] = entry_id.decode()
                body = fields[b"__data__"]
                if stream == self.names.registrations:
                    self.registrations.append(Registration.model_validate_json(body).root)
                elif stream == self.names.heartbeats:
                    self.heartbeats.append(Heartbeat.model_validate_json(body))
                else:
                    self.reports.append(Report.model_validate_json(body))

    async def wait_for(self, predicate: Callable[[], object], timeout: float = 10.0) -> None:
        """Read until `predicate` holds."""

        async def holds() -> object:
            await self.read()
            return predicate()

        await eventually(holds, timeout)

    async def say(self, agent_id: str, message: Message) -> None:
        """Write to the agent's control stream."""
        await self.redis.xadd(self.names.control(agent_id), {"__data__": message.model_dump_json()})

    async def welcome(self, *, count: int = 1) -> Register:
        """Wait for the `count`-th registration and acknowledge it."""
        await self.wait_for(lambda: len(self.registrations) >= count)
        signed = self.registrations[count - 1]
        assert isinstance(signed, Register)
        await self.say(signed.agent_id, Registered(session=signed.session, revision=signed.revision))
        return signed

    async def assign(
        self,
        signed: Register,
        local_id: str,
        payload: Any = None,
        *,
        capability: str = "echo",
        attempt: int = 1,
        score: int = 0,
        session: str | None = None,
        matched: str | None = None,
        **fields: Any,
    ) -> str:
        """Give the agent one task; return the task's id."""
        task_id = f"{self.names.pool}.{local_id}"
        task = SubmitTask(id=task_id, capability=capability, payload=payload, **fields)
        message = Assignment(
            task_id=task_id,
            attempt=attempt,
            session=session or signed.session,
            score=score,
            assigned_at=0,
            version=matched,
            task=task,
        )
        await self.redis.xadd(self.names.assignments(signed.agent_id), {"__data__": message.model_dump_json()})
        return task_id

    async def cancel(self, signed: Register, task_id: str, *, attempt: int = 1, **fields: Any) -> None:
        note = CancelAttempt(session=signed.session, task_id=task_id, attempt=attempt, reason="not needed", **fields)
        await self.say(signed.agent_id, note)

    async def recall(self, signed: Register, task_id: str, *, attempt: int = 1) -> None:
        note = RecallAttempt(session=signed.session, task_id=task_id, attempt=attempt)
        await self.say(signed.agent_id, note)

    async def instruct(self, signed: Register, kind: str, **fields: Any) -> None:
        note = Instruction.model_validate({"type": kind, "session": signed.session, **fields})
        await self.say(signed.agent_id, note)

    async def supersede(self, signed: Register, *, quiet_ms: int = 0) -> None:
        """Say that another process has the id; from then on the server takes nobody's writes for so long."""
        body = Superseded(session=signed.session, by="another").model_dump_json()
        async with self.redis.pipeline(transaction=True) as pipe:
            pipe.xadd(self.names.control(signed.agent_id), {"__data__": body})
            if quiet_ms:
                pipe.execute_command("CLIENT", "PAUSE", quiet_ms, "WRITE")
            await pipe.execute()

    async def forget(self, signed: Register) -> None:
        await self.say(signed.agent_id, Reregister(session=signed.session))

    @property
    def results(self) -> dict[str, TaskResult]:
        """All results so far by the task's id; the last one of each."""
        return {result.task_id: result for report in self.reports for result in report.results}

    @property
    def started(self) -> set[str]:
        """Tasks that were reported as running."""
        return {update.task_id for report in self.reports for update in report.updates}

    def cancels(self, task_id: str) -> list[str]:
        """How far the cancel of a task is, word by word."""
        updates = [update for report in self.reports for update in report.updates if update.task_id == task_id]
        return [update.cancel for update in updates if update.cancel is not None]

    @property
    def returned(self) -> list[str]:
        """Tasks that were handed back, as often as they were."""
        return [back.task_id for report in self.reports for back in report.returned]

    async def result(self, task_id: str) -> TaskResult:
        """Wait for the result of a task."""
        await self.wait_for(lambda: task_id in self.results)
        return self.results[task_id]

    async def wait_started(self, task_id: str) -> None:
        """Wait until a task was reported as running."""
        await self.wait_for(lambda: task_id in self.started)


def settings_of(url: str, pool: str, **fields: Any) -> Mapping[str, Any]:
    """Return the settings that most tests want: quick beats, a short grace."""
    quick = {"agent_id": "a1", "heartbeat_interval": 0.1, "lease": 3.0, "grace": 5.0}
    return {"redis_url": url, "pool": pool, **quick, **fields}
