"""The live feed: one stream of records, numbered, with a bounded history; and its subscriptions.

A subscription is a cursor into the history and an async iterator of chunks of NDJSON. It costs
nothing while it lags; when it lags behind the history it is told what it lost and gets a fresh
snapshot. The feed knows neither sockets nor transports.
"""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import NamedTuple

from .filters import Filter
from .lines import chunks, snapshot_lines
from .model import Closed, Coverage, Delta, Opened, Snapshot, Updated
from .records import Agent, Encoder
from .vitals import Vitals

# The history is bounded in both; a record is about 600 bytes, and as much again for its data.
HISTORY_RECORDS = 20_000
HISTORY_BYTES = 8 * 1024 * 1024
HEARTBEAT_SECONDS = 15.0

_EVERYTHING = Filter()


class Entry(NamedTuple):
    """One delta in the history, as data and as its record."""

    seq: int
    delta: Delta
    line: bytes


class Batch(NamedTuple):
    """The deltas of one poll, never empty: numbered ``first`` to ``last``, ``size`` bytes."""

    time: float
    entries: tuple[Entry, ...]
    first: int
    last: int
    size: int


def batch_of(time: float, entries: tuple[Entry, ...]) -> Batch:
    """The batch of these entries."""
    size = sum(len(entry.line) for entry in entries)
    return Batch(time, entries, entries[0].seq, entries[-1].seq, size)


class History:
    """The newest batches, bounded in records and in bytes."""

    def __init__(self, records: int, size: int) -> None:
        self._most_records, self._most_bytes = records, size
        self._batches: list[Batch] = []
        self._start = 0  # The oldest one that is still held; those before it are cleared in bulk.
        self._records = self._bytes = 0
        self._dropped = 0  # The newest seq that is no longer held.

    def append(self, batch: Batch) -> None:
        """Add the newest batch; the oldest ones make room."""
        self._batches.append(batch)
        self._records += len(batch.entries)
        self._bytes += batch.size
        while self._records > self._most_records or self._bytes > self._most_bytes:
            oldest = self._batches[self._start]
            self._batches[self._start] = oldest._replace(entries=())
            self._start += 1
            self._records -= len(oldest.entries)
            self._bytes -= oldest.size
            self._dropped = oldest.last
        if self._start > len(self._batches) // 2:
            del self._batches[: self._start]
            self._start = 0

    def holds(self, seq: int) -> bool:
        """Whether everything behind ``seq`` is still held."""
        return seq >= self._dropped

    def after(self, seq: int) -> Batch | None:
        """The oldest batch with something behind ``seq``; None when there is none."""
        at = bisect_right(self._batches, seq, lo=self._start, key=_last)
        return self._batches[at] if at < len(self._batches) else None


def _last(batch: Batch) -> int:
    return batch.last


