"""The cadence of polls, and what each of them cost. It knows nothing of what a poll does."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import AsyncIterator

from ..model import Snapshot
from .poller import Poller
from .stats import PollCost, PollStats, WorkCounters

# The interval is doubled where so many of the newest polls were late, and halved again where all of
# these took less than a quarter of the time that is then between two.
WINDOW, MAX_LATE, MAX_SHARE = 20, 4, 0.25
# Times that the interval is doubled at the most: polls of more than a second at 0.05 s.
MAX_DOUBLINGS = 5


class Stretch:
    """How far the interval is stretched because polls take too long. Pure."""

    def __init__(self, interval: float) -> None:
        self._wanted = interval
        self._doublings = 0
        self._newest: deque[tuple[float, bool]] = deque(maxlen=WINDOW)

    @property
    def interval(self) -> float:
        """Seconds from one poll to the next."""
        return self._wanted * (1 << self._doublings)

    def add(self, seconds: float, *, late: bool) -> None:
        """Take in another poll: how long it took, and whether it ended after the next was due."""
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
        """Return what is to be reported of it; None where the interval is as it was asked for."""
        if not self._doublings:
            return None
        return (
            f"polls take longer than --interval {self._wanted:g}: there is one every "
            f"{self.interval:g} s"
        )


async def snapshots(poller: Poller, interval: float, vitals: PollStats) -> AsyncIterator[Snapshot]:
    """A snapshot at once, then one every ``interval`` seconds of the monotonic clock.

    The schedule does not drift; a poll that ends late skips ticks and never bunches them. Where
    many polls do, the interval is stretched, which the coverage says. Raises what the poller does.
    """
    stretch = Stretch(interval)
    clock = asyncio.get_running_loop().time
    start = clock()
    tick, cpu, work = 0.0, time.process_time(), poller.work
    while True:
        begun = clock()
        snapshot = await poller.poll()
        ended = clock()
        done = WorkCounters(*(now - was for now, was in zip(poller.work, work, strict=True)))
        spent = time.process_time() - cpu
        late = ended - start >= tick + stretch.interval
        vitals.add(PollCost(ended - begun, spent, done), late=late)
        stretch.add(ended - begun, late=late)
        cpu, work = time.process_time(), poller.work
        yield _with(snapshot, stretch.sentence())
        elapsed = clock() - start
        tick = next_tick(elapsed, stretch.interval)
        await asyncio.sleep(tick - elapsed)


def _with(snapshot: Snapshot, sentence: str | None) -> Snapshot:
    """Return the snapshot with another sentence on what is missing."""
    if sentence is None:
        return snapshot
    coverage = snapshot.coverage
    return snapshot._replace(coverage=coverage._replace(missing=(*coverage.missing, sentence)))


def next_tick(elapsed: float, interval: float) -> float:
    """The next whole multiple of ``interval`` behind ``elapsed`` (seconds since the start)."""
    return (math.floor(elapsed / interval) + 1) * interval
