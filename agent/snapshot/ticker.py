"""Poll at a regular interval, and measure what each poll costs."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator

from ..model import Snapshot
from .poller import Poller
from .stats import PollCost, PollStats, WorkCounters

# The interval is doubled if MAX_LATE of the newest WINDOW polls were late. It is halved again if
# all of them took less than MAX_SHARE of the halved interval.
WINDOW, MAX_LATE, MAX_SHARE = 20, 4, 0.25
# Seconds between two snapshots of what events show, at least.
EVENT_PAUSE = 0.01
# The most times that the interval is doubled: --interval 0.05 then allows polls of 1.6 s.
MAX_DOUBLINGS = 5


class AdaptiveInterval:
    """An interval that is doubled while polls take too long. Pure."""

    def __init__(self, interval: float) -> None:
        self._requested = interval
        self._doublings = 0
        self._newest: deque[tuple[float, bool]] = deque(maxlen=WINDOW)

    @property
    def interval(self) -> float:
        """Return the seconds from one poll to the next."""
        return self._requested * (1 << self._doublings)

    def add(self, seconds: float, *, late: bool) -> None:
        """Add a poll: how long it took, and whether it ended after the next poll was due."""
        self._newest.append((seconds, late))
        if sum(late for _seconds, late in self._newest) >= MAX_LATE:
            self._set(min(self._doublings + 1, MAX_DOUBLINGS))
        elif len(self._newest) == WINDOW and self._doublings:
            longest = max(seconds for seconds, _late in self._newest)
            if longest < self.interval / 2 * MAX_SHARE:
                self._set(self._doublings - 1)

    def _set(self, doublings: int) -> None:
        self._doublings = doublings
        self._newest.clear()

    def sentence(self) -> str | None:
        """Return a sentence about a longer interval; None if the interval is the requested one."""
        if not self._doublings:
            return None
        return (
            f"polls take longer than --interval {self._requested:g}: the interval is now "
            f"{self.interval:g} s"
        )


async def snapshots(poller: Poller, interval: float, vitals: PollStats) -> AsyncIterator[Snapshot]:
    """Yield a snapshot at once, then one every ``interval`` seconds of the monotonic clock. The
    schedule does not drift: a poll that ends late skips ticks. If many polls are late, the interval
    is lengthened, and the coverage says so. Raise what the poller raises."""
    adaptive = AdaptiveInterval(interval)
    clock = asyncio.get_running_loop().time
    start = clock()
    tick, cpu, work = 0.0, time.process_time(), poller.work
    while True:
        begun = clock()
        snapshot = await poller.poll()
        ended = clock()
        done = WorkCounters(*(now - was for now, was in zip(poller.work, work, strict=True)))
        spent = time.process_time() - cpu
        late = ended - start >= tick + adaptive.interval
        vitals.add(PollCost(ended - begun, spent, done), late=late)
        vitals.set_events(*poller.event_counts)
        adaptive.add(ended - begun, late=late)
        cpu, work = time.process_time(), poller.work
        sentence = adaptive.sentence()
        yield _with(snapshot, sentence)
        tick = next_tick(clock() - start, adaptive.interval)
        async for shown in _event_snapshots(poller, start + tick):
            yield _with(shown, sentence)


async def _event_snapshots(poller: Poller, until: float) -> AsyncIterator[Snapshot]:
    """Yield what events show until this time of the event loop's clock."""
    clock, trace = asyncio.get_running_loop().time, poller.trace
    if trace is None:
        await asyncio.sleep(until - clock())
        return
    while (remaining := until - clock()) > 0:
        is_due = poller.is_waiting
        if await trace.wait(min(remaining, EVENT_PAUSE) if is_due else remaining) or is_due:
            snapshot = await poller.poll_events()
            if snapshot is not None:
                yield snapshot
            await asyncio.sleep(max(0.0, min(EVENT_PAUSE, until - clock())))


def _with(snapshot: Snapshot, sentence: str | None) -> Snapshot:
    """Return the snapshot with a sentence added to its coverage."""
    if sentence is None:
        return snapshot
    coverage = snapshot.coverage
    return snapshot._replace(coverage=coverage._replace(missing=(*coverage.missing, sentence)))


def next_tick(elapsed: float, interval: float) -> float:
    """Return the next multiple of ``interval`` after ``elapsed``, both in seconds."""
    return (math.floor(elapsed / interval) + 1) * interval
