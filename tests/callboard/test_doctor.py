"""`callboard doctor`."""

import redis

from bus.ids import check_pool
from bus.names import PoolNames
from tests.callboard.commandline import CommandLine


def test_a_healthy_pool_has_nothing_wrong(working: CommandLine) -> None:
    working.submit("text.count", '{"text": "a b"}', "--wait")
    ran = working("doctor", "--pool", working.pool)
    assert (ran.code, ran.out) == (0, "nothing is wrong\n")
    assert "keys of pool" in ran.err


def test_what_is_wrong_is_explained_and_repaired(callboard: CommandLine) -> None:
    names = PoolNames(check_pool(callboard.pool))
    with redis.Redis.from_url(callboard.url) as server:
        server.zadd(names.leases, {f"{callboard.pool}.gone": 1})
        server.set(f"{names.root}mine", "x")
        told = callboard("doctor", "--pool", callboard.pool, "--json")
        assert told.code == 1
        kinds = {one["kind"]: one for one in told.json["findings"]}
        assert set(kinds) == {"index_without_record", "unknown_key", "no_leader"}
        assert kinds["index_without_record"]["remedy"] == "`--fix` repairs it"
        ran = callboard("doctor", "--pool", callboard.pool, "--fix")
        assert ran.code == 1, "somebody must look at the key"
        assert f"{callboard.pool}.gone stands in leases: repaired" in ran.out
        assert "mine a string: for people to repair" in ran.out
        server.delete(f"{names.root}mine")
        assert callboard("doctor", "--pool", callboard.pool).out == "nothing is wrong\n"
