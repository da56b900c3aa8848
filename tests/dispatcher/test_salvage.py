"""What is read of a report that is not valid as a whole, and what is not."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic_core import from_json, to_json

from bus.messages import Report, TaskResult
from bus.states import TaskStatus
from dispatcher.salvage import Salvaged, members, salvage_report, split

HEAD = b'{"v":1,"agent_id":"a","session":"s"'
GOOD = b'{"task_id":"p.good","attempt":1,"status":"COMPLETED","output":{"n":"]}, \\" ["}}'
DEEP = b'{"task_id":"p.bad","attempt":2,"status":"COMPLETED","output":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
FAR = b'{"task_id":"p.bad","attempt":2,"status":"COMPLETED","output":' + b"1" * 5000 + b"}"
NO_TEXT = b'{"task_id":"p.bad","attempt":2,"status":"COMPLETED","output":"\xff"}'
SURROGATE = b'{"task_id":"p.bad","attempt":2,"status":"COMPLETED","output":"\\ud800"}'
ODD = b'{"task_id":"p.bad","attempt":2,"status":"DONE"}'
SPOILT = b'{"task_id":"p.bad","attempt":2,"status":"COMPLETED","output":nul}'


def report(*results: bytes, more: bytes = b"") -> bytes:
    return HEAD + b',"results":[' + b",".join(results) + b"]" + more + b"}"


def saved(body: bytes) -> Salvaged:
    found = salvage_report(body, "why it is not valid")
    assert found is not None
    return found


@pytest.mark.parametrize(
    "bad", [DEEP, FAR, NO_TEXT, SURROGATE, ODD, SPOILT], ids=["deep", "far", "no_text", "surrogate", "odd", "nul"]
)
@pytest.mark.parametrize("first", [True, False])
def test_one_bad_result_fails_for_itself_and_its_neighbours_are_taken(bad: bytes, first: bool) -> None:
    found = saved(report(*((bad, GOOD) if first else (GOOD, bad))))
    good, failed = found.report.results
    assert good == TaskResult.model_validate_json(GOOD)
    assert (failed.task_id, failed.attempt, failed.status, failed.retryable) == ("p.bad", 2, TaskStatus.FAILED, False)
    assert failed.error is not None
    assert failed.error.type == "InvalidReport"
    [(raw, reason)] = found.set_aside
    assert raw == bad
    assert reason


def test_bad_updates_and_hand_backs_are_set_aside_and_the_others_taken() -> None:
    body = report(
        GOOD,
        more=b',"updates":[{"task_id":"p.u","attempt":1},{"attempt":1}],"returned":[{"task_id":"p.r","attempt":1},7]',
    )
    found = saved(body)
    assert [update.task_id for update in found.report.updates] == ["p.u"]
    assert [back.task_id for back in found.report.returned] == ["p.r"]
    assert [raw for raw, _ in found.set_aside] == [b'{"attempt":1}', b"7"]


@pytest.mark.parametrize(
    "bad", [b'{"task_id":"../x","attempt":1}', b'{"task_id":"p.x"}', b"7", b"[]", b'{"attempt":1}']
)
def test_a_bad_result_of_which_nobody_can_say_whose_it_is_is_only_set_aside(bad: bytes) -> None:
    found = saved(report(bad, GOOD))
    assert [result.task_id for result in found.report.results] == ["p.good"]
    assert [raw for raw, _ in found.set_aside] == [bad]


@pytest.mark.parametrize("legible", [True, False])
def test_of_a_report_that_was_cut_off_the_items_before_the_cut_are_taken_and_all_of_it_is_kept(legible: bool) -> None:
    cut = ODD[: -len(b'"DONE"}')] if legible else ODD[: len(b'{"task_id":"p.bad","attempt":2')]
    body = report(GOOD, ODD)[: -len(ODD) - 2] + cut
    found = saved(body)
    assert [result.task_id for result in found.report.results] == ["p.good"] + ["p.bad"] * legible
    assert [raw for raw, _ in found.set_aside] == [cut, body]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"7",
        b"]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"results":[' + GOOD + b"]}",
        b'{"agent_id":"a b/","session":"s","results":[' + GOOD + b"]}",
        HEAD + b"}",
        HEAD + b',"results":7}',
        b'{"v":2,"agent_id":"a","session":"s","results":[' + ODD + b"]}",
        b'{"v":"x","agent_id":"a","session":"s","results":[' + GOOD + b"]}",
    ],
)
def test_there_is_nothing_to_be_saved_where_it_is_not_known_who_speaks_or_of_what(body: bytes) -> None:
    assert salvage_report(body, "why") is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_json_is_split_as_a_parser_would(value: object) -> None:
    raw = to_json(value, indent=1)
    if isinstance(value, dict):
        found, whole = members(raw)
        assert whole
        assert {name: from_json(part) for name, part in found.items()} == value
    elif isinstance(value, list):
        parts, rest = split(raw)
        assert rest is None
        assert [from_json(part) for part in parts] == value
    else:
        assert split(raw) == ([], raw)


@given(st.lists(st.sampled_from([b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"1", GOOD, HEAD]), max_size=30))
@example([b"{", b"]"])
def test_no_bytes_make_it_raise(parts: list[bytes]) -> None:
    body = b"".join(parts)
    split(body)
    members(body)
    found = salvage_report(body, "why")
    assert found is None or isinstance(found.report, Report)
