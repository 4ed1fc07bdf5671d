"""The feed: one stream of numbered deltas with a bounded history, and its subscriptions."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import TypeVar

from ..model import Closed, Coverage, Delta, Holding, Opened, Snapshot, Updated
from ..snapshot.stats import PollStats, PollSummary
from .encoder import AgentInfo, Encoder
from .filters import Filter
from .history import Batch, DeltaBatch, FullSnapshot, Heartbeat, Hello, History, Lost, Message
from .publication import Positions, Publication
from .view import MAX_CHUNK_BYTES, Position, View, Views, Wrap, unchanged

# Both bound the history: minutes of a busy machine.
HISTORY_RECORDS = 10_000
HISTORY_BYTES = 24 * 1024 * 1024
# The deltas of so many seconds are held in a storm of connections: a reader may be late.
HISTORY_BURST_SECONDS = 5.0
HEARTBEAT_SECONDS = 15.0
# Subscribers that asked for checkpoints get one after this time even if nothing has changed.
IDLE_CHECKPOINT_SECONDS = 3600.0

T = TypeVar("T")

_EVERYTHING = Filter()
_EVENTS: dict[type, str] = {
    Opened: "open", Updated: "update", Closed: "close", Coverage: "coverage"
}  # fmt: skip


class Feed(Publication):
    """The stream of one run of the agent. ``publish`` is called with the outcome of each poll."""

    def __init__(
        self,
        agent: AgentInfo,
        *,
        stats: PollStats | None = None,
        figures: Callable[[], PollSummary | None] | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        history_records: int = HISTORY_RECORDS,
        history_bytes: int = HISTORY_BYTES,
        history_burst: float = 0.0,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
        is_kernels: bool = True,
    ) -> None:
        """``figures`` returns what heartbeats report of the polls, None if it is unknown: by
        default that of ``stats``. ``history_burst`` is in seconds. ``is_kernels``: see
        ``Encoder``."""
        super().__init__()
        self.epoch = agent.epoch
        self.stats = stats or PollStats()
        self.figures = figures or self.stats.figures
        self.clock = clock
        self.monotonic = monotonic
        self.heartbeat_seconds = heartbeat_seconds
        self.history = History(history_records, history_bytes, history_burst)
        self.views = Views(Encoder(agent, is_kernels=is_kernels))
        self.seq = 0
        self.snapshot: Snapshot | None = None
        self.records: Counter[str] = Counter()  # Deltas since the start, by event.
        self.lost = 0  # ``lost`` records that subscribers got.
        self._polls = 0
        self._holdings: tuple[Holding, ...] | None = None  # Of the snapshot, once asked for.
        self._published = monotonic()

    def restore(self, seq: int, batches: Sequence[Batch], oldest: int | None = None) -> None:
        """Continue after ``seq``, with the history of an earlier run of the same epoch: see
        ``History.restore``."""
        self.seq = seq
        self.history.restore(batches, seq, oldest)

    def age(self) -> float:
        """Return the seconds since the last poll was published, or since the start."""
        return self.monotonic() - self._published

    def publish(
        self, snapshot: Snapshot, deltas: Sequence[Delta], first: int | None = None
    ) -> None:
        """Make ``snapshot`` the newest state, which ``deltas`` lead to from the one before.
        ``first`` is the number of the first one, None: the next."""
        self.views.encoder.forget_processes_except(snapshot.processes.keys())
        if deltas:
            batch = Batch(snapshot.time, deltas, self.seq + 1 if first is None else first)
            self.seq = batch.last
            self.history.append(batch)
            for kind, count in Counter(map(type, deltas)).items():
                self.records[_EVENTS[kind]] += count
        self._polls += 1
        self._published = self.monotonic()
        self.snapshot, self._holdings = snapshot, None
        if deltas or self._polls == 1:
            self.wake()

    def pass_over(self, seq: int) -> None:
        """Set the newest number: those up to it are of deltas that nobody gets."""
        self.seq = max(self.seq, seq)

    def identify(self, agent: AgentInfo) -> None:
        """Set what ``hello`` reports of the agent; host and epoch are the same."""
        self.views.encoder.identify(agent)

    def skip_to(self, seq: int, snapshot: Snapshot) -> None:
        """Continue with ``snapshot`` at ``seq``, after deltas that are lost: subscriptions that
        have not taken it get ``Lost`` and the snapshot."""
        self.seq = seq
        self.history.clear(seq)
        self.publish(snapshot, ())
        self.wake()

    def subscribe(
        self,
        chosen: Filter = _EVERYTHING,
        *,
        resume: Positions = (),
        snapshot: bool = True,
        checkpoint: float | None = None,
        wrap: Wrap = unchanged,
        page_bytes: int = MAX_CHUNK_BYTES,
    ) -> NdjsonSubscription:
        """Return a new subscription that gives NDJSON; for one that gives values, see
        ``Subscription``.

        ``resume`` is where to continue; ``snapshot``: whether one is wanted where that cannot be;
        ``checkpoint``: see ``Subscription``.
        ``wrap`` makes of a chunk what a transport sends; a snapshot comes in pages of at most
        ``page_bytes``. Subscriptions equal in all these share what is encoded.
        """
        view = self.views.get(chosen, wrap, page_bytes)
        position = next((one for one in resume if one[0] == self.epoch), None)
        return NdjsonSubscription(self, view, position, snapshot=snapshot, checkpoint=checkpoint)

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

    def count_loss(self) -> None:
        """Count a ``lost`` record."""
        self.lost += 1


class Subscription:
    """One subscriber's cursor. ``take`` returns messages; asynchronous iteration waits for them.
    ``seq`` is the newest delta that the messages taken include."""

    __slots__ = (
        "_checkpoint",
        "_feed",
        "_following",
        "_greeted",
        "_resume",
        "_snapshot",
        "_whole_at",
        "_whole_seq",
        "seq",
    )

    def __init__(
        self,
        feed: Feed,
        *,
        resume: tuple[str, int] | None = None,
        snapshot: bool = True,
        checkpoint: float | None = None,
    ) -> None:
        """``resume`` is the (epoch, seq) to continue after. ``snapshot``: whether a snapshot is
        wanted at the beginning where the stream cannot be resumed. ``checkpoint``: repeat ``hello``
        and the snapshot after so many seconds, once all deltas are taken, if there were any."""
        self.seq = 0
        self._checkpoint = checkpoint if snapshot else None
        self._whole_at = 0.0  # When the newest snapshot was taken, or the stream was resumed,
        self._whole_seq = -1  # and the number of that snapshot, -1 where it was resumed.
        self._feed = feed
        self._resume = resume
        self._snapshot = snapshot
        self._greeted = False
        self._following: FullSnapshot | None = None  # The next message.

    def take(self) -> Message | None:
        """Return the next message; None while there is none."""
        if self._following is not None:
            following, self._following = self._following, None
            return following
        feed = self._feed
        if not self._greeted:
            return self._hello()
        if self.seq == feed.seq:
            # Each subscriber comes here after each poll.
            is_due = self._checkpoint is not None and self._is_checkpoint_due(self._checkpoint)
            return self._hello() if is_due else None
        if not feed.history.holds(self.seq):
            return self._lost()
        batch = feed.history.after(self.seq)
        if batch is None:
            self.seq = feed.seq
            return None
        begin = max(0, self.seq + 1 - batch.first)
        self.seq = batch.last
        return DeltaBatch(batch, begin)

    def heartbeat(self) -> Heartbeat:
        """Return a heartbeat of now."""
        return Heartbeat(self.seq, self._feed.clock(), self._feed.figures())

    def __aiter__(self) -> AsyncIterator[Message]:
        return wait_for_each(self._feed, self.take, self.heartbeat)

    def _hello(self) -> Hello | None:
        feed = self._feed
        snapshot = feed.snapshot
        if snapshot is None:
            return None
        self.seq, time, resumed = feed.seq, snapshot.time, False
        if self._resume is not None and not self._greeted:
            epoch, seq = self._resume
            if epoch == feed.epoch and seq <= feed.seq and feed.history.holds(seq):
                self.seq, time, resumed = seq, feed.clock(), True
        self._greeted = True
        self._whole_at, self._whole_seq = feed.monotonic(), -1 if resumed else feed.seq
        if not resumed and self._snapshot:
            # Taken together with the number: a newer one may be published before the next call.
            self._following = feed.full_snapshot()
        return Hello(self.seq, time, snapshot.coverage, resumed, feed.history.oldest)

    def _is_checkpoint_due(self, seconds: float) -> bool:
        if self._whole_seq == self.seq:
            seconds = max(seconds, IDLE_CHECKPOINT_SECONDS)
        return self._feed.monotonic() - self._whole_at >= seconds

    def _lost(self) -> Lost:
        self._feed.count_loss()
        self._following = snapshot = self._feed.full_snapshot()
        first, self.seq = self.seq + 1, snapshot.seq
        self._whole_at, self._whole_seq = self._feed.monotonic(), snapshot.seq
        return Lost(self.seq, snapshot.time, first)


class NdjsonSubscription:
    """One subscriber of a view. ``take`` returns chunk after chunk; asynchronous iteration waits
    for them. What they contain is encoded once for all subscribers of the view."""

    __slots__ = (
        "_begin",
        "_checkpoint",
        "_closed",
        "_feed",
        "_paged",
        "_snapshot",
        "_subscription",
        "view",
    )

    def __init__(
        self,
        feed: Feed,
        view: View,
        resume: tuple[str, int] | None,
        *,
        snapshot: bool,
        checkpoint: float | None,
    ) -> None:
        self._feed = feed
        self._snapshot = snapshot
        self._checkpoint = checkpoint
        self._subscription = self._subscribe(view, resume)
        self._paged: DeltaBatch | FullSnapshot | None = None  # What is being taken in pages,
        self._begin: Position = (0, 0)  # and where the next page begins.
        self._closed = False

    def _subscribe(self, view: View, resume: tuple[str, int] | None = None) -> Subscription:
        self.view = view
        view.add_reader()
        return Subscription(
            self._feed,
            resume=resume,
            snapshot=self._snapshot and view.has_snapshots,
            checkpoint=self._checkpoint,
        )

    @property
    def seq(self) -> int:
        """The newest delta that the chunks taken include, or begin to include."""
        return self._subscription.seq

    def take(self) -> bytes | None:
        """Return the next chunk; None while there is none.

        Return b"" after comparing many records with the filter, none of which passed: there may be
        more, but others should get their turn first.
        """
        paged = self._paged
        if paged is None:
            if self._closed:
                return None
            message = self._subscription.take()
            if isinstance(message, FullSnapshot) and not self.view.has_snapshots:
                message = self._subscription.take()
            if isinstance(message, DeltaBatch):
                self._begin = (message.begin, 0)
            elif isinstance(message, FullSnapshot):
                self._begin = (0, 0)
            else:
                return None if message is None else self.view.encode(message)
            paged = message
        page = self.view.page(paged, self._begin)
        if page.next is None:
            self._paged = None
        else:
            self._paged, self._begin = paged, page.next
        return page.chunk

    def close(self) -> None:
        """Leave the view; ``take`` returns None from now on."""
        if not self._closed:
            self._closed = True
            self._paged = None
            self.view.remove_reader()

    def change_filter(self, chosen: Filter) -> None:
        """Begin anew with another filter: with ``hello`` and, where one is wanted, a snapshot."""
        self.close()
        self._subscription = self._subscribe(self.view.of_filter(chosen))
        self._closed = False

    def idle(self, since: float, sent_at: float) -> Iterable[NdjsonSubscription]:
        """Return the subscriptions that want a heartbeat if nothing was sent since then: this one,
        or none. ``sent_at`` is when something was sent."""
        return (self,) if sent_at <= since else ()

    @property
    def position(self) -> tuple[str, int]:
        """The (epoch, seq) that a heartbeat reports."""
        return self._feed.epoch, self.seq

    def heartbeat(self) -> bytes:
        """Return a heartbeat of now."""
        return self.view.encode(self._subscription.heartbeat())

    def __aiter__(self) -> AsyncIterator[bytes]:
        return wait_for_each(self._feed, self.take, self.heartbeat)


async def wait_for_each(
    feed: Feed, take: Callable[[], T | None], heartbeat: Callable[[], T]
) -> AsyncIterator[T]:
    """Yield what ``take`` returns until the feed stops, and a heartbeat after each
    ``heartbeat_seconds`` of silence.

    Where ``take`` returns None, wait for the next poll with deltas; where it returns something
    empty, let other tasks run and call it again.
    """
    clock = asyncio.get_running_loop().time
    yielded_at = clock()
    while True:
        seen = feed.generation
        item = take()
        if item:
            yield item
            yielded_at = clock()
        elif item is not None:
            await asyncio.sleep(0)
        elif feed.stopped:
            return
        else:
            seconds = yielded_at + feed.heartbeat_seconds - clock()
            if await feed.wait(seen, seconds) == seen and feed.snapshot is not None:
                yield heartbeat()
                yielded_at = clock()
