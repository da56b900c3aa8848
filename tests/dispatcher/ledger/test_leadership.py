"""Who leads: the lease, the epoch, the trust window."""

import asyncio

from redis.asyncio import Redis

from bus.clock import monotonic_ms
from bus.names import PoolNames
from dispatcher.leadership import Leadership
from tests.support.waiting import eventually


def candidate(redis: Redis, names: PoolNames, name: str, lease_ms: int = 60_000) -> Leadership:
    return Leadership(redis, names, name, lease_ms=lease_ms)


async def test_of_many_candidates_one_leads(redis: Redis, names: PoolNames) -> None:
    candidates = [candidate(redis, names, f"d{n}") for n in range(10)]
    leads = await asyncio.gather(*(one.acquire() for one in candidates))
    assert sum(lead is not None for lead in leads) == 1
    assert sum(one.trusted for one in candidates) == 1


async def test_asking_again_after_a_lost_reply_returns_the_same_lead(redis: Redis, names: PoolNames) -> None:
    one = candidate(redis, names, "one")
    assert await one.acquire() == await one.acquire()


async def test_a_lead_that_was_given_back_is_free_at_once_and_a_stale_one_cannot_be_given_back(
    redis: Redis, names: PoolNames
) -> None:
    one, two = candidate(redis, names, "one"), candidate(redis, names, "two")
    first = await one.acquire()
    await one.release()
    second = await two.acquire()
    assert first is not None
    assert second is not None
    assert second.epoch > first.epoch
    one.lead = first
    await one.release()
    assert await two.renew()


async def test_a_lease_that_is_not_renewed_ends_and_is_not_trusted_any_longer(redis: Redis, names: PoolNames) -> None:
    one, two = candidate(redis, names, "one", 100), candidate(redis, names, "two")
    assert await one.acquire()
    assert one.trusted
    await eventually(lambda: not one.trusted)

    async def taken() -> bool:
        return await two.acquire() is not None

    await eventually(taken)
    assert not await one.renew()


async def test_renewing_extends_the_trust(redis: Redis, names: PoolNames) -> None:
    one = candidate(redis, names, "one", 300)
    await one.acquire()
    began = monotonic_ms()
    while monotonic_ms() < began + 500:
        assert await one.renew()
        assert one.trusted


async def test_the_epoch_grows_though_the_server_has_lost_everything(redis: Redis, names: PoolNames) -> None:
    one = candidate(redis, names, "one")
    await redis.set(names.epoch, 7)
    before = await one.acquire()
    await redis.delete(names.leader, names.epoch)
    after = await candidate(redis, names, "one").acquire()
    assert before is not None
    assert after is not None
    assert after.epoch >= before.epoch
    assert after.token != before.token, "even in the same millisecond the nonce tells them apart"


async def test_the_epoch_grows_though_the_clock_steps_back(redis: Redis, names: PoolNames) -> None:
    future = 99_999_999_999_999
    await redis.set(names.epoch, future)
    lead = await candidate(redis, names, "one").acquire()
    assert lead is not None
    assert lead.epoch == future + 1