class Feed:
    """The stream of one agent run. ``publish`` is called with each poll's outcome."""

    def __init__(
        self,
        agent: Agent,
        *,
        vitals: Vitals | None = None,
        clock: Callable[[], float] = time.time,
        history_records: int = HISTORY_RECORDS,
        history_bytes: int = HISTORY_BYTES,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.epoch = agent.epoch
        self.vitals = vitals or Vitals()
        self.encoder = Encoder(agent)
        self.clock = clock
        self.heartbeat = heartbeat
        self.history = History(history_records, history_bytes)
        self.seq = 0
        self.snapshot: Snapshot | None = None
        self.stopped = False
        self._news = asyncio.Event()

    def publish(self, snapshot: Snapshot, deltas: Sequence[Delta]) -> None:
        """Make ``snapshot`` the newest state, which ``deltas`` lead to from the one before."""
        self.encoder.forget_all_but(snapshot.processes.keys())
        if deltas:
            encode, now = self.encoder.delta, snapshot.time
            entries = tuple(
                Entry(seq, delta, encode(delta, seq, now))
                for seq, delta in enumerate(deltas, self.seq + 1)
            )
            self.seq = entries[-1].seq
            self.history.append(batch_of(now, entries))
        first = self.snapshot is None
        self.snapshot = snapshot
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
    ) -> Subscription:
        """A new subscription. ``resume`` is the (epoch, seq) to go on behind; ``snapshot`` whether
        one is wanted where that cannot be."""
        return Subscription(self, chosen, resume, snapshot)

    async def news(self, seconds: float) -> bool:
        """Wait for the next publication or the end; False when there was none for so long."""
        try:
            async with asyncio.timeout(max(seconds, 0)):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _wake(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Subscription:
    """One subscriber's cursor: an async iterator of chunks, each of whole records."""

    def __init__(
        self, feed: Feed, chosen: Filter, resume: tuple[str, int] | None, snapshot: bool
    ) -> None:
        self._feed = feed
        self._filter = chosen
        self._resume = resume
        self._wants_snapshot = snapshot
        self._seq = 0  # The newest delta that was sent, or that the snapshot sent included.

    async def __aiter__(self) -> AsyncIterator[bytes]:
        feed = self._feed
        while feed.snapshot is None:
            if feed.stopped:
                return
            await feed.news(feed.heartbeat)
        # Sequence and snapshot are taken together: at each yield newer ones may be published.
        resumed, snapshot = self._can_resume(), feed.snapshot
        # A snapshot that follows is no older.
        now = feed.clock() if resumed else snapshot.time
        yield feed.encoder.hello(self._seq, now, snapshot.coverage, resumed=resumed)
        if not resumed and self._wants_snapshot:
            for chunk in self._snapshot(snapshot):
                yield chunk
        clock = asyncio.get_running_loop().time
        said = clock()
        while True:
            for chunk in self._next():
                yield chunk
                said = clock()
            if self._seq < feed.seq:
                continue
            if feed.stopped:
                return
            if not await feed.news(said + feed.heartbeat - clock()):
                yield feed.encoder.heartbeat(self._seq, feed.clock(), feed.vitals.figures())
                said = clock()

    def _next(self) -> Iterator[bytes]:
        """What is to be said next: a batch, or what was lost with a snapshot, or nothing."""
        feed = self._feed
        snapshot = feed.snapshot
        if snapshot is not None and not feed.history.holds(self._seq):
            yield self._lost(snapshot.time)
            yield from self._snapshot(snapshot)
        elif (batch := feed.history.after(self._seq)) is not None:
            first, self._seq = self._seq + 1, batch.last
            yield from chunks(self._lines(batch, first))

    def _can_resume(self) -> bool:
        """Settle where the subscription begins; whether that is where it asked to resume."""
        self._seq = self._feed.seq
        if self._resume is None:
            return False
        epoch, seq = self._resume
        if epoch != self._feed.epoch or seq > self._seq or not self._feed.history.holds(seq):
            return False
        self._seq = seq
        return True

    def _lost(self, now: float) -> bytes:
        first, self._seq = self._seq + 1, self._feed.seq
        return self._feed.encoder.lost(self._seq, now, first, self._seq)

    def _snapshot(self, snapshot: Snapshot) -> Iterator[bytes]:
        """The snapshot's records, encoded as they are taken."""
        encoder, seq = self._feed.encoder, self._seq
        count = 0
        if "snapshot" not in self._filter.events:
            return iter(())

        def lines() -> Iterator[bytes]:
            nonlocal count
            for line in snapshot_lines(
                encoder, snapshot.holdings.values(), self._filter, seq, snapshot.time
            ):
                count += 1
                yield line
            yield encoder.snapshot_end(seq, snapshot.time, count)

        return chunks(lines())

    def _lines(self, batch: Batch, first: int) -> Iterator[bytes]:
        """The records of a batch from ``first`` on, as this subscriber's filter shows them."""
        everything = self._filter.passes_all and len(self._filter.events) == 4
        for entry in batch.entries:
            if entry.seq < first:
                continue
            if everything:
                yield entry.line
            else:
                line = seen_through(self._filter, entry, batch.time, self._feed.encoder)
                if line is not None:
                    yield line


def seen_through(chosen: Filter, entry: Entry, now: float, encoder: Encoder) -> bytes | None:
    """The record of a delta as a filter shows it; None when it is hidden.

    What an update brings into the filter opens, what it takes out closes: the fold stays right.
    """
    delta = entry.delta
    match delta:
        case Coverage():
            return entry.line
        case Opened(holding):
            event, passes = "open", chosen.matches(holding)
        case Closed(holding):
            event, passes = "close", chosen.matches(holding)
        case Updated(holding, before, seconds):
            after, passes = chosen.matches(holding), chosen.matches(before)
            if after and passes:
                event = "update"
            elif after:
                if "open" not in chosen.events:
                    return None
                return encoder.holding(encoder.head("open", entry.seq, now), holding)
            else:
                if not passes or "close" not in chosen.events:
                    return None
                return encoder.closed(before, "filtered", seconds, entry.seq, now)
    return entry.line if passes and event in chosen.events else None
