"""Durations are written in the same forms everywhere, and read once."""

from datetime import timedelta

import pytest
from pydantic import ValidationError

from agent_runtime.settings import AgentSettings
from bus.durations import seconds
from dispatcher.settings import DispatcherSettings

FORMS = [
    ("2", 2),
    ("0", 0),
    (".5", 0.5),
    ("5s", 5),
    ("250ms", 0.25),
    ("1m30s", 90),
    ("1.5h", 5400),
    ("7d", 604_800),
    (" 3s ", 3),
    ("PT5S", 5),
    ("PT0.02S", 0.02),
    ("PT0,5S", 0.5),
    ("PT1M30S", 90),
    ("P1DT2H", 93_600),
    ("P7D", 604_800),
]


@pytest.mark.parametrize(("text", "value"), FORMS)
def test_every_form_is_read(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["", "s", "3x", "-1", "1 m", "1e3", "inf", "3s!", "P", "PT", "PT5", "P1M", "00:05"])
def test_what_is_no_duration_is_told_how_to_write_one(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no duration: write e\.g\. 30, 500ms"):
        seconds(text)


@pytest.mark.parametrize("text", ["40000d", "P40000D", "9" * 400])
def test_a_duration_beyond_all_bounds_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="more than a hundred years"):
        seconds(text)


@pytest.mark.parametrize(("text", "value"), FORMS)
def test_settings_read_the_same_forms(monkeypatch: pytest.MonkeyPatch, text: str, value: float) -> None:
    monkeypatch.setenv("CALLBOARD_GRACE", text)
    monkeypatch.setenv("CALLBOARD_RETRY_BASE", text)
    assert AgentSettings().grace == DispatcherSettings().retry_base == timedelta(seconds=value)


def test_settings_say_how_to_write_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLBOARD_LEASE", "soon")
    with pytest.raises(ValidationError, match="'soon' is no duration: write e"):
        AgentSettings()


def test_programs_give_durations_as_such() -> None:
    assert AgentSettings(grace=timedelta(seconds=3)).grace == timedelta(seconds=3)
