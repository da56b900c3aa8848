from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.ids import check_pool
from bus.messages import Command, Heartbeat, TaskHeader
from dispatcher.decoding import Batch, Topic, decode
from dispatcher.translate import arrival_of

TASKS: Topic[Any] = Topic("tasks:low", "s", TaskHeader)
COMMANDS: Topic[Any] = Topic("commands", "s", Command)


def one(body: bytes, topic: Topic[Any] = TASKS) -> Batch[Any]:
    return decode(topic, [b"1-0"], [{b"__data__": body}])


def test_a_valid_message_is_read_and_its_body_kept_byte_for_byte() -> None:
    body = b'{"v":1, "capability":"a.b",  "payload":{"x":1.0}, "unknown":true}'
    batch = one(body)
    assert batch.ids == ["1-0"]
    assert batch.messages[0].capability == "a.b"
    assert batch.bodies == [body]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "EOF"),
        (b"{", "EOF"),
        (b"\xff\xfe", "JSON"),
        (b"[1,2]", "object"),
        (b'{"payload":1}', "capability: Field required"),
        (b'{"capability":"a b"}', "capability: String should match pattern"),
        (b'{"capability":"a","id":"../../etc"}', "id: String should match pattern"),
        (b'{"capability":"a","priority":"VERY"}', "priority: Input should be"),
        (b'{"capability":"a","max_attempts":0}', "max_attempts"),
        (b'{"capability":"a","v":0}', "v: "),
    ],
)
def test_what_cannot_be_understood_is_set_aside_with_its_reason_and_bytes(body: bytes, reason: str) -> None:
    batch = one(body)
    assert batch.messages == []
    assert batch.parked == []
    [bad] = batch.unreadable
    assert bad.raw == body
    assert reason in bad.reason
    assert "\n" not in bad.reason


@pytest.mark.parametrize("body", [b'{"v":2,"capability":"a"}', b'{"v":2,"quite":"different"}'])
def test_a_newer_version_is_parked_whether_or_not_it_still_fits_the_model(body: bytes) -> None:
    batch = one(body)
    assert batch.parked == ["1-0"]
    assert (batch.messages, batch.unreadable) == ([], [])


def test_a_newer_version_of_a_message_with_kinds_is_parked_too() -> None:
    body = b'{"v":2,"type":"cancel","task_ids":["default.a"]}'
    assert one(body, COMMANDS).parked == ["1-0"]


@pytest.mark.parametrize("body", [b'{"v":2,"agent_id":"a","session":"s"}', b'{"v":2,"quite":"different"}'])
def test_of_what_only_the_latest_counts_a_newer_version_is_not_kept(body: bytes) -> None:
    topic: Topic[Any] = Topic("heartbeats", "s", Heartbeat, fleeting=True)
    batch = one(body, topic)
    assert (batch.skipped, batch.parked, batch.unreadable, batch.messages) == (["1-0"], [], [], [])
    assert batch.entry_ids == ["1-0"]
    assert [single.skipped for single in batch.singles()] == [["1-0"]]
    assert [piece.entry_id for piece in arrival_of(check_pool("default"), batch, {}).pieces] == ["1-0"]


def test_an_entry_without_the_field_of_messages_is_unreadable() -> None:
    batch = decode(TASKS, [b"1-0"], [{b"data": b"{}"}])
    assert "'__data__'" in batch.unreadable[0].reason
    assert "data" in batch.unreadable[0].reason


def test_bodies_that_are_json_only_when_joined_do_not_pass_as_messages() -> None:
    bodies = [b'{"capability":"a"},{"x":[', b'{"y":1}', b']},{"capability":"b"}']
    batch = decode(TASKS, [b"1-0", b"2-0", b"3-0"], [{b"__data__": body} for body in bodies])
    assert batch.messages == []
    assert [bad.entry_id for bad in batch.unreadable] == ["1-0", "2-0", "3-0"]


def test_one_bad_message_does_not_touch_its_neighbours() -> None:
    bodies = [b'{"capability":"a"}', b"nonsense", b'{"v":9}', b'{"capability":"b"}']
    batch = decode(TASKS, [b"%d-0" % n for n in range(4)], [{b"__data__": body} for body in bodies])
    assert [message.capability for message in batch.messages] == ["a", "b"]
    assert batch.ids == ["0-0", "3-0"]
    assert [bad.entry_id for bad in batch.unreadable] == ["1-0"]
    assert batch.parked == ["2-0"]


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_make_it_raise_or_lose_an_entry(bodies: list[bytes]) -> None:
    ids = [b"%d-0" % n for n in range(len(bodies))]
    batch = decode(Topic("heartbeats", "s", Heartbeat), ids, [{b"__data__": body} for body in bodies])
    found = sorted([*batch.ids, *batch.parked, *(bad.entry_id for bad in batch.unreadable)])
    assert found == sorted(entry.decode() for entry in ids)
