"""What people and Prometheus are told once a second, however many requirements tasks have."""

import asyncio

from bus.messages import TaskHeader
from bus.records import AgentWorkload
from dispatcher.core.events import Event, Submitted
from dispatcher.core.scheduler import Scheduler
from dispatcher.observer import QueueGauge, Silent
from dispatcher.reporting import SHOWN, reasons, report_standing
from dispatcher.workloads import Workloads
from tests.dispatcher.core.world import World


class Queues(Silent):
    def __init__(self) -> None:
        self.told: list[QueueGauge] = []

    def queues(self, gauges: object) -> None:
        assert isinstance(gauges, list)
        self.told = gauges


def crowded(classes: int) -> Scheduler:
    """Return a scheduler with so many requirements; of the first wait two tasks, of the others one."""
    scheduler = Scheduler()
    events: list[Event] = []
    for n in [*range(classes), 0]:
        header = TaskHeader(capability=f"c{n}")
        events.append(Submitted(f"p.t{len(events)}", header, b"{}", 1))
    scheduler.step(events, 1)
    return scheduler


async def test_only_the_requirements_with_most_waiting_tasks_are_told() -> None:
    scheduler, observer = crowded(SHOWN + 100), Queues()
    why = await reasons(scheduler)
    report_standing(observer, scheduler)
    assert len(why) == SHOWN
    assert len(observer.told) == SHOWN
    assert QueueGauge("c0", "MEDIUM", 2) in observer.told


async def test_an_agents_load_tells_slots_and_resources_that_are_taken_and_what_holds_or_lacks_them() -> None:
    world = World()
    world.step(world.sign_in("a", "do", slots=6, resources={"gpu": 2}))
    world.step(world.task(slots=3, resources={"gpu": 0.5}), world.task())
    world.step(world.started(1), world.started(2))
    world.step(world.started(2, waiting=True), world.beat(occupied=2))
    load = AgentWorkload.model_validate_json((await Workloads().look(world.scheduler))["a"])
    assert (load.running, load.used, load.waiting, load.occupied, load.granted) == (2, 3, 1, 2, {"gpu": 0.5})


async def test_the_loop_turns_while_reasons_are_found() -> None:
    finding = asyncio.create_task(reasons(crowded(50)))
    turns = 0
    while not finding.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns >= 50
