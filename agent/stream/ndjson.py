"""Subscriptions that give the stream as NDJSON, encoded once for all that want the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterator
from itertools import repeat
from typing import TYPE_CHECKING

from .view import View

if TYPE_CHECKING:
    from .feed import Feed


class NdjsonSubscription:
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

    def change_view(self, view: View) -> None:
        """Begin anew with another view: with ``hello`` and, where one is wanted, a snapshot."""
        self.close()
        view.enter()
        self.view = view
        self._resume = None
        self._chunks = self._stream()

    def heartbeat(self) -> bytes:
        """The record to say that there is nothing to say."""
        feed = self._feed
        return self.view.wrap(feed.encoder.heartbeat(self.seq, feed.clock(), feed.stats.figures()))

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
            elif (
                await feed.wait(seen, said + feed.heartbeat_seconds - clock()) == seen
                and feed.snapshot
            ):
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
