"""What running as a systemd service takes: that it is ready, how it does, and that it still polls.

It knows the feed and who serves it, and nothing of how polls are made.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from ..log import log
from ..stream.feed import Feed
from .handover import FD_NAME, MAX_HOLDINGS, SavedState, save
from .sd_notify import Notifier

# How often the status is told anew.
STATUS_SECONDS = 5.0
# How often the watchdog is fed in the midst of a poll.
FEED_SECONDS = 5.0
# Intervals that a watchdog waits at the least.
WATCHDOG_INTERVALS = 3.0


class ServiceStatus:
    """Tells systemd of each poll. ``subscribers`` counts them; ``interval`` is in seconds."""

    def __init__(
        self, notifier: Notifier, feed: Feed, subscribers: Callable[[], int], interval: float
    ) -> None:
        self._notifier = notifier
        self._feed = feed
        self._subscribers = subscribers
        self._ready = False
        self._told = 0.0
        self._fed = time.monotonic()
        self._problem: str | None = None  # Why the newest reload changed nothing.
        patience = interval * WATCHDOG_INTERVALS
        if notifier.watchdog is not None and notifier.watchdog < patience:
            notifier.tell(WATCHDOG_USEC=int(patience * 1_000_000))

    def report_poll(self) -> None:
        """A poll is through: the watchdog need not bark."""
        now = time.monotonic()
        self._feed_watchdog(now)
        if self._ready and now - self._told < STATUS_SECONDS:
            return
        if not self._ready:
            # What an earlier run left counts once: from now on it is of the past.
            self._notifier.tell(FDSTOREREMOVE=1, FDNAME=FD_NAME)
        ready = {} if self._ready else {"READY": 1}
        self._ready, self._told = True, now
        self._notifier.tell(**ready, STATUS=self.status())

    def report_progress(self) -> None:
        """A part of a poll is through: on a machine with millions of sockets one takes long."""
        now = time.monotonic()
        if now - self._fed >= FEED_SECONDS:
            self._feed_watchdog(now)

    def _feed_watchdog(self, now: float) -> None:
        self._fed = now
        if self._notifier.watchdog is not None:
            self._notifier.tell(WATCHDOG=1)

    def report_reloaded(self, problem: str | None = None) -> None:
        """What ``reloading`` began is done; or nothing was changed, because of a problem."""
        self._problem = problem
        self._notifier.tell(READY=1, STATUS=self.status())

    def report_reloading(self) -> None:
        """The configuration is read again."""
        self._notifier.reloading()

    def store_state(self, left: SavedState | None, machine: tuple[str, str | None]) -> None:
        """Leave this to the next run, where systemd started us and keeps such things."""
        if left is None or not self._notifier.listens:
            return
        count = len(left.snapshot.holdings)
        if count > MAX_HOLDINGS:
            log(f"clients begin anew: {count} sockets are too many to be handed on")
        else:
            with suppress(OSError):
                descriptor = save(left, machine)
                self._notifier.store(FD_NAME, descriptor)
                os.close(descriptor)

    def report_stopping(self) -> None:
        """It is about to end."""
        self._notifier.tell(STOPPING=1, STATUS="Stopping")

    def status(self) -> str:
        """One line for ``systemctl status``."""
        figures = self._feed.stats.figures()
        snapshot = self._feed.snapshot
        sockets = 0 if snapshot is None else len(snapshot.holdings)
        processes = 0 if snapshot is None else snapshot.coverage.processes
        problem = "" if self._problem is None else f"; the reload changed nothing: {self._problem}"
        return (
            f"{sockets} sockets of {processes} processes, {self._subscribers()} subscribers; "
            f"{figures.polls} polls, of {figures.poll_ms} ms each, {figures.late_polls} late"
            f"{problem}"
        )
