"""State of the service as systemd shows and supervises it: readiness, status line, watchdog."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress

from ..log import log
from ..stream.feed import Feed
from .handover import FD_NAME, MAX_HOLDINGS, SavedState, save
from .sd_notify import Notifier

# Least time between two status lines.
STATUS_SECONDS = 5.0
# Least time between two watchdog messages during a poll.
WATCHDOG_SECONDS = 5.0
# The watchdog must wait for this many poll intervals at least.
MIN_WATCHDOG_INTERVALS = 3.0


class ServiceStatus:
    """Reports to systemd how the agent works. ``describe`` returns that as a line; ``interval`` is
    the time between polls in seconds."""

    def __init__(self, notifier: Notifier, describe: Callable[[], str], interval: float) -> None:
        self._notifier = notifier
        self._describe = describe
        self._is_ready = False
        self._status_time = 0.0
        self._watchdog_time = time.monotonic()
        self._reload_error: str | None = None  # Of the last reload.
        shortest = interval * MIN_WATCHDOG_INTERVALS
        if notifier.watchdog_seconds is not None and notifier.watchdog_seconds < shortest:
            notifier.send(WATCHDOG_USEC=int(shortest * 1_000_000))

    def report_poll(self) -> None:
        """Report a finished poll: the watchdog, readiness after the first one, the status."""
        now = time.monotonic()
        self._reset_watchdog(now)
        if self._is_ready and now - self._status_time < STATUS_SECONDS:
            return
        if not self._is_ready:
            # The stored state of the previous run is outdated from the first poll on.
            self._notifier.send(FDSTOREREMOVE=1, FDNAME=FD_NAME)
        ready = {} if self._is_ready else {"READY": 1}
        self._is_ready, self._status_time = True, now
        self._notifier.send(**ready, STATUS=self._status())

    def report_progress(self) -> None:
        """Report a part of a poll: with millions of sockets one takes longer than the watchdog."""
        now = time.monotonic()
        if now - self._watchdog_time >= WATCHDOG_SECONDS:
            self._reset_watchdog(now)

    def report_reloading(self) -> None:
        """Report that a reload begins; ``report_reloaded`` must follow."""
        self._notifier.send(RELOADING=1, MONOTONIC_USEC=time.monotonic_ns() // 1000)

    def report_reloaded(self, error: str | None = None) -> None:
        """Report the end of a reload, or that it failed and changed nothing."""
        self._reload_error = error
        self._notifier.send(READY=1, STATUS=self._status())

    def report_stopping(self) -> None:
        """Report that the agent is about to end."""
        self._notifier.send(STOPPING=1, STATUS="Stopping")

    def store_state(self, state: SavedState | None, machine: tuple[str, str | None]) -> None:
        """Store the state in systemd for the next run of the service; ``machine`` is its host name
        and boot id."""
        if state is None or not self._notifier.is_connected:
            return
        count = len(state.snapshot.holdings)
        if count > MAX_HOLDINGS:
            log(
                f"the state is not saved: it has {count} sockets, and the limit is {MAX_HOLDINGS}; "
                "subscribers get a new snapshot"
            )
            return
        with suppress(OSError):
            descriptor = save(state, machine)
            self._notifier.store_descriptor(FD_NAME, descriptor)
            os.close(descriptor)

    def _reset_watchdog(self, now: float) -> None:
        self._watchdog_time = now
        if self._notifier.watchdog_seconds is not None:
            self._notifier.send(WATCHDOG=1)

    def _status(self) -> str:
        """Return one line for ``systemctl status``."""
        error = "" if self._reload_error is None else f"; reload failed: {self._reload_error}"
        return self._describe() + error


def describe_agent(feed: Feed, subscribers: Callable[[], int]) -> str:
    """Return how an agent works, in a line. ``subscribers`` returns how many there are."""
    figures = feed.stats.figures()
    snapshot = feed.snapshot
    sockets = 0 if snapshot is None else len(snapshot.holdings)
    processes = 0 if snapshot is None else snapshot.coverage.processes
    return (
        f"{sockets} sockets of {processes} processes, {subscribers()} subscribers; "
        f"{figures.polls} polls of {figures.poll_ms} ms each, {figures.late_polls} late"
    )
