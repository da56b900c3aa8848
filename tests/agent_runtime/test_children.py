"""Giving up slots and taking them again in one agent, whatever happens meanwhile; the leader is played by hand."""

import asyncio

from agent_runtime import Agent, TaskContext, capability
from bus.messages import Register, TaskUpdate
from bus.states import TaskStatus
from tests.agent_runtime.conftest import StartWorker
from tests.agent_runtime.leader import HandLeader
from tests.support.waiting import eventually


class Parent(Agent):
    """Its tasks wait without a slot until the test opens the gate of their name."""

    def __init__(self) -> None:
        self.gates: dict[str, asyncio.Event] = {}
        self.happened: list[str] = []
        self.left: asyncio.Task[None]

    def gate(self, name: str) -> asyncio.Event:
        return self.gates.setdefault(name, asyncio.Event())

    @capability("pause")
    async def pause(self, name: str, ctx: TaskContext) -> str:
        self.happened.append(f"{name} begins")
        try:
            async with ctx.without_slot():
                await self.gate(name).wait()
        finally:
            self.happened.append(f"{name} is back")
        await self.gate(f"{name} ends").wait()
        return name

    @capability("twice")
    async def twice(self, name: str, ctx: TaskContext) -> str:
        async def once(gate: str) -> None:
            async with ctx.without_slot():
                await self.gate(gate).wait()
            self.happened.append(gate)

        await asyncio.gather(once("one"), once("two"))
        self.happened.append("both")
        return name

    @capability("give.up")
    async def give_up(self, name: str, ctx: TaskContext) -> str:
        async def wait() -> None:
            async with ctx.without_slot():
                await self.gate(name).wait()

        self.left = asyncio.create_task(wait())
        await asyncio.wait([self.left])
        self.happened.append("gave up" if self.left.cancelled() else "waited")
        await self.gate("end").wait()
        return name

    @capability("forget")
    async def forget(self, name: str, ctx: TaskContext) -> str:
        async def wait() -> None:
            async with ctx.without_slot():
                self.happened.append(f"{name} waits")
                await self.gate(name).wait()
            self.happened.append(f"{name} is back")

        self.left = asyncio.create_task(wait())
        await asyncio.sleep(0)
        return name

    @capability("plain")
    async def plain(self, name: str) -> str:
        self.happened.append(f"{name} begins")
        await self.gate(name).wait()
        return name


def waits(leader: HandLeader, task_id: str) -> list[bool]:
    """Return what was said of whether a task waits, in order."""
    updates: list[TaskUpdate] = [u for report in leader.reports for u in report.updates if u.task_id == task_id]
    return [update.waiting for update in updates if update.waiting is not None]


async def begin(leader: HandLeader, start_worker: StartWorker, agent: Agent) -> Register:
    start_worker(agent)
    return await leader.welcome()


