"""What publishers take: streams that can be waited for and subscribed to."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Protocol

from .filters import Filter
from .view import Wrap

# Where to resume: pairs of (epoch, seq), at most one of an epoch.
Positions = Sequence[tuple[str, int]]


class Publication:
    """What subscribers can wait for."""

    def __init__(self) -> None:
        self.stopped = False
        # Counts publications with something new, and the end. A waiter compares it with the count
        # that it has seen: an event alone may be set in the very turn in which a wait times out.
        self.generation = 0
        self._changed = asyncio.Event()

    def stop(self) -> None:
        """End every subscription once it has taken all that there is."""
        self.stopped = True
        self.wake()

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until ``generation`` differs from ``seen``, at most ``seconds``; return it."""
        if self.generation == seen:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(seconds, 0)):
                    await self._changed.wait()
        return self.generation

    def wake(self) -> None:
        """Count a publication, and wake those who wait."""
        self.generation += 1
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Beating(Protocol):
    """A stream that a heartbeat can be made of."""

    @property
    def position(self) -> tuple[str, int]:
        """The (epoch, seq) that the heartbeat reports."""

    def heartbeat(self) -> bytes:
        """Return a heartbeat of now."""


class ChunkSubscription(Protocol):
    """One subscriber of encoded records."""

    @property
    def view(self) -> Hashable:
        """What is equal of subscriptions that share what is encoded."""

    def take(self) -> bytes | None:
        """Return the next chunk; None while there is none, b"" if others should get their turn."""

    def idle(self, since: float, sent_at: float) -> Iterable[Beating]:
        """Return the streams that want a heartbeat if nothing was sent since then. ``sent_at`` is
        when a chunk was sent, both on the clock of the event loop."""

    def change_filter(self, chosen: Filter) -> None:
        """Begin anew with another filter."""

    def close(self) -> None:
        """Return nothing more."""


class Subscribable(Protocol):
    """The stream of an agent, or the merged streams of several."""

    generation: int
    stopped: bool
    heartbeat_seconds: float

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until ``generation`` differs from ``seen``, at most ``seconds``; return it."""

    def subscribe(
        self,
        chosen: Filter,
        *,
        resume: Positions,
        snapshot: bool,
        checkpoint: float | None,
        wrap: Wrap,
        page_bytes: int,
    ) -> ChunkSubscription:
        """Return a new subscription: see ``Feed.subscribe``."""
