"""The times of polls, by a clock that only polls and sleeps advance."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from itertools import pairwise
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.model import Snapshot
from agent.snapshot.poller import Poller
from agent.snapshot.stats import PollStats, WorkCounters
from agent.snapshot.ticker import (
    MAX_DOUBLINGS,
    MAX_LATE,
    WINDOW,
    AdaptiveInterval,
    next_tick,
    snapshots,
)

from ..fakeproc import FakeProc
from ..make import snapshot


class Clock:
    """The event loop's clock and the clock of CPU time; polls and sleeps advance them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, start: float = 1000.0) -> None:
        self.now = start
        self.cpu = 50.0
        monkeypatch.setattr("agent.snapshot.ticker.asyncio.get_running_loop", lambda: self)
        monkeypatch.setattr("agent.snapshot.ticker.asyncio.sleep", self.sleep)
        monkeypatch.setattr("agent.snapshot.ticker.time.process_time", lambda: self.cpu)

    def time(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.now += seconds


class Polls:
    """A poller whose polls take the given times; ``begun`` records when each began."""

    def __init__(self, clock: Clock, *seconds: float) -> None:
        self._clock = clock
        self._seconds: Iterator[float] = iter(seconds)
        self.begun: list[float] = []
        self.work = WorkCounters()
        self.trace = None
        self.event_counts = (0, 0, 0)

    async def poll(self) -> Snapshot:
        self.begun.append(self._clock.now - 1000.0)
        self._clock.now += next(self._seconds)
        self._clock.cpu += 0.25
        self.work = WorkCounters(
            *(count + added for count, added in zip(self.work, (1, 2, 3), strict=True))
        )
        return snapshot(time=self._clock.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


async def take(polls: Polls, interval: float, count: int, stats: PollStats) -> list[Snapshot]:
    stream = cast("Any", snapshots(cast("Poller", polls), interval, stats))
    async with aclosing(stream):
        return [await anext(stream) for _ in range(count)]


@pytest.mark.parametrize(
    ("seconds", "begun"),
    [
        ([0.25, 0.25, 0.25], [0.0, 1.0, 2.0]),
        ([0.25, 0.75, 0.0], [0.0, 1.0, 2.0]),
        ([2.5, 0.25, 0.25], [0.0, 3.0, 4.0]),
        ([0.25, 2.5, 0.25], [0.0, 1.0, 4.0]),
        ([1.0, 1.0, 1.0], [0.0, 2.0, 4.0]),
    ],
)
async def test_polls_begin_on_ticks_and_a_late_poll_skips_ticks(
    clock: Clock, seconds: list[float], begun: list[float]
) -> None:
    polls = Polls(clock, *seconds)
    await take(polls, 1.0, len(seconds), PollStats())
    assert polls.begun == begun


async def test_a_slow_consumer_does_not_shift_the_ticks(clock: Clock) -> None:
    polls = Polls(clock, *[0.25] * 3)
    stream = snapshots(cast("Poller", polls), 1.0, PollStats())
    for _ in range(3):
        await anext(stream)
        clock.now += 0.5
    assert polls.begun == [0.0, 1.0, 2.0]
    await cast("Any", stream).aclose()


async def test_the_first_snapshot_is_taken_at_once(clock: Clock) -> None:
    (first,) = await take(Polls(clock, 0.25), 3600.0, 1, PollStats())
    assert first.time == 1000.25


async def test_every_poll_is_in_the_statistics(clock: Clock) -> None:
    stats = PollStats()
    await take(Polls(clock, 0.25, 0.25, 0.5), 1.0, 3, stats)
    figures = stats.figures()
    assert (figures.polls, figures.poll_ms, figures.poll_p99_ms) == (3, 250.0, 500.0)
    assert figures.poll_cpu_ms == 250.0
    assert (figures.processes_walked, figures.descriptors_read, figures.rows_decoded) == (1, 2, 3)


@pytest.mark.parametrize(
    ("seconds", "late"),
    [([0.25, 0.75, 0.25], 0), ([0.25, 1.5, 0.25], 1), ([1.25, 1.25, 1.25], 3), ([9.0], 1)],
)
async def test_a_poll_that_ends_after_the_next_tick_is_late(
    clock: Clock, seconds: list[float], late: int
) -> None:
    stats = PollStats()
    await take(Polls(clock, *seconds), 1.0, len(seconds), stats)
    assert stats.figures().late_polls == late


async def test_an_error_of_a_poll_is_raised(fake: FakeProc) -> None:
    poller = fake.poller()
    fake.root.rename(fake.root.with_name("away"))
    with pytest.raises(OSError):
        await anext(snapshots(poller, 1.0, PollStats()))


async def test_each_poll_yields_a_snapshot(fake: FakeProc) -> None:
    fake.process(7)
    stats = PollStats()
    polls: AsyncIterator[Snapshot] = snapshots(fake.poller(), 0.05, stats)
    assert (await anext(polls)).processes == {1: 100, 7: 100}
    fake.end(7)
    assert (await anext(polls)).processes == {1: 100}
    assert stats.figures().polls == 2


async def test_waiting_for_a_snapshot_can_be_cancelled(fake: FakeProc) -> None:
    polls = snapshots(fake.poller(), 3600.0, PollStats())
    await anext(polls)
    waiting = asyncio.ensure_future(cast("Any", anext(polls)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting


# Ticks.


@pytest.mark.parametrize(
    ("elapsed", "interval", "tick"),
    [(0.0, 1.0, 1.0), (0.2, 1.0, 1.0), (1.0, 1.0, 2.0), (3.7, 1.0, 4.0), (3.7, 0.5, 4.0)],
)
def test_the_next_tick_is_a_multiple_of_the_interval(
    elapsed: float, interval: float, tick: float
) -> None:
    assert next_tick(elapsed, interval) == tick


@given(st.floats(0, 1e6), st.floats(0.05, 3600))
def test_ticks_do_not_drift_and_are_in_the_future(elapsed: float, interval: float) -> None:
    tick = next_tick(elapsed, interval)
    assert elapsed <= tick <= elapsed + interval * (1 + 1e-9)
    assert math.isclose(tick / interval, round(tick / interval), rel_tol=1e-9)


def test_late_polls_skip_ticks_and_are_never_bunched() -> None:
    starts, ends = [0.0], [0.3]
    for length in (0.3, 2.5, 0.1, 1.0, 0.2):
        starts.append(next_tick(ends[-1], 1.0))
        ends.append(starts[-1] + length)
    assert starts == [0.0, 1.0, 2.0, 5.0, 6.0, 8.0]
    assert all(later - earlier >= 1.0 for earlier, later in pairwise(starts))


# The adaptive interval.


async def intervals(clock: Clock, interval: float, seconds: list[float]) -> list[float]:
    """Return the seconds from each poll to the next."""
    polls = Polls(clock, *seconds)
    await take(polls, interval, len(seconds), PollStats())
    return [round(b - a, 6) for a, b in pairwise(polls.begun)]


async def test_the_interval_is_doubled_when_many_polls_are_late(clock: Clock) -> None:
    found = await intervals(clock, 0.5, [0.75] * 40)
    assert found[:4] == [1.0] * 4  # Each poll misses a tick.
    polls = Polls(clock, *[0.75] * 20)
    last = (await take(polls, 0.5, 20, PollStats()))[-1]
    assert last.coverage.missing == (
        "polls take longer than --interval 0.5: the interval is now 1 s",
    )


async def test_the_interval_stays_when_few_polls_are_late(clock: Clock) -> None:
    polls = Polls(clock, *([0.75] * (MAX_LATE - 1) + [0.1] * WINDOW) * 3)
    found = await take(polls, 0.5, 3 * (WINDOW + MAX_LATE - 1), PollStats())
    assert all(one.coverage.complete for one in found)


async def test_the_interval_is_halved_again_when_polls_are_short(clock: Clock) -> None:
    polls = Polls(clock, *[0.75] * MAX_LATE, *[0.1] * (2 * WINDOW))
    found = await take(polls, 0.5, MAX_LATE + 2 * WINDOW, PollStats())
    assert not found[MAX_LATE].coverage.complete
    assert found[-1].coverage.complete
    assert round(polls.begun[-1] - polls.begun[-2], 6) == 0.5


@given(st.floats(0.05, 10.0), st.lists(st.floats(0.0, 60.0), max_size=200))
def test_the_interval_is_at_least_the_requested_one_and_bounded(
    interval: float, polls: list[float]
) -> None:
    adaptive = AdaptiveInterval(interval)
    for seconds in polls:
        adaptive.add(seconds, late=seconds > adaptive.interval)
        assert interval <= adaptive.interval <= interval * 2**MAX_DOUBLINGS
        assert (adaptive.sentence() is None) == (adaptive.interval == interval)
