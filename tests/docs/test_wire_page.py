"""The page on the wire names every stream and every message that an agent in another language needs."""

import re
from typing import Final, get_args

from bus.ids import DEFAULT_POOL
from bus.messages import Command, Control, Registration
from bus.names import DATA_FIELD, PoolNames
from bus.states import TaskPriority
from dispatcher.pool import topics
from tests.docs.pages import ROOT, blocks

PAGE: Final = ROOT / "docs" / "wire.md"
NAMES: Final = PoolNames(DEFAULT_POOL)


def test_every_stream_is_named() -> None:
    text = PAGE.read_text()
    inbound = [topic.stream for topic in topics(NAMES)]
    streams = [*inbound, NAMES.assignments("ID"), NAMES.control("ID"), NAMES.replies("ID")]
    for stream in (*streams, NAMES.events, NAMES.rejected):
        assert f"`{stream.removeprefix(NAMES.root)}`" in text
    for said in (NAMES.root.replace(DEFAULT_POOL, "POOL"), NAMES.results, NAMES.task("ID"), DATA_FIELD):
        assert f"`{said}`" in text
    assert all(f"`tasks:{level.level}`" in text for level in TaskPriority)


def test_every_message_of_an_agent_and_of_its_clients_has_an_example() -> None:
    shown = {block.title for block in blocks(PAGE) if block.language == "json"}
    assert {"SubmitTask", "Reply", "Heartbeat", "Assignment", "Report"} <= shown
    for union in (Registration, Command, Control):
        kinds = {kind.__name__ for kind in get_args(union.model_fields["root"].annotation)}
        assert kinds & shown, f"of {kinds} there is no example"


def test_every_instruction_to_an_agent_is_told() -> None:
    told = set(re.findall(r"^\| `(\w+)` \| ", PAGE.read_text(), re.MULTILINE))
    for kind in get_args(Control.model_fields["root"].annotation):
        assert set(get_args(kind.model_fields["type"].annotation)) <= told
