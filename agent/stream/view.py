"""What a filter shows of the stream: encoded once, however many subscribers look through it.

It knows deltas, snapshots and their records, and nothing of who subscribes, and to what end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from weakref import ref

from ..model import (
    Closed,
    Coverage,
    Delta,
    Holding,
    Opened,
    Snapshot,
    Updated,
)
from .cache import ChunkCache
from .encoder import Encoder
from .filters import EVENTS, Filter
from .history import Batch
from .lines import CHUNK_BYTES

# Of what is encoded, so much is kept for others who ask for the same.
KEPT_BYTES = 16 * 1024 * 1024
# Of the newest deltas' records, so much is kept for subscribers with other filters.
LINES_BYTES = 8 * 1024 * 1024
# Holdings or deltas that are looked at for one page: a filter that hides most of them must not hold
# up the event loop. 0.5 ms; 10 ms with 8 KiB of globs, each of which the names nearly match.
PAGE_HOLDINGS = 500
# A record's usual size, to guess how many fit a page.
_RECORD_BYTES = 600

Key = tuple[int, int]
_serials = count()


Wrap = Callable[[bytes], bytes]


def as_is(chunk: bytes) -> bytes:
    """A chunk that needs no wrapping."""
    return chunk


class View:
    """The stream through one filter. ``wrap`` makes of a chunk what a transport sends."""

    def __init__(
        self,
        chosen: Filter,
        encoder: Encoder,
        kept: ChunkCache[Key],
        wrap: Wrap = as_is,
        page_bytes: int = CHUNK_BYTES,
    ) -> None:
        self.filter = chosen
        self.wrap = wrap
        self.encoder = encoder
        self.kept = kept
        self.page_bytes = page_bytes
        self.readers = 0  # Subscriptions that look through it.
        self._everything = chosen.passes_all and len(chosen.events) == len(EVENTS)
        self._pages: ref[_Holdings] | None = None
        self._newest: _Deltas | None = None

    def enter(self) -> None:
        """There is one more reader."""
        self.readers += 1

    def leave(self) -> None:
        """There is one less; without any nothing is kept."""
        self.readers -= 1
        if not self.readers:
            self._newest = None

    def deltas(self, batch: Batch, first: int) -> Iterator[bytes]:
        """The chunks of a batch, from the delta numbered ``first`` on."""
        index = max(0, first - batch.first)
        if index:
            return iter(_Deltas(self, batch, index))
        if self._newest is None or self._newest.batch is not batch:
            self._newest = _Deltas(self, batch, 0)
        return iter(self._newest)

    def snapshot(
        self, snapshot: Snapshot, holdings: tuple[Holding, ...], seq: int
    ) -> Iterator[bytes] | None:
        """The chunks of a snapshot and of its end; None where the filter wants none."""
        if "snapshot" not in self.filter.events:
            return None
        pages = self._pages() if self._pages else None
        if pages is None or pages.snapshot is not snapshot or pages.seq != seq:
            pages = _Holdings(self, snapshot, holdings, seq)
            self._pages = ref(pages)
        return iter(pages)

    def line(self, batch: Batch, index: int) -> bytes | None:
        """The record of a delta as the filter shows it; None when it is hidden."""
        delta, seq = batch.deltas[index], batch.first + index
        if not self._everything:
            shown = filtered_record(self.filter, delta, seq, batch.time, self.encoder)
            if shown is None or isinstance(shown, bytes):
                return shown
        line = batch.lines.get(index)
        if line is None:
            line = self.encoder.delta(delta, seq, batch.time)
            batch.keep(index, line, LINES_BYTES)
        return line


class Pages(ABC):
    """Records in chunks, encoded as they are asked for, and kept if there is more than one reader.

    ``_begins`` has, of each page that is known, where it begins and how many records come before
    it. None: there is no such page.
    """

    def __init__(self, view: View, begin: int = 0) -> None:
        self.view = view
        self._serial = next(_serials)
        self._begins: list[tuple[int, int] | None] = [(begin, 0)]

    def __iter__(self) -> Iterator[bytes]:
        """The pages, wrapped; empty where many in a row do not pass the filter."""
        number = 0
        while (page := self._page(number)) is not None:
            yield page
            number += 1

    def _page(self, number: int) -> bytes | None:
        """Page ``number``, of which the one before was asked for earlier; None behind the last."""
        begin = self._begins[number]
        if begin is None:
            return None
        view = self.view
        page = view.kept.get((self._serial, number))
        if page is not None:
            return page
        lines, end = self._encode(*begin)
        if number + 1 == len(self._begins):
            self._begins.append(end)
        page = view.wrap(b"".join(lines)) if lines else b""
        if view.readers > 1:
            view.kept.put((self._serial, number), page)
        return page

    @abstractmethod
    def _encode(self, begin: int, before: int) -> tuple[list[bytes], tuple[int, int] | None]:
        """The records of a page, and where the next one begins."""


class _Deltas(Pages):
    """A batch through a view."""

    def __init__(self, view: View, batch: Batch, begin: int) -> None:
        super().__init__(view, begin)
        self.batch = batch

    def _encode(self, begin: int, before: int) -> tuple[list[bytes], tuple[int, int] | None]:
        batch, view = self.batch, self.view
        until = min(begin + PAGE_HOLDINGS, len(batch.deltas))
        lines: list[bytes] = []
        size = 0
        for index in range(begin, until):
            line = view.line(batch, index)
            if line is None:
                continue
            size += len(line)
            if size > CHUNK_BYTES and lines:
                until = index
                break
            lines.append(line)
        before += len(lines)
        return lines, (until, before) if until < len(batch.deltas) else None


class _Holdings(Pages):
    """One snapshot through a view."""

    def __init__(
        self, view: View, snapshot: Snapshot, holdings: tuple[Holding, ...], seq: int
    ) -> None:
        super().__init__(view)
        self.snapshot = snapshot
        self.seq = seq
        self._holdings = holdings

    def _encode(self, begin: int, before: int) -> tuple[list[bytes], tuple[int, int] | None]:
        view, holdings, now = self.view, self._holdings, self.snapshot.time
        most = view.page_bytes
        found, until = _passing(view.filter, holdings, begin, max(1, most // _RECORD_BYTES))
        head = view.encoder.head("snapshot", self.seq, now)
        lines: list[bytes] = []
        size = 0
        for line in view.encoder.holdings(head, (holdings[place] for place in found)):
            size += len(line)
            if size > most and lines:
                return lines, (found[len(lines)], before + len(lines))
            lines.append(line)
        before += len(lines)
        if until < len(holdings):
            return lines, (until, before)
        end = view.encoder.snapshot_end(self.seq, now, before)
        if lines and size + len(end) > most:
            return lines, (until, before)
        return [*lines, end], None


def _passing(
    chosen: Filter, holdings: Sequence[Holding], begin: int, most: int
) -> tuple[Sequence[int], int]:
    """Where the next holdings are that pass a filter, and where to look for more of them."""
    if chosen.passes_all:
        until = min(begin + most, len(holdings))
        return range(begin, until), until
    until = min(begin + PAGE_HOLDINGS, len(holdings))
    passes = chosen.matches
    found = [place for place in range(begin, until) if passes(holdings[place])]
    return (found, until) if len(found) <= most else (found[:most], found[most])


def filtered_record(
    chosen: Filter, delta: Delta, seq: int, now: float, encoder: Encoder
) -> bytes | bool | None:
    """The record of a delta as a filter shows it: True when it is the delta's own, None when it is
    hidden.

    What an update brings into the filter opens, what it takes out closes: the fold stays right.
    """
    match delta:
        case Coverage():
            return True
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
                return encoder.holding(encoder.head("open", seq, now), holding)
            else:
                if not passes or "close" not in chosen.events:
                    return None
                return encoder.closed(before, "filtered", seconds, seq, now)
    return True if passes and event in chosen.events else None
