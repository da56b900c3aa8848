"""When something recurs: cron texts in their time zones, days on which the clock is changed, intervals."""

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.recurrence import Cron, Every, cron

BERLIN = ZoneInfo("Europe/Berlin")


def ms(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    """Return an instant that is given in UTC."""
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp() * 1000)


def shown(found: Cron, after: int, count: int) -> list[str]:
    """Return the next instants as a clock in their zone shows them, with its distance from UTC."""
    return [
        datetime.fromtimestamp(at / 1000, found.zone).strftime("%d %H:%M %z")
        for at in islice(found.after(after), count)
    ]


def test_a_fixed_time_that_the_clock_leaves_out_comes_when_the_gap_ends() -> None:
    found = cron("30 2 * * *", "Europe/Berlin")
    assert shown(found, ms(2026, 3, 28), 3) == ["28 02:30 +0100", "29 03:00 +0200", "30 02:30 +0200"]


def test_a_fixed_time_that_comes_twice_comes_the_first_time() -> None:
    found = cron("30 2 * * *", "Europe/Berlin")
    assert shown(found, ms(2026, 10, 24), 3) == ["24 02:30 +0200", "25 02:30 +0200", "26 02:30 +0100"]


def test_between_the_two_a_fixed_time_does_not_come_again() -> None:
    found = cron("30 2 * * *", "Europe/Berlin")
    between = ms(2026, 10, 25, 1, 10)  # 02:10 for the second time
    assert shown(found, between, 1) == ["26 02:30 +0100"]
    assert shown(found, ms(2026, 10, 25, 0, 30), 1) == ["26 02:30 +0100"]


def test_several_times_in_the_gap_are_one_at_its_end() -> None:
    found = cron("0,30 2 * * *", "Europe/Berlin")
    assert shown(found, ms(2026, 3, 29), 2) == ["29 03:00 +0200", "30 02:00 +0200"]


def test_what_recurs_within_hours_follows_the_clock_on_the_wall() -> None:
    found = cron("*/30 * * * *", "Europe/Berlin")
    assert shown(found, ms(2026, 3, 29, 0, 10), 3) == ["29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200"]
    assert shown(found, ms(2026, 10, 25, 0, 10), 4) == [
        "25 02:30 +0200",
        "25 02:00 +0100",
        "25 02:30 +0100",
        "25 03:00 +0100",
    ]


@given(
    st.sampled_from(("30 2 * * *", "*/7 * * * *", "0,30 2 * * *", "0 0 * * SUN", "15 1-3 * * *", "0 12 29 2 *")),
    st.sampled_from(("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Beirut")),
    st.integers(ms(2020, 1, 1), ms(2030, 1, 1)),
)
def test_instants_grow_and_going_on_from_one_of_them_changes_nothing(text: str, zone: str, start: int) -> None:
    found = cron(text, zone)
    row = list(islice(found.after(start), 12))
    assert [start, *row] == sorted({start, *row})
    for n, at in enumerate(row[:-1]):
        assert next(found.after(at)) == row[n + 1], "a new leader goes on from what is stored"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "five fields.*write minute"),
        ("* * * * * *", "for seconds there is `every`"),
        ("60 * * * *", "bad minute.*e.g. '0 3"),
        ("0 3 * * FUN", "bad day-of-week"),
        ("0 0 30 2 *", "bad day-of-month"),
        ("0 0 */29 2 MON#5", "never occurs"),
        ("L/2 * * * *", "bad minute"),
        ("* " * 3000, "five fields"),
    ],
)
def test_what_is_no_cron_text_is_refused_with_the_remedy(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        cron(text, "UTC")


@pytest.mark.parametrize(
    "zone", ["", "Berlin", "Europe", "../etc/passwd", "/etc/localtime", "Europe/Berlin\n", "a" * 80]
)
def test_what_is_no_time_zone_is_refused_with_the_remedy(zone: str) -> None:
    with pytest.raises(ValueError, match=r"e\.g\. Europe/Berlin"):
        cron("0 3 * * *", zone)


@given(st.text("0123456789*/,-LW# SUNMONJAN²", max_size=40))
def test_whatever_a_text_is_it_is_taken_or_refused(text: str) -> None:
    try:
        found = cron(text, "UTC")
    except ValueError:
        return
    assert next(found.after(0)) > 0


def test_an_interval_counts_from_its_anchor_and_does_not_drift() -> None:
    found = Every(10_000, 3)
    assert list(islice(found.after(3), 2)) == [10_003, 20_003]
    assert list(islice(found.after(987_654), 2)) == [990_003, 1_000_003]
    assert next(found.after(-5)) == 3, "nothing before it"
