"""The feed: one stream of numbered deltas with a bounded history, and its subscriptions."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..model import Closed, Coverage, Delta, Holding, Opened, Snapshot, Updated
from ..snapshot.stats import PollStats, PollSummary
from .encoder import AgentInfo, Encoder
from .filters import Filter
from .history import Batch, History
from .lines import MAX_CHUNK_BYTES
from .ndjson import NdjsonSubscription
from .subscription import FullSnapshot
from .view import View, Views, Wrap, unchanged

# Both bound the history: minutes of a busy machine.
HISTORY_RECORDS = 10_000
HISTORY_BYTES = 24 * 1024 * 1024
# The deltas of so many seconds are held in a storm of connections: a reader may be late.
HISTORY_BURST_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0

_EVERYTHING = Filter()
_EVENTS: dict[type, str] = {
    Opened: "open", Updated: "update", Closed: "close", Coverage: "coverage"
}  # fmt: skip


class Feed:
    """The stream of one run of the agent. ``publish`` is called with the outcome of each poll."""

    def __init__(
        self,
        agent: AgentInfo,
        *,
        stats: PollStats | None = None,
        clock: Callable[[], float] = time.time,
        history_records: int = HISTORY_RECORDS,
        history_bytes: int = HISTORY_BYTES,
        history_burst: float = 0.0,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        """``stats`` are what heartbeats report of the polls; ``history_burst`` is in seconds."""
        self.epoch = agent.epoch
        self.stats = stats or PollStats()
        self.clock = clock
        self.heartbeat_seconds = heartbeat_seconds
        self.history = History(history_records, history_bytes, history_burst)
        self.views = Views(Encoder(agent))
        self.seq = 0
        self.snapshot: Snapshot | None = None
        self.stopped = False
        self.records: Counter[str] = Counter()  # Deltas since the start, by event.
        self.lost = 0  # ``lost`` records that subscribers got.
        self._polls = 0
        self._holdings: tuple[Holding, ...] | None = None  # Of the snapshot, once asked for.
        # Counts polls with deltas, and the end. A waiter compares it with the count that it has
        # seen: an event alone may be set in the very turn in which a wait times out.
        self.generation = 0
        self._changed = asyncio.Event()
        self._published = time.monotonic()

    def restore(self, seq: int, batches: Sequence[Batch]) -> None:
        """Continue after ``seq``, with the history of an earlier run of the same epoch."""
        self.seq = seq
        self.history.restore(batches, seq)

    def age(self) -> float:
        """Return the seconds since the last poll was published, or since the start."""
        return time.monotonic() - self._published

    def publish(self, snapshot: Snapshot, deltas: Sequence[Delta]) -> None:
        """Make ``snapshot`` the newest state, which ``deltas`` lead to from the one before."""
        self.views.encoder.forget_processes_except(snapshot.processes.keys())
        if deltas:
            batch = Batch(snapshot.time, deltas, self.seq + 1)
            self.seq = batch.last
            self.history.append(batch)
            for kind, count in Counter(map(type, deltas)).items():
                self.records[_EVENTS[kind]] += count
        self._polls += 1
        self._published = time.monotonic()
        self.snapshot, self._holdings = snapshot, None
        if deltas or self._polls == 1:
            self._wake()

    def stop(self) -> None:
        """End every subscription once it has taken all that there is."""
        self.stopped = True
        self._wake()

    def subscribe(
        self,
        chosen: Filter = _EVERYTHING,
        *,
        resume: tuple[str, int] | None = None,
        snapshot: bool = True,
        wrap: Wrap = unchanged,
        page_bytes: int = MAX_CHUNK_BYTES,
    ) -> NdjsonSubscription:
        """Return a new subscription that gives NDJSON; for one that gives values, see
        ``Subscription``.

        ``resume`` is the (epoch, seq) to continue after; ``snapshot``: whether one is wanted where
        that cannot be. ``wrap`` makes of a chunk what a transport sends; a snapshot comes in pages
        of at most ``page_bytes``. Subscriptions equal in all these share what is encoded.
        """
        view = self.view(chosen, wrap, page_bytes)
        return NdjsonSubscription(self, view, resume, snapshot=snapshot)

    def view(self, chosen: Filter, wrap: Wrap, page_bytes: int) -> View:
        """Return the view through a filter, for ``NdjsonSubscription.change_view``."""
        return self.views.get(chosen, wrap, page_bytes)

    def holdings(self) -> tuple[Holding, ...]:
        """Return the holdings of the newest snapshot."""
        if self._holdings is None:
            self._holdings = () if self.snapshot is None else tuple(self.snapshot.holdings.values())
        return self._holdings

    def full_snapshot(self) -> FullSnapshot:
        """Return the newest snapshot. Raises RuntimeError before the first poll."""
        if self.snapshot is None:
            raise RuntimeError("no poll was published yet")
        return FullSnapshot(self._polls, self.seq, self.snapshot.time, self.holdings())

    def poll_summary(self) -> PollSummary:
        """Return what the newest polls cost."""
        return self.stats.figures()

    def count_loss(self) -> None:
        """Count a ``lost`` record."""
        self.lost += 1

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until ``generation`` differs from ``seen``, at most ``seconds``; return it."""
        if self.generation == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(seconds, 0)):
                    await self._changed.wait()
        return self.generation

    def _wake(self) -> None:
        self.generation += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
