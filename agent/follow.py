"""What following takes: polls into the feed, and what is told of them on stderr.

It knows no formats, and nobody who subscribes.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine

from .config import Config
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
from .stream.encoder import AgentInfo
from .stream.feed import HISTORY_BURST_SECONDS, Feed

# Allocations between two looks for cyclic garbage: there is little, and each look is a pause.
GC_THRESHOLD = 100_000


def _nothing() -> None:
    pass


class Follower:
    """The feed of an agent that polls; ``work`` is what must run for it."""

    def __init__(
        self, poller: Poller, agent: AgentInfo, config: Config, left: SavedState | None = None
    ) -> None:
        """``left`` is what an earlier run of the same epoch left."""
        self.feed = Feed(agent, stats=PollStats(), history_burst=HISTORY_BURST_SECONDS)
        self._tracker = DeltaTracker()
        self._missing: tuple[str, ...] = ()  # In the last poll.
        self._logged: set[str] = set()  # Kinds of sentences on what is missing.
        if left is not None:
            self.feed.restore(left.seq, left.history())
            self._tracker = DeltaTracker(left.snapshot, left.opened_at)
        self.polled: Callable[[], None] = _nothing  # Called after each poll,
        self.progressed: Callable[[], None] = _nothing  # and after each part of one.
        self._poller = poller
        self._config = config

    def work(self) -> list[Coroutine[None, None, None]]:
        """The coroutines to be run until the end, all of them. They raise RuntimeFailure."""
        telling = [] if self._config.stats is None else [self._tell(self._config.stats)]
        return [self._poll(), *telling]

    def left(self) -> SavedState | None:
        """What is left to a later run; None before the first poll."""
        feed = self.feed
        if feed.snapshot is None:
            return None
        held = [(one.time, one.deltas, one.first) for one in feed.history.batches]
        return SavedState(feed.epoch, feed.seq, feed.snapshot, self._tracker.opened_at, held)

    def progress(self) -> None:
        """Report that a part of a poll was completed."""
        self.progressed()

    async def _poll(self) -> None:
        tracker, feed = self._tracker, self.feed
        try:
            async for snapshot in snapshots(self._poller, self._config.interval, feed.stats):
                first = feed.snapshot is None
                deltas = tracker.advance(snapshot)
                self.progressed()
                feed.publish(snapshot, deltas)
                self.polled()
                self._log(snapshot.coverage, first=first)
                if first:
                    gc.freeze()
                    gc.set_threshold(GC_THRESHOLD)
                    gc.enable()
        except OSError as error:
            raise RuntimeFailure(f"there is no procfs: {error.strerror}") from error

    def _log(self, coverage: Coverage, *, first: bool) -> None:
        """Log what is missing, each kind of sentence once."""
        if first:
            warn(coverage)
        if coverage.missing == self._missing:
            return
        self._missing = coverage.missing
        for text in coverage.missing:
            if (its_kind := kind(text)) not in self._logged:
                self._logged.add(its_kind)
                if not first:
                    log(f"warning: {text}")

    async def _tell(self, seconds: float) -> None:
        """Say what the polls cost, for ever."""
        while True:
            await asyncio.sleep(seconds)
            log(sentence(self.feed.stats.figures()))
