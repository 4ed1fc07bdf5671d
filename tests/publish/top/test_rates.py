"""Counts of the last minute, and clocks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import TcpFigures
from agent.publish.top.model import Traffic
from agent.publish.top.rates import RATE_SECONDS, WINDOW, Clocks, Rates

FIGURES = TcpFigures(10, 20, 1, 1, 1, 2.5)


def test_a_minute_is_counted() -> None:
    rates = Rates()
    for second in range(200):
        rates.open(second)
        rates.close(second, FIGURES, short=second % 2 == 0)
    assert rates.per_second(200, 0) == (1.0, 1.0)
    assert rates.short_share(200) == 0.5
    assert rates.opens_within(200, 2) == 2
    opens, closes = rates.sparks(200)
    assert opens == closes == [1] * WINDOW
    assert rates.expire(200)
    assert rates.traffic() == Traffic(600, 1200, 60, 2.5)
    assert not rates.expire(1000)
    assert rates.traffic() is None
    assert rates.short_share(1000) is None


def test_the_second_that_is_not_over_does_not_count() -> None:
    rates = Rates()
    rates.open(100.5)
    assert rates.per_second(100.9, 0) == (0.0, 0.0)
    assert rates.per_second(101.0, 0) == (0.1, 0.0)


def test_a_clock_that_was_set_back_begins_anew() -> None:
    rates = Rates()
    rates.open(1000)
    rates.open(998)  # An event that was read late.
    assert rates.per_second(1001, 0) == (0.2, 0.0)
    rates.open(100)
    assert rates.per_second(101, 0) == (0.1, 0.0)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 1) | st.floats(0, 4e9), st.booleans())))
def test_counts_are_bounded_and_those_of_times_in_order_are_exact(
    events: list[tuple[bool, float, bool]],
) -> None:
    rates = Rates()
    times = sorted(time for _, time, _ in events)
    for (is_open, _, is_short), time in zip(events, times, strict=True):
        if is_open:
            rates.open(time)
        else:
            rates.close(time, None, short=is_short)
    assert len(rates._seconds) <= WINDOW + 1
    if not events:
        return
    now = times[-1] + 1
    opens = sum(
        1 for (is_open, _, _), time in zip(events, times, strict=True)
        if is_open and int(now) - RATE_SECONDS <= int(time) < int(now)
    )  # fmt: skip
    assert rates.per_second(now, 0)[0] == pytest.approx(opens / min(RATE_SECONDS, int(now)))


@given(st.lists(st.floats(0, 4e9)))
def test_times_in_any_order_are_bounded(times: list[float]) -> None:
    rates = Rates()
    for time in times:
        rates.open(time)
        assert len(rates._seconds) <= WINDOW + 1
        assert 0 <= (rates.short_share(time) or 0) <= 1
        rates.expire(time)
        rates.sparks(time)


def test_the_time_of_a_host_goes_on() -> None:
    clocks = Clocks(one_clock=False)
    clocks.record("web1", 500.0)
    clocks.record("web1", 499.5)
    clocks.advance(1000.0)
    assert clocks.of("web1") == 500.0
    clocks.advance(1003.0)
    assert (clocks.of("web1"), clocks.silence("web1"), clocks.newest()) == (503.0, 3.0, 500.0)
    clocks.record("web1", 502.0)  # It was on its way for a second.
    clocks.advance(1003.0)
    assert (clocks.of("web1"), clocks.silence("web1")) == (503.0, 0.0)
    clocks.record("web1", 100.0)  # The clock was set.
    clocks.advance(1004.0)
    assert clocks.of("web1") == 100.0


def test_with_one_clock_the_time_is_that_of_the_screen() -> None:
    clocks = Clocks(one_clock=True)
    clocks.record("web1", 500.0)
    clocks.advance(510.0)
    assert (clocks.of("web1"), clocks.silence("web1"), clocks.of("other")) == (510.0, 10.0, 510.0)
    assert clocks.silence("other") == 0.0
