"""The live feed: one stream of records, numbered, with a bounded history; and its subscriptions.

A subscription is a cursor into the history. It costs nothing while it lags; when it lags behind
the history it is told what it lost and gets a fresh snapshot. The feed knows neither sockets nor
transports.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import suppress
from itertools import repeat
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
from .encoder import Agent, Encoder
from .filters import Filter
from .history import Batch, History
from .lines import CHUNK_BYTES
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
        agent: Agent,
        *,
        vitals: PollStats | None = None,
        clock: Callable[[], float] = time.time,
        history_records: int = HISTORY_RECORDS,
        history_bytes: int = HISTORY_BYTES,
        history_burst: float = 0.0,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.epoch = agent.epoch
        self.vitals = vitals or PollStats()
        self.encoder = Encoder(agent)
        self.clock = clock
        self.heartbeat = heartbeat
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
    ) -> Subscription:
        """A new subscription. ``resume`` is the (epoch, seq) to go on behind; ``snapshot`` whether
        one is wanted where that cannot be.

        ``wrap`` makes of a chunk what a transport sends; a snapshot comes in pages of at most
        ``page_bytes``. What is equal in all these is encoded once for all subscriptions.
        """
        return Subscription(self, self.view(chosen, wrap, page_bytes), resume, snapshot)

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

    async def news(self, seen: int, seconds: float) -> int:
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


class Subscription:
    """One subscriber's cursor. ``take`` gives what is to be sent, chunk by chunk, each of whole
    records; iterated over, it waits for more, and says so when there is nothing to say."""

    def __init__(
        self, feed: Feed, view: View, resume: tuple[str, int] | None, snapshot: bool
    ) -> None:
        self.view = view
        self.seq = 0  # The newest delta that was sent, or that the snapshot sent included.
        view.enter()
        self._feed = feed
        self._resume = resume
        self._wants_snapshot = snapshot
        self._chunks: Iterator[bytes | None] = self._stream()

    def take(self) -> bytes | None:
        """The next chunk; empty when it takes another turn to find it; None when there is none."""
        return next(self._chunks)

    def close(self) -> None:
        """Let go of everything: there is nobody to send to any more."""
        chunks, self._chunks = self._chunks, repeat(None)
        if isinstance(chunks, Generator):
            chunks.close()
            self.view.leave()

    def look_through(self, view: View) -> None:
        """Begin anew with another view: with ``hello`` and, where one is wanted, a snapshot."""
        self.close()
        view.enter()
        self.view = view
        self._resume = None
        self._chunks = self._stream()

    def heartbeat(self) -> bytes:
        """The record to say that there is nothing to say."""
        feed = self._feed
        return self.view.wrap(feed.encoder.heartbeat(self.seq, feed.clock(), feed.vitals.figures()))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        feed = self._feed
        clock = asyncio.get_running_loop().time
        said = clock()
        while True:
            seen = feed.generation
            chunk = self.take()
            if chunk:
                yield chunk
                said = clock()
            elif chunk is not None:
                await asyncio.sleep(0)
            elif feed.stopped:
                return
            elif await feed.news(seen, said + feed.heartbeat - clock()) == seen and feed.snapshot:
                yield self.heartbeat()
                said = clock()

    def _stream(self) -> Generator[bytes | None, None, None]:
        """What ``take`` gives, for ever."""
        feed, wrap = self._feed, self.view.wrap
        while (snapshot := feed.snapshot) is None:
            yield None
        # Sequence and snapshot are taken together: at each yield newer ones may be published.
        resumed = self._can_resume()
        # A snapshot that follows is no older.
        now = feed.clock() if resumed else snapshot.time
        pages = None
        if not resumed and self._wants_snapshot:
            pages = self.view.snapshot(snapshot, feed.holdings(), self.seq)
        yield wrap(feed.encoder.hello(self.seq, now, snapshot.coverage, resumed=resumed))
        if pages is not None:
            yield from pages
        while True:
            if not feed.history.holds(self.seq):
                yield from self._lost()
            elif (batch := feed.history.after(self.seq)) is not None:
                first, self.seq = self.seq + 1, batch.last
                yield from self.view.deltas(batch, first)
            else:
                yield None

    def _can_resume(self) -> bool:
        """Settle where the subscription begins; whether that is where it asked to resume."""
        self.seq = self._feed.seq
        if self._resume is None:
            return False
        epoch, seq = self._resume
        if epoch != self._feed.epoch or seq > self.seq or not self._feed.history.holds(seq):
            return False
        self.seq = seq
        return True

    def _lost(self) -> Iterator[bytes]:
        """What was lost, and a fresh snapshot."""
        feed = self._feed
        assert feed.snapshot is not None  # Nothing is lost before the first.
        feed.lost += 1
        first, self.seq = self.seq + 1, feed.seq
        now = feed.snapshot.time
        pages = self.view.snapshot(feed.snapshot, feed.holdings(), self.seq)
        yield self.view.wrap(feed.encoder.lost(self.seq, now, first, self.seq))
        if pages is not None:
            yield from pages
