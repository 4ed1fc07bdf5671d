"""Where the screen's records come from: the feed of this machine, remote agents, or a recording."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NoReturn, Protocol

from ...log import log
from ...stream.decoder import Decoded
from ...stream.feed import Feed, Subscription
from ...stream.recording import RecordReader, open_recording, time_span
from ...stream.times import Span
from .watch import Watch

Queues = Mapping[tuple[str, int], tuple[int, int]]

# Time between two readings of the accept queues, which move without records.
QUEUE_SECONDS = 1.0
# Records that are decoded, and applied, in one turn: some milliseconds.
_BATCH = 200


class Source(Protocol):
    """Fills a watch. ``watch`` is the newest one: a move back in time makes a new one.

    ``is_live``: time goes on by itself. ``is_local``: the processes are those of this machine.
    """

    is_live: bool
    is_local: bool

    @property
    def watch(self) -> Watch:
        """What the records have led to."""

    def now(self) -> float:
        """Return the time of the screen, in seconds since the Unix epoch."""

    def notice(self) -> str | None:
        """Return what is to be known of the source: why nothing comes, or where a recording is;
        None if it is live."""

    async def run(self) -> None:
        """Fill the watch until cancelled. Raises RuntimeFailure."""

    def move(self, seconds: float) -> None:
        """Go on, or back, in time, if this is a recording."""


class _Live:
    """What sources have in common whose time is that of the clock."""

    is_live = True

    def __init__(self, *, one_clock: bool) -> None:
        self.watch = Watch(one_clock=one_clock)

    def now(self) -> float:
        """Return the time of the clock."""
        return time.time()

    def move(self, seconds: float) -> None:
        """Do nothing."""


class FeedSource(_Live):
    """The feed of this machine, whose name is ``host``. ``queues`` reads the accept queues."""

    is_local = True

    def __init__(self, feed: Feed, host: str, queues: Callable[[], Queues]) -> None:
        super().__init__(one_clock=True)
        self._feed = feed
        self._host = host
        self._queues = queues

    def notice(self) -> str | None:
        """Return that the first poll is under way; then None."""
        return "reading sockets and processes" if self._feed.snapshot is None else None

    async def run(self) -> None:
        """Fill the watch until the feed stops."""
        reading = asyncio.create_task(self._read_queues())
        try:
            async for message in Subscription(self._feed):
                self.watch.apply_message(self._host, message)
        finally:
            reading.cancel()

    async def _read_queues(self) -> None:
        while True:
            await asyncio.sleep(QUEUE_SECONDS)
            self.watch.queues(self._queues())


class RemoteSource(_Live):
    """Records of remote agents, in batches. ``notice`` returns why some of them do not come."""

    is_local = False

    def __init__(
        self, batches: AsyncIterator[Sequence[Decoded]], notice: Callable[[], str | None]
    ) -> None:
        super().__init__(one_clock=False)
        self._batches = batches
        self._notice = notice

    def notice(self) -> str | None:
        """Return why records do not come; None if they do."""
        return self._notice()

    async def run(self) -> None:
        """Fill the watch until cancelled. Raises RuntimeFailure."""
        async for batch in self._batches:
            for begin in range(0, len(batch), _BATCH):
                for record in batch[begin : begin + _BATCH]:
                    self.watch.apply(record)
                await asyncio.sleep(0)  # The keyboard has its turn.


class RecordingSource:
    """A recording, at one moment of it: that of the screen. Records are decoded in threads.

    ``find_start`` returns the time at which to begin, given the span of the recording; None: at its
    end.
    """

    is_live = False
    is_local = False

    def __init__(self, path: str, find_start: Callable[[Span], float] | None = None) -> None:
        self.watch = Watch(one_clock=True)
        self._path = path
        self._find_start = find_start
        self._span: Span | None = None  # None before it is known, and of an empty recording.
        self._first = 0.0  # The time of the first record: before it nothing is known.
        self._at = 0.0
        self._wanted = 0.0
        self._moved = asyncio.Event()
        self._is_reading = True

    def now(self) -> float:
        """Return the moment that is shown."""
        return self._at

    def notice(self) -> str:
        """Return that the recording is read, or which part of it is shown."""
        if self._is_reading:
            return "reading the recording"
        if self._span is None:
            return "the recording has no records"
        before_end = self._span.last - self._at
        return "end of the recording" if before_end <= 0 else f"{before_end:,.0f} s before the end"

    def move(self, seconds: float) -> None:
        """Show another moment: so many seconds after the one that is shown or already wanted."""
        if self._span is not None:
            self._wanted = min(max(self._wanted + seconds, self._first), self._span.last)
            self._moved.set()

    async def run(self) -> None:
        """Read the recording, and move when that is wanted. Raises RuntimeFailure and
        UsageError."""
        opening = partial(open_recording, self._path, rereadable=True)
        with await asyncio.to_thread(opening) as file:
            reader = RecordReader(file)
            self._span = await asyncio.to_thread(time_span, reader)
            for problem in (*reader.problems(), file.problem):
                if problem:
                    log(f"warning: {problem}")
            if self._span is not None:
                # Not that of the span: events of the first poll are earlier than its snapshot.
                self._first = (await asyncio.to_thread(next, iter(reader))).time
                find, last = self._find_start, self._span.last
                wanted = last if find is None else find(self._span)
                self._wanted = min(max(wanted, self._first), last)
                await self._follow_moves(reader)
            self._is_reading = False
            await asyncio.Event().wait()  # Until cancelled.

    async def _follow_moves(self, reader: RecordReader) -> NoReturn:
        cursor, at = _Cursor(iter(reader)), float("-inf")
        while True:
            self._moved.clear()
            self._is_reading = True
            watch, wanted = self.watch, self._wanted
            # Back in time is forward from the beginning. The first watch is not shown before it is
            # filled: the time of the screen is not known yet.
            if wanted < at or watch.changes == 0:
                cursor, watch = _Cursor(iter(reader)), Watch(one_clock=True)
            while records := await asyncio.to_thread(cursor.take, wanted):
                for record in records:
                    watch.apply(record)
            self.watch, self._at, at = watch, wanted, wanted
            self._is_reading = False
            await self._moved.wait()


class _Cursor:
    """A place in a recording. The state is that of the records before the first later one."""

    def __init__(self, records: Iterator[Decoded]) -> None:
        self._records = records
        self._next: Decoded | None = None

    def take(self, until: float) -> list[Decoded]:
        """Return the next records up to a time, few at once; none if the next one is later, or
        after the last one. Blocking. Raises RuntimeFailure."""
        taken: list[Decoded] = []
        while len(taken) < _BATCH:
            record = next(self._records, None) if self._next is None else self._next
            self._next = record
            if record is None or record.time > until:
                break
            taken.append(record)
            self._next = None
        return taken
