"""Settings of reading a fleet: --since and --keep."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import UsageError
from agent.fleet_settings import (
    EVERYTHING,
    FleetSettings,
    Keep,
    parse_keep,
    parse_since,
)

MOMENT = 1_795_835_524.0
NOW = MOMENT + 86_400
HOURS = timedelta(hours=1)


@pytest.mark.parametrize("word", ["now", "start"])
def test_words_of_since(word: str) -> None:
    assert parse_since(word, NOW) == word


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-28T03:12:04Z",
        "2026-11-28T03:12:04+00:00",
        "2026-11-28T05:12:04+02:00",
        "2026-11-28 03:12:04Z",
        "20261128T031204Z",
        "2026-11-27T23:12:04-0400",
    ],
)
def test_times_of_since(text: str) -> None:
    assert parse_since(text, NOW) == MOMENT


@pytest.mark.parametrize(("text", "seconds"), [("-90s", 90), ("-5m", 300), ("-1.5h", 5400)])
def test_a_time_before_now(text: str, seconds: float) -> None:
    assert parse_since(text, NOW) == NOW - seconds


def test_a_time_in_the_future_is_refused() -> None:
    with pytest.raises(UsageError, match="is in the future"):
        parse_since("2026-11-28T03:12:04Z", MOMENT - 1)


def test_a_time_without_a_zone_is_local() -> None:
    assert parse_since("2026-11-28T03:12:04", NOW) == datetime(2026, 11, 28, 3, 12, 4).timestamp()
    assert parse_since("2026-11-28", NOW) == datetime(2026, 11, 28).timestamp()


@pytest.mark.parametrize(
    "text",
    ["", " ", "Now", "start ", "yesterday", "-5y", "1795835524", "12:30", "2026-13-01",
     "2026-02-30T00:00:00Z", "2026-11-28T25:00:00Z", "2026-11-28T03:12:04+25:00",
     "0001-01-01T00:00:00+23:59", "0001-01-02T00:00:00Z", "1969-12-31T23:59:59Z",
     "2026-11-28T03:12:04Z\n", "\u0662026-11-28"],
)  # fmt: skip
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(UsageError, match="is not now, start or a time such as") as raised:
        parse_since(text, NOW)
    assert raised.value.argument == "since"


@given(
    st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),
    st.integers(-23, 23),
)
def test_a_time_in_any_zone_is_the_same(moment: datetime, hours: int) -> None:
    at = moment.replace(tzinfo=UTC)
    local = at.astimezone(timezone(hours * HOURS))
    found = at.timestamp()
    assert parse_since(local.isoformat(), found) == found


@given(st.text(max_size=30))
def test_any_text_of_since_is_a_time_or_wrong_usage(text: str) -> None:
    found: str | float = text
    with suppress(UsageError):
        found = parse_since(text, NOW)
    assert found == text or (isinstance(found, float) and found >= 0)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], EVERYTHING),
        (["1h"], Keep(seconds=3600)),
        (["48h"], Keep(seconds=172_800)),
        (["14d"], Keep(seconds=1_209_600)),
        (["999999d"], Keep(seconds=86_399_913_600)),
        (["1M"], Keep(size=1_000_000)),
        (["50G"], Keep(size=50_000_000_000)),
        (["2T"], Keep(size=2_000_000_000_000)),
        (["14d", "50G"], Keep(1_209_600, 50_000_000_000)),
        (["50G", "14d"], Keep(1_209_600, 50_000_000_000)),
    ],
)
def test_limits_of_keep(values: list[str], expected: Keep) -> None:
    assert parse_keep(values) == expected


@pytest.mark.parametrize(
    "value",
    ["", "0d", "0G", "01d", "-1d", "+1d", "1.5d", "1 d", " 1d", "1d ", "1d\n", "1", "d", "1D",
     "1g", "1k", "1m", "1GB", "1GiB", "1d1G", "14d,50G", "1000000d", "1000000000M", "\u0661d",
     "1e3G"],
)  # fmt: skip
def test_what_is_no_limit(value: str) -> None:
    with pytest.raises(UsageError, match="is not an age or a size such as") as raised:
        parse_keep(["1d", value])
    assert raised.value.argument == "keep"


@given(st.integers(1, 999_999), st.integers(1, 999_999_999))
def test_ages_and_sizes_are_multiples_of_their_units(age: int, size: int) -> None:
    hours, days = parse_keep([f"{age}h", f"{size}M"]), parse_keep([f"{age}d", f"{size}G"])
    assert hours == (age * 3600, size * 10**6)
    assert days == (age * 86_400, size * 10**9)


@given(st.text(alphabet="0123456789hdMGT ,.-x", max_size=8))
def test_any_text_of_keep_is_a_limit_or_wrong_usage(text: str) -> None:
    found = None
    with suppress(UsageError):
        found = parse_keep([text])
    if found is not None:
        (limit,) = (one for one in found if one is not None)
        assert 0 < int(text[:-1]) <= limit


def test_keep_requires_a_recording() -> None:
    with pytest.raises(UsageError, match="requires --record DIR"):
        FleetSettings(keep=Keep(size=1))
    with pytest.raises(UsageError, match="expected a directory"):
        FleetSettings(record="")
    assert FleetSettings(record="d", keep=Keep(size=1)).since == "now"
