"""What an agent has done is counted in bounded room, and quantiles of it are right within 5 %."""

from random import Random

import pytest

from dispatcher.core.tally import AGES_AT, ERROR, Tally
from tests.dispatcher.core.world import World


@pytest.mark.parametrize("seed", range(5))
def test_quantiles_are_right_within_their_error(seed: int) -> None:
    rng = Random(seed)
    tally = Tally()
    runs = sorted(rng.lognormvariate(3, 2) for _ in range(AGES_AT - 1))
    for ms in rng.sample(runs, len(runs)):
        tally.ran(ms)
    shares = (0.5, 0.9, 0.99)
    found = tally.quantiles(shares)
    assert found is not None
    for share, ms in zip(shares, found, strict=True):
        exact = runs[max(0, int(share * len(runs) + 0.999999) - 1)]
        assert ms == pytest.approx(exact, rel=ERROR + 1e-9)


def test_nothing_is_told_of_nothing_and_any_duration_is_taken() -> None:
    tally = Tally()
    assert tally.quantiles((0.5,)) is None
    for ms in (0.0, -1.0, 1e-300, 1e300):
        tally.ran(ms)
    assert tally.quantiles((0.5, 1.0)) == pytest.approx([0.01, 1e9], rel=0.1)


def test_its_room_is_bounded_and_what_is_recent_counts() -> None:
    rng = Random(7)
    tally = Tally()
    for _ in range(50_000):
        tally.ran(10 ** rng.uniform(-3, 10))
    assert len(tally._buckets) < 300
    for _ in range(2 * AGES_AT):
        tally.ran(5.0)
    assert tally.quantiles((0.5,)) == pytest.approx([5.0], rel=ERROR)
    assert tally.completed == 50_000 + 2 * AGES_AT


def test_an_agents_work_is_counted_by_capability() -> None:
    world = World()
    world.step(world.sign_in("a", "do", "make", slots=3), world.task("do"), world.task("do"), world.task("make"))
    world.step(world.ended(1, duration=0.2), world.failed(2), world.ended(3, duration=3.0))
    tallies = world.agent().tallies
    assert {name: (one.completed, one.failed) for name, one in tallies.items()} == {"do": (1, 1), "make": (1, 0)}
    assert tallies["make"].quantiles((0.5,)) == pytest.approx([3000], rel=ERROR)