async def test_who_comes_back_is_first_but_waits_for_a_slot(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    parent = await leader.assign(signed, "p", "p", capability="pause")
    await leader.wait_for(lambda: waits(leader, parent) == [True])
    first = await leader.assign(signed, "c1", "c1", capability="plain")
    await leader.wait_started(first)
    await leader.assign(signed, "c2", "c2", capability="plain", score=-1)
    agent.gate("p").set()
    await leader.wait_for(lambda: waits(leader, parent) == [True, False])
    assert agent.happened == ["p begins", "c1 begins"], "it has no slot yet, and says already that it wants it"
    agent.gate("c1").set()
    await eventually(lambda: agent.happened[2:] == ["p is back"])
    agent.gate("p ends").set()
    assert (await leader.result(parent)).status is TaskStatus.COMPLETED
    await eventually(lambda: agent.happened[3:] == ["c2 begins"])


async def test_a_cancel_while_it_wants_its_slot_leaves_the_slots_right(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    parent = await leader.assign(signed, "p", "p", capability="pause")
    await leader.wait_for(lambda: waits(leader, parent) == [True])
    child = await leader.assign(signed, "c", "c", capability="plain")
    await leader.wait_started(child)
    agent.gate("p").set()
    await leader.wait_for(lambda: waits(leader, parent) == [True, False])
    await leader.cancel(signed, parent)
    assert (await leader.result(parent)).status is TaskStatus.CANCELLED
    next_one = await leader.assign(signed, "n", "n", capability="plain")
    agent.gate("n").set()
    agent.gate("c").set()
    assert (await leader.result(next_one)).status is TaskStatus.COMPLETED
    assert agent.happened == ["p begins", "c begins", "p is back", "n begins"], "one slot, and one at a time"


async def test_a_cancel_while_it_waits_frees_nothing_twice(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    parent = await leader.assign(signed, "p", "p", capability="pause")
    await leader.wait_for(lambda: waits(leader, parent) == [True])
    await leader.cancel(signed, parent)
    assert (await leader.result(parent)).status is TaskStatus.CANCELLED
    await leader.assign(signed, "a", "a", capability="plain")
    last = await leader.assign(signed, "b", "b", capability="plain", score=1)
    await eventually(lambda: "a begins" in agent.happened)
    agent.gate("b").set()
    assert "b begins" not in agent.happened
    agent.gate("a").set()
    assert (await leader.result(last)).output == "b"


async def test_of_waits_at_once_the_last_takes_the_slot(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    parent = await leader.assign(signed, "p", "p", capability="twice")
    await leader.wait_for(lambda: waits(leader, parent) == [True])
    agent.gate("one").set()
    await eventually(lambda: agent.happened == ["one"])
    child = await leader.assign(signed, "c", "c", capability="plain")
    await leader.wait_started(child)
    agent.gate("two").set()
    await leader.wait_for(lambda: waits(leader, parent) == [True, False])
    assert "both" not in agent.happened
    agent.gate("c").set()
    assert (await leader.result(parent)).output == "p"


async def test_a_wait_that_is_given_up_has_the_slot_at_once(leader: HandLeader, start_worker: StartWorker) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    parent = await leader.assign(signed, "p", "p", capability="give.up")
    await leader.wait_for(lambda: waits(leader, parent) == [True])
    agent.left.cancel()
    await eventually(lambda: "gave up" in agent.happened)
    child = await leader.assign(signed, "c", "c", capability="plain")
    agent.gate("c").set()
    agent.gate("end").set()
    assert (await leader.result(parent)).output == "p"
    assert (await leader.result(child)).output == "c"
    assert agent.happened == ["gave up", "c begins"]


async def test_who_wants_its_slot_no_longer_than_it_can_wait_has_it(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    parent = await leader.assign(signed, "p", "p", capability="give.up")
    await leader.wait_for(lambda: waits(leader, parent) == [True])
    child = await leader.assign(signed, "c", "c", capability="plain")
    await leader.wait_started(child)
    agent.gate("p").set()
    await leader.wait_for(lambda: waits(leader, parent) == [True, False])
    agent.left.cancel()
    await eventually(lambda: "gave up" in agent.happened)
    next_one = await leader.assign(signed, "n", "n", capability="plain")
    agent.gate("c").set()
    assert (await leader.result(child)).output == "c"
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].holding == ((parent, 1), (next_one, 1)))
    assert "n begins" not in agent.happened, "the parent has the only slot"
    agent.gate("end").set()
    agent.gate("n").set()
    assert (await leader.result(next_one)).output == "n"


async def test_a_wait_that_is_left_behind_when_its_task_ends_frees_nothing_twice(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    assert (await leader.result(await leader.assign(signed, "p", "p", capability="forget"))).output == "p"
    first = await leader.assign(signed, "a", "a", capability="plain")
    second = await leader.assign(signed, "b", "b", capability="plain", score=1)
    await leader.wait_for(lambda: leader.heartbeats and leader.heartbeats[-1].holding == ((first, 1), (second, 1)))
    assert agent.happened == ["p waits", "a begins"]
    agent.gate("p").set()
    agent.gate("b").set()
    await agent.left
    assert agent.happened == ["p waits", "a begins", "p is back"]
    agent.gate("a").set()
    assert (await leader.result(second)).output == "b"


async def test_an_agent_that_is_drained_lets_a_waiting_task_go_on(
    leader: HandLeader, start_worker: StartWorker
) -> None:
    agent = Parent()
    signed = await begin(leader, start_worker, agent)
    parent = await leader.assign(signed, "p", "p", capability="pause")
    await leader.wait_for(lambda: waits(leader, parent) == [True])
    await leader.instruct(signed, "drain")
    await leader.wait_for(lambda: any(beat.draining for beat in leader.heartbeats))
    agent.gate("p").set()
    agent.gate("p ends").set()
    assert (await leader.result(parent)).status is TaskStatus.COMPLETED
