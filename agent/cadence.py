"""The cadence of polls, and what each of them cost. It knows nothing of what a poll does."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator

from .model import Snapshot
from .poller import Poller
from .vitals import Poll, Vitals, Work


async def snapshots(poller: Poller, interval: float, vitals: Vitals) -> AsyncIterator[Snapshot]:
    """A snapshot at once, then one every ``interval`` seconds of the monotonic clock.

    The schedule does not drift; a poll that ends late skips ticks and never bunches them. Raises
    what the poller does.
    """
    clock = asyncio.get_running_loop().time
    start = clock()
    tick, cpu, work = 0.0, time.process_time(), poller.work
    while True:
        begun = clock()
        snapshot = await poller.poll()
        ended = clock()
        done = Work(*(now - was for now, was in zip(poller.work, work, strict=True)))
        spent = time.process_time() - cpu
        late = ended - start >= tick + interval
        vitals.add(Poll(ended - begun, spent, done), late=late)
        cpu, work = time.process_time(), poller.work
        yield snapshot
        elapsed = clock() - start
        tick = next_tick(elapsed, interval)
        await asyncio.sleep(tick - elapsed)


def next_tick(elapsed: float, interval: float) -> float:
    """The next whole multiple of ``interval`` behind ``elapsed`` (seconds since the start)."""
    return (math.floor(elapsed / interval) + 1) * interval
