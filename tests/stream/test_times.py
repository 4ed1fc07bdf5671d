from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.stream.times import Span, parse_time, timestamp

DAY = 1_795_824_000.0  # 2026-11-28T00:00:00Z
NOON = DAY + 12 * 3600
HOUR = 3600
EAST = timezone(timedelta(hours=2))


def day() -> Span:
    """A recording of a day and a little more, that ends at noon."""
    return Span(NOON - 24 * HOUR - 60.5, NOON)


def no_span() -> Span:
    raise AssertionError("the span is not needed")


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("2026-11-28T03:12:04Z", DAY + 3 * HOUR + 724),
        ("2026-11-28T03:12:04+02:00", DAY + HOUR + 724),
        ("2026-11-28T03:12:04", DAY + 3 * HOUR + 724),
        ("2026-11-28 03:12", DAY + 3 * HOUR + 720),
        ("2026-11-28T03:12:04.250000Z", DAY + 3 * HOUR + 724.25),
        ("2026-11-28", DAY),
    ],
)
def test_a_date_and_time(text: str, at: float) -> None:
    assert parse_time(text, no_span, UTC) == at


def test_a_time_without_an_offset_is_of_the_zone() -> None:
    assert parse_time("2026-11-28T03:12:04", no_span, EAST) == DAY + HOUR + 724
    assert parse_time("2026-11-28T03:12:04Z", no_span, EAST) == DAY + 3 * HOUR + 724


@pytest.mark.parametrize(
    ("text", "at"),
    [("-90s", NOON - 90), ("-5m", NOON - 300), ("-1.5h", NOON - 5400), ("-2d", NOON - 172_800)],
)
def test_a_time_before_the_end(text: str, at: float) -> None:
    assert parse_time(text, day) == at


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("03:12:04", DAY + 3 * HOUR + 724),
        ("03:12", DAY + 3 * HOUR + 720),
        ("03:12:04.5", DAY + 3 * HOUR + 724.5),
        ("12:00:00", NOON),
        ("12:00:01", NOON + 1 - 24 * HOUR),
        ("23:50", DAY - 600),
        ("11:59", NOON - 60),
    ],
)
def test_a_time_of_day_is_the_last_one_in_the_recording(text: str, at: float) -> None:
    assert parse_time(text, day, UTC) == at


def night() -> Span:
    """A recording from 23:50:00.5 to 00:10."""
    return Span(DAY - 599.5, DAY + 600)


@pytest.mark.parametrize(
    ("text", "at"),
    [
        ("23:50:01", DAY - 599),
        ("23:50:00", DAY - 599.5),  # The second of the first record.
        ("00:00", DAY),
        ("00:10:00", DAY + 600),
    ],
)
def test_the_day_is_the_one_on_which_the_recording_has_that_time(text: str, at: float) -> None:
    assert parse_time(text, night, UTC) == at


@pytest.mark.parametrize("text", ["01:49:59", "02:10:01", "23:55:00"])
def test_a_time_of_day_that_the_recording_has_not(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_time(text, night, EAST)
    assert str(raised.value) == (
        f"{text} is not in the recording, which is from 2026-11-28T01:50:00+02:00 to "
        "2026-11-28T02:10:00+02:00"
    )


def test_the_day_is_that_of_the_zone() -> None:
    east = timezone(timedelta(hours=14))  # Where the end is at 02:00 of the 29th.
    assert parse_time("01:00", day, east) == NOON - HOUR
    assert parse_time("03:00", day, east) == NOON - 23 * HOUR


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("new_york")
def test_the_local_zone() -> None:
    assert parse_time("2026-11-28T03:12:04", no_span) == DAY + 8 * HOUR + 724
    assert parse_time("2026-07-28T03:12:04", no_span) == parse_time("2026-07-28T07:12:04Z", no_span)
    assert parse_time("06:30", day) == NOON - 1800
    assert parse_time("07:30", day) == NOON + 1800 - 24 * HOUR


@pytest.mark.parametrize(
    "text",
    ["", "noon", "-5", "5m", "-5w", "-m", "25:00", "3:12", "03:61", "2026-13-01", "2026-11-28T",
     "-٣m", "2026-02-30T00:00:00Z", "99999-01-01"],
)  # fmt: skip
def test_what_is_not_a_time(text: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_time(text, day)
    assert raised.value.argument == "at"
    assert str(raised.value) == (
        f"{text!r} is not a time; expected for example 03:12:04, 2026-11-28T03:12:04Z or -5m"
    )


@given(st.text() | st.from_regex(r"-?[0-9]{1,12}([-:T.+][0-9]{1,3}){0,7}[smhdZ]?", fullmatch=True))
def test_any_text_is_a_time_or_an_error(text: str) -> None:
    try:
        at = parse_time(text, day)
    except UsageError:
        return
    assert isinstance(at, float)


@given(st.floats(0, 4e9))
def test_the_time_of_a_record_can_be_typed(at: float) -> None:
    text = timestamp(at)
    assert timestamp(parse_time(text, no_span)) == text


def test_timestamp() -> None:
    assert timestamp(1_700_000_000.25) == "2023-11-14T22:13:20.250000Z"
    assert timestamp(0) == "1970-01-01T00:00:00.000000Z"
    assert timestamp(1.9999996) == "1970-01-01T00:00:02.000000Z"


@given(st.floats(-1e9, 1e10))
def test_a_timestamp_has_the_nearest_microsecond(seconds: float) -> None:
    expected = datetime.fromtimestamp(seconds, UTC)
    assert abs(datetime.fromisoformat(timestamp(seconds)) - expected) <= timedelta(microseconds=1)
