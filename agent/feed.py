"""The live feed: one stream of records, numbered, with a bounded history; and its subscriptions.

A subscription is a cursor into the history and an async iterator of chunks of NDJSON. It costs
nothing while it lags; when it lags behind the history it is told what it lost and gets a fresh
snapshot. The feed knows neither sockets nor transports.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

from .filters import Filter
from .model import Closed, Coverage, Delta, Opened, Snapshot, Updated
from .records import Agent, Encoder

# A chunk is at most this many bytes, unless a single record is longer: what one WebSocket message
# may carry, and what is encoded between two turns of the event loop.
CHUNK_BYTES = 256 * 1024
# The history is bounded in both; a record is about 600 bytes.
HISTORY_RECORDS = 50_000
HISTORY_BYTES = 16 * 1024 * 1024
HEARTBEAT_SECONDS = 15.0

_EVERYTHING = Filter()


class Entry(NamedTuple):
    """One delta in the history, as data and as its record."""

    seq: int
    delta: Delta
    line: bytes


class Batch(NamedTuple):
    """The deltas of one poll; never empty."""

    time: float
    entries: tuple[Entry, ...]

    @property
    def first(self) -> int:
        return self.entries[0].seq

    @property
    def last(self) -> int:
        return self.entries[-1].seq

    @property
    def size(self) -> int:
        return sum(len(entry.line) for entry in self.entries)


class History:
    """The newest batches, bounded in records and in bytes."""

    def __init__(self, records: int, size: int) -> None:
        self._most_records, self._most_bytes = records, size
        self._batches: deque[Batch] = deque()
        self._records = self._bytes = 0
        self._dropped = 0  # The newest seq that is no longer held.

    def append(self, batch: Batch) -> None:
        """Add the newest batch; the oldest ones make room."""
        self._batches.append(batch)
        self._records += len(batch.entries)
        self._bytes += batch.size
        while self._batches and (
            self._records > self._most_records or self._bytes > self._most_bytes
        ):
            oldest = self._batches.popleft()
            self._records -= len(oldest.entries)
            self._bytes -= oldest.size
            self._dropped = oldest.last

    def since(self, seq: int) -> list[Batch] | None:
        """What came behind ``seq``, oldest first; None when the history no longer holds it all.

        The first batch may begin before that.
        """
        if seq < self._dropped:
            return None
        found: list[Batch] = []
        for batch in reversed(self._batches):
            if batch.last <= seq:
                break
            found.append(batch)
        return found[::-1]


class Feed:
    """The stream of one agent run. ``publish`` is called with each poll's outcome."""

    def __init__(
        self,
        agent: Agent,
        *,
        clock: Callable[[], float] = time.time,
        history_records: int = HISTORY_RECORDS,
        history_bytes: int = HISTORY_BYTES,
        heartbeat: float = HEARTBEAT_SECONDS,
    ) -> None:
        self.epoch = agent.epoch
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
            self.history.append(Batch(now, entries))
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
            async with asyncio.timeout(seconds):
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
        resumed = self._can_resume()
        yield feed.encoder.hello(
            self._seq, feed.clock(), feed.snapshot.coverage, resumed=resumed
        )
        if not resumed and self._wants_snapshot:
            for chunk in self._snapshot(feed.snapshot):
                yield chunk
        while True:
            batches = feed.history.since(self._seq)
            if batches is None:
                yield self._lost()
                for chunk in self._snapshot(feed.snapshot):
                    yield chunk
                continue
            for batch in batches:
                first, self._seq = self._seq + 1, batch.last
                for chunk in chunks(self._lines(batch, first)):
                    yield chunk
            if self._seq == feed.seq:
                if feed.stopped:
                    return
                if not await feed.news(feed.heartbeat):
                    yield feed.encoder.heartbeat(self._seq, feed.clock())

    def _can_resume(self) -> bool:
        """Settle where the subscription begins; whether that is where it asked to resume."""
        self._seq = self._feed.seq
        if self._resume is None:
            return False
        epoch, seq = self._resume
        if epoch != self._feed.epoch or seq > self._seq or self._feed.history.since(seq) is None:
            return False
        self._seq = seq
        return True

    def _lost(self) -> bytes:
        first, self._seq = self._seq + 1, self._feed.seq
        return self._feed.encoder.lost(self._seq, self._feed.clock(), first, self._seq)

    def _snapshot(self, snapshot: Snapshot) -> Iterator[bytes]:
        """The snapshot's records, encoded as they are taken."""
        encoder, seq = self._feed.encoder, self._seq
        count = 0
        if "snapshot" not in self._filter.events:
            return iter(())

        def lines() -> Iterator[bytes]:
            nonlocal count
            for line in snapshot_lines(encoder, snapshot, self._filter, seq):
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


def snapshot_lines(
    encoder: Encoder, snapshot: Snapshot, chosen: Filter, seq: int
) -> Iterator[bytes]:
    """The ``snapshot`` records that a filter lets through."""
    if "snapshot" not in chosen.events:
        return
    head, encode = encoder.head("snapshot", seq, snapshot.time), encoder.holding
    all_pass, matches = chosen.passes_all, chosen.matches
    for holding in snapshot.holdings.values():
        if all_pass or matches(holding):
            yield encode(head, holding)


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
        case Updated(holding, before):
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
                return encoder.closed(before, "filtered", None, entry.seq, now)
    return entry.line if passes and event in chosen.events else None


def chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines joined to chunks of at most CHUNK_BYTES; a longer line is a chunk of its own."""
    gathered: list[bytes] = []
    size = 0
    for line in lines:
        if size + len(line) > CHUNK_BYTES and gathered:
            yield b"".join(gathered)
            gathered, size = [], 0
        gathered.append(line)
        size += len(line)
    if gathered:
        yield b"".join(gathered)
