"""The streams of several agents as one: what a relay serves."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import NamedTuple
from weakref import WeakSet

from .feed import HEARTBEAT_SECONDS, Feed, NdjsonSubscription
from .filters import Filter
from .publication import Positions, Publication
from .view import MAX_CHUNK_BYTES, Wrap, unchanged

# How often a subscription that is iterated looks for hosts that want a heartbeat.
_LOOK_SECONDS = 0.5

_EVERYTHING = Filter()


class MergedFeed(Publication):
    """The feeds of several hosts. Each subscription gets all of them that its filter lets through,
    also those that are put later."""

    def __init__(self, heartbeat_seconds: float = HEARTBEAT_SECONDS) -> None:
        super().__init__()
        self.heartbeat_seconds = heartbeat_seconds
        self._feeds: dict[str, Feed] = {}
        self._connected: set[str] = set()
        self._subscriptions: WeakSet[MergedSubscription] = WeakSet()

    @property
    def feeds(self) -> Mapping[str, Feed]:
        """The feeds by host."""
        return self._feeds

    def put(self, host: str, feed: Feed) -> None:
        """Add the feed of a host, or replace it: then subscriptions begin anew with this host."""
        self._feeds[host] = feed
        for subscription in list(self._subscriptions):
            subscription.put(host, feed)
        self.wake()

    def set_connected(self, host: str, *, connected: bool) -> None:
        """Note whether the agent of a host is connected. Of one that is cut off subscribers get no
        heartbeats, so that they see it as silent."""
        if connected:
            self._connected.add(host)
        else:
            self._connected.discard(host)

    def is_connected(self, host: str) -> bool:
        """Return whether the agent of a host is connected."""
        return host in self._connected

    def subscribe(
        self,
        chosen: Filter = _EVERYTHING,
        *,
        resume: Positions = (),
        snapshot: bool = True,
        checkpoint: float | None = None,
        wrap: Wrap = unchanged,
        page_bytes: int = MAX_CHUNK_BYTES,
    ) -> MergedSubscription:
        """Return a new subscription: see ``Feed.subscribe``. ``resume`` has a position for each
        host."""
        view = MergedView(chosen, wrap, page_bytes)
        subscription = MergedSubscription(
            self, view, resume, snapshot=snapshot, checkpoint=checkpoint
        )
        self._subscriptions.add(subscription)
        return subscription


class MergedView(NamedTuple):
    """The views of one filter, one of each host."""

    filter: Filter
    wrap: Wrap
    page_bytes: int


class MergedSubscription:
    """One subscriber of several hosts. ``take`` returns a chunk of one host after the other: each
    has records of one host only, and these are in order."""

    def __init__(
        self,
        merged: MergedFeed,
        view: MergedView,
        resume: Positions,
        *,
        snapshot: bool,
        checkpoint: float | None,
    ) -> None:
        self.view = view
        self._merged = merged
        self._positions = dict(resume)  # By epoch; those that were not used yet.
        self._snapshot = snapshot
        self._checkpoint = checkpoint
        self._closed = False
        self._parts: dict[str, _Part] = {}
        self._turns: deque[_Part] = deque()  # Whose turn is next.
        self._put_all()

    def put(self, host: str, feed: Feed) -> None:
        """Begin anew with a host: with ``hello`` and, where one is wanted, a snapshot."""
        if self._closed:
            return
        self._remove(host)
        view = self.view
        if not view.filter.matches_host(host):
            return
        at = self._positions.pop(feed.epoch, None)
        subscription = feed.subscribe(
            view.filter,
            resume=() if at is None else ((feed.epoch, at),),
            snapshot=self._snapshot,
            checkpoint=self._checkpoint,
            wrap=view.wrap,
            page_bytes=view.page_bytes,
        )
        part = self._parts[host] = _Part(host, subscription)
        self._turns.append(part)

    def take(self) -> bytes | None:
        """Return the next chunk; None while there is none, b"" if others should get their turn."""
        turns = self._turns
        for _ in range(len(turns)):
            part = turns[0]
            turns.rotate(-1)
            chunk = part.take()
            if chunk is not None:
                return chunk
        return None

    def idle(self, since: float, _sent_at: float) -> Iterator[NdjsonSubscription]:
        """Yield the subscriptions of connected hosts that want a heartbeat if nothing of that host
        was sent since then; count it as sent."""
        for part in self._parts.values():
            if part.sent_at <= since and self._merged.is_connected(part.host):
                part.touch()
                yield part.subscription

    def change_filter(self, chosen: Filter) -> None:
        """Begin anew with another filter."""
        self.view = self.view._replace(filter=chosen)
        self._put_all()

    def close(self) -> None:
        """Leave all views; ``take`` returns None from now on."""
        self._closed = True
        for host in list(self._parts):
            self._remove(host)

    def _put_all(self) -> None:
        for host in list(self._parts):
            self._remove(host)
        for host, feed in self._merged.feeds.items():
            self.put(host, feed)

    def _remove(self, host: str) -> None:
        part = self._parts.pop(host, None)
        if part is not None:
            self._turns.remove(part)
            part.subscription.close()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        merged = self._merged
        while True:
            seen = merged.generation
            chunk = self.take()
            if chunk:
                yield chunk
            elif chunk is not None:  # Many records were hidden: others have their turn.
                await asyncio.sleep(0)
            elif merged.stopped:
                return
            elif await merged.wait(seen, _LOOK_SECONDS) == seen:
                for silent in self.idle(time.monotonic() - merged.heartbeat_seconds, 0.0):
                    yield silent.heartbeat()


class _Part:
    """The subscription of one host. ``sent_at`` is when its newest chunk was taken, on the clock of
    the event loop, which is the monotonic one."""

    __slots__ = ("host", "sent_at", "subscription")

    def __init__(self, host: str, subscription: NdjsonSubscription) -> None:
        self.host = host
        self.subscription = subscription
        self.sent_at = float("inf")  # Until hello: no heartbeat may precede it.

    def take(self) -> bytes | None:
        """Return the next chunk."""
        chunk = self.subscription.take()
        if chunk:
            self.touch()
        return chunk

    def touch(self) -> None:
        """Note that something was sent."""
        self.sent_at = time.monotonic()
