"""The live feed: one stream of records, numbered, with a bounded history; and its subscriptions.

A subscription is a cursor into the history. It costs nothing while it lags; when it lags behind
the history it is told what it lost and gets a fresh snapshot. The feed knows neither sockets nor
transports.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from weakref import WeakValueDictionary

from ..model import (
    Closed,
    Coverage,
    Delta,
    Holding,
    Opened,
    Snapshot,
    Updated,
)
from ..snapshot.stats import PollStats
from .cache import ChunkCache
from .encoder import AgentInfo, Encoder
from .filters import Filter
from .history import Batch, History
from .lines import CHUNK_BYTES
from .ndjson import NdjsonSubscription
from .view import KEPT_BYTES, Key, View, Wrap, as_is

# The history is bounded in both: minutes of a busy machine.
HISTORY_RECORDS = 10_000
HISTORY_BYTES = 24 * 1024 * 1024
# Of a storm of connections the changes of so many seconds are held: a reader may be late.
HISTORY_BURST_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0

_EVERYTHING = Filter()
_EVENTS: dict[type, str] = {
    Opened: "open", Updated: "update", Closed: "close", Coverage: "coverage"
}  # fmt: skip


class Feed:
    """The stream of one agent run. ``publish`` is called with each poll's outcome."""

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
        self.epoch = agent.epoch
        self.stats = stats or PollStats()
        self.encoder = Encoder(agent)
        self.clock = clock
        self.heartbeat_seconds = heartbeat_seconds
        self.history = History(history_records, history_bytes, history_burst)
        self.seq = 0
        self.snapshot: Snapshot | None = None
        self.stopped = False
        self.records: Counter[str] = Counter()  # Changes since the start, by event.
        self.lost = 0  # How often a subscriber was told that it lost records.
        self._holdings: tuple[Holding, ...] | None = None  # Of the snapshot, once asked for.
        self._kept = ChunkCache[Key](KEPT_BYTES)
        self._views: WeakValueDictionary[tuple[Filter, Wrap, int], View] = WeakValueDictionary()
        # Counts publications with something new, and the end. A waiter compares it with the count
        # that it has seen: an event alone may be set in the very turn in which a wait times out.
        self.generation = 0
        self._news = asyncio.Event()
        self._published = time.monotonic()

    def restore(self, seq: int, batches: Sequence[Batch]) -> None:
        """Go on behind ``seq``, with the history of an earlier run of the same epoch."""
        self.seq = seq
        self.history.restore(batches, seq)

    def age(self) -> float:
        """Seconds since the last publication, or the start."""
        return time.monotonic() - self._published

    def publish(self, snapshot: Snapshot, deltas: Sequence[Delta]) -> None:
        """Make ``snapshot`` the newest state, which ``deltas`` lead to from the one before."""
        self.encoder.forget_all_but(snapshot.processes.keys())
        if deltas:
            batch = Batch(snapshot.time, deltas, self.seq + 1)
            self.seq = batch.last
            self.history.append(batch)
            for kind, count in Counter(map(type, deltas)).items():
                self.records[_EVENTS[kind]] += count
        first = self.snapshot is None
        self._published = time.monotonic()
        self.snapshot, self._holdings = snapshot, None
        if deltas or first:
            self._wake()

    def stop(self) -> None:
        """End every subscription once it has got what is there."""
        self.stopped = True
        self._wake()

    def subscribe(
        self,
        chosen: Filter = _EVERYTHING,
        *,
        resume: tuple[str, int] | None = None,
        snapshot: bool = True,
        wrap: Wrap = as_is,
        page_bytes: int = CHUNK_BYTES,
    ) -> NdjsonSubscription:
        """A new subscription. ``resume`` is the (epoch, seq) to go on behind; ``snapshot`` whether
        one is wanted where that cannot be.

        ``wrap`` makes of a chunk what a transport sends; a snapshot comes in pages of at most
        ``page_bytes``. What is equal in all these is encoded once for all subscriptions.
        """
        return NdjsonSubscription(self, self.view(chosen, wrap, page_bytes), resume, snapshot)

    def view(self, chosen: Filter, wrap: Wrap, page_bytes: int) -> View:
        """The view through this filter, which all share who want the same."""
        key = (chosen, wrap, page_bytes)
        view = self._views.get(key)
        if view is None:
            view = View(chosen, self.encoder, self._kept, wrap, page_bytes)
            self._views[key] = view
        return view

    def holdings(self) -> tuple[Holding, ...]:
        """Those of the newest snapshot, in a row."""
        if self._holdings is None:
            self._holdings = () if self.snapshot is None else tuple(self.snapshot.holdings.values())
        return self._holdings

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until ``generation`` differs from ``seen``, at most ``seconds``; return it."""
        if self.generation == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(seconds, 0)):
                    await self._news.wait()
        return self.generation

    def _wake(self) -> None:
        self.generation += 1
        news, self._news = self._news, asyncio.Event()
        news.set()
