"""What the leader publishes of each agent: by capability, with rates and quantiles."""

import pytest

from bus.records import AgentWorkload
from dispatcher.workloads import Workloads
from tests.dispatcher.core.world import World


async def look(loads: Workloads, world: World) -> AgentWorkload:
    return AgentWorkload.model_validate_json((await loads.look(world.scheduler))["a"])


async def test_of_each_capability_it_is_told_what_runs_waits_and_was_done() -> None:
    world, loads = World(), Workloads()
    world.step(world.sign_in("a", "do", "make", slots=4), *(world.task("do") for _ in range(3)), world.task("make"))
    world.step(world.started(1), world.ended(2, duration=0.5), world.failed(4, retryable=False), after=1000)
    told = await look(loads, world)
    do, make = told.capabilities
    assert (do.capability, do.running, do.prefetched, do.completed, do.failed) == ("do", 1, 1, 1, 0)
    assert (make.capability, make.running, make.completed, make.failed, make.p50) == ("make", 0, 0, 1, None)
    assert do.p50 == do.p99 == pytest.approx(0.5, rel=0.05)
    assert (told.running, told.assigned, told.completed, told.failed) == (1, 1, 1, 1)
    assert (told.rate, told.failure_rate) == (do.rate + make.rate, do.failure_rate + make.failure_rate)


async def test_a_rate_rises_with_the_work_and_falls_without_it() -> None:
    world, loads = World(), Workloads()
    world.step(world.sign_in("a", slots=1000))
    number = 0
    for _ in range(30):
        world.step(*(world.task() for _ in range(10)))
        world.step(*(world.ended(number + n, duration=0.01) for n in range(1, 11)), after=1000)
        number += 10
        rate = (await look(loads, world)).rate
    assert rate == pytest.approx(10, rel=0.1)
    for _ in range(120):
        world.step(after=1000)
        rate = (await look(loads, world)).rate
    assert rate < 2.5


async def test_a_new_session_begins_at_nothing() -> None:
    world, loads = World(), Workloads()
    world.step(world.sign_in(), world.task())
    world.step(world.ended(1, duration=1.0), after=1000)
    assert (await look(loads, world)).rate > 0
    world.step(world.sign_in(session="a2"), after=1000)
    told = await look(loads, world)
    assert (told.rate, told.capabilities) == (0, ())
