"""Subscriptions: cursors into the stream of a feed, which give messages as values.

A subscription costs nothing while its reader is behind. One that is behind the history gets
``Lost`` and a fresh snapshot. Messages are not filtered and not encoded: see ``Filter.apply``, and
``ndjson.py`` for subscriptions that are both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import NamedTuple, Protocol, TypeVar

from ..model import Coverage, Holding, Snapshot
from ..snapshot.stats import PollSummary
from .history import Batch, History

T = TypeVar("T")


class Hello(NamedTuple):
    """The first message. A ``FullSnapshot`` follows, if wanted, unless the stream is resumed."""

    seq: int
    time: float
    coverage: Coverage
    resumed: bool


class FullSnapshot(NamedTuple):
    """Every holding of the newest poll, and of the delta numbered ``seq``.

    ``poll`` numbers the polls of the feed from 1 on: equal numbers mean equal snapshots.
    """

    poll: int
    seq: int
    time: float
    holdings: tuple[Holding, ...]


class DeltaBatch(NamedTuple):
    """The deltas of one poll from ``batch.deltas[begin]`` on."""

    batch: Batch
    begin: int


class Lost(NamedTuple):
    """The deltas ``first`` to ``seq`` are no longer held. A ``FullSnapshot`` follows."""

    seq: int
    time: float
    first: int


class Heartbeat(NamedTuple):
    """Nothing happened for a while; ``stats`` is what the agent's polls cost."""

    seq: int
    time: float
    stats: PollSummary


Message = Hello | FullSnapshot | DeltaBatch | Lost | Heartbeat


class Stream(Protocol):
    """What a subscription reads of a feed."""

    epoch: str
    seq: int
    snapshot: Snapshot | None
    history: History
    generation: int
    stopped: bool
    heartbeat_seconds: float
    clock: Callable[[], float]

    def full_snapshot(self) -> FullSnapshot:
        """Return the newest snapshot. Raises RuntimeError before the first poll."""

    def poll_summary(self) -> PollSummary:
        """Return what the newest polls cost."""

    def count_loss(self) -> None:
        """Count a ``Lost`` message."""

    async def wait(self, seen: int, seconds: float) -> int:
        """Wait until ``generation`` differs from ``seen``, at most ``seconds``; return it."""


class Subscription:
    """One subscriber's cursor. ``take`` returns messages; asynchronous iteration waits for them.

    ``seq`` is the newest delta that the messages taken include.
    """

    __slots__ = ("_following", "_greeted", "_resume", "_snapshot", "_stream", "seq")

    def __init__(
        self, stream: Stream, *, resume: tuple[str, int] | None = None, snapshot: bool = True
    ) -> None:
        """``resume`` is the (epoch, seq) to continue after. ``snapshot``: whether a snapshot is
        wanted at the beginning where the stream cannot be resumed."""
        self.seq = 0
        self._stream = stream
        self._resume = resume
        self._snapshot = snapshot
        self._greeted = False
        self._following: FullSnapshot | None = None  # The next message.

    def take(self) -> Message | None:
        """Return the next message; None while there is none."""
        if self._following is not None:
            following, self._following = self._following, None
            return following
        stream = self._stream
        if not self._greeted:
            return self._hello()
        if self.seq == stream.seq:
            return None
        if not stream.history.holds(self.seq):
            return self._lost()
        batch = stream.history.after(self.seq)
        if batch is None:
            return None
        begin = max(0, self.seq + 1 - batch.first)
        self.seq = batch.last
        return DeltaBatch(batch, begin)

    def heartbeat(self) -> Heartbeat:
        """Return a heartbeat of now."""
        return Heartbeat(self.seq, self._stream.clock(), self._stream.poll_summary())

    def __aiter__(self) -> AsyncIterator[Message]:
        return wait_for_each(self._stream, self.take, self.heartbeat)

    def _hello(self) -> Hello | None:
        stream = self._stream
        snapshot = stream.snapshot
        if snapshot is None:
            return None
        self._greeted = True
        self.seq, time, resumed = stream.seq, snapshot.time, False
        if self._resume is not None:
            epoch, seq = self._resume
            if epoch == stream.epoch and seq <= stream.seq and stream.history.holds(seq):
                self.seq, time, resumed = seq, stream.clock(), True
        if not resumed and self._snapshot:
            # Taken together with the number: a newer one may be published before the next call.
            self._following = stream.full_snapshot()
        return Hello(self.seq, time, snapshot.coverage, resumed)

    def _lost(self) -> Lost:
        self._stream.count_loss()
        self._following = snapshot = self._stream.full_snapshot()
        first, self.seq = self.seq + 1, snapshot.seq
        return Lost(self.seq, snapshot.time, first)


async def wait_for_each(
    stream: Stream, take: Callable[[], T | None], heartbeat: Callable[[], T]
) -> AsyncIterator[T]:
    """Yield what ``take`` returns until the feed stops, and a heartbeat after each
    ``heartbeat_seconds`` of silence.

    Where ``take`` returns None, wait for the next poll with deltas; where it returns something
    empty, let other tasks run and call it again.
    """
    clock = asyncio.get_running_loop().time
    yielded_at = clock()
    while True:
        seen = stream.generation
        item = take()
        if item:
            yield item
            yielded_at = clock()
        elif item is not None:
            await asyncio.sleep(0)
        elif stream.stopped:
            return
        else:
            seconds = yielded_at + stream.heartbeat_seconds - clock()
            if await stream.wait(seen, seconds) == seen and stream.snapshot is not None:
                yield heartbeat()
                yielded_at = clock()
