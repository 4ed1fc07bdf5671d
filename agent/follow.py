"""Continuous polling: publish each snapshot to the feed, and log what is missing from it."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable

from .errors import RuntimeFailure
from .log import log
from .model import Coverage
from .preflight import warn
from .service.handover import SavedState
from .snapshot.coverage import kind
from .snapshot.poller import Poller
from .snapshot.stats import PollStats, sentence
from .snapshot.ticker import snapshots
from .stream.diff import DeltaTracker
from .stream.feed import Feed

# Allocations between two runs of the cyclic garbage collector: there is little such garbage, and
# each run is a pause.
GC_THRESHOLD = 100_000


class Follower:
    """Polls and publishes in a feed. ``on_progress`` is called after each part of the work between
    two publications, ``on_poll`` after each publication."""

    def __init__(
        self,
        poller: Poller,
        feed: Feed,
        *,
        saved: SavedState | None = None,
        on_progress: Callable[[], None],
        on_poll: Callable[[], None],
    ) -> None:
        """``saved`` is the state of an earlier run with the same epoch as the feed."""
        self._poller = poller
        self._feed = feed
        self._tracker = (
            DeltaTracker() if saved is None else DeltaTracker(saved.snapshot, saved.opened_at)
        )
        self._on_progress = on_progress
        self._on_poll = on_poll
        self._missing: tuple[str, ...] = ()  # In the newest snapshot.
        self._logged: set[str] = set()  # Kinds of the sentences in ``_missing`` that were logged.

    async def run(self, interval: float) -> None:
        """Poll every ``interval`` seconds until cancelled. Raises RuntimeFailure."""
        feed = self._feed
        try:
            async for snapshot in snapshots(self._poller, interval, feed.stats):
                is_first = feed.snapshot is None
                deltas = self._tracker.advance(snapshot)
                self._on_progress()
                feed.publish(snapshot, deltas)
                self._on_poll()
                self._log_missing(snapshot.coverage, is_first=is_first)
                if is_first:
                    gc.freeze()
                    gc.set_threshold(GC_THRESHOLD)
                    gc.enable()
        except OSError as error:
            raise RuntimeFailure(f"cannot read procfs: {error.strerror}") from error

    def state(self) -> SavedState | None:
        """Return the state for a later run; None before the first poll."""
        feed = self._feed
        if feed.snapshot is None:
            return None
        batches = [(batch.time, batch.deltas, batch.first) for batch in feed.history.batches]
        return SavedState(feed.epoch, feed.seq, feed.snapshot, self._tracker.opened_at, batches)

    def _log_missing(self, coverage: Coverage, *, is_first: bool) -> None:
        """Log what is missing; each kind of sentence once."""
        if is_first:
            warn(coverage)
        if coverage.missing == self._missing:
            return
        self._missing = coverage.missing
        for text in coverage.missing:
            if (of_kind := kind(text)) not in self._logged:
                self._logged.add(of_kind)
                if not is_first:
                    log(f"warning: {text}")


async def log_stats(stats: PollStats, seconds: float) -> None:
    """Log the cost of the polls every ``seconds`` seconds, until cancelled."""
    while True:
        await asyncio.sleep(seconds)
        log(sentence(stats.figures()))
