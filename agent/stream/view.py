"""The stream through one filter as NDJSON: encoded once, however many subscribers share it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from itertools import count
from typing import Generic, NamedTuple, TypeVar
from weakref import WeakValueDictionary

from ..model import Holding
from .encoder import Encoder
from .filters import EVENTS, Filter
from .history import Batch, DeltaBatch, FullSnapshot, Heartbeat, Hello, Lost

# Size of a chunk, unless a single record is longer: what one WebSocket message may carry, and what
# is encoded between two turns of the event loop.
MAX_CHUNK_BYTES = 256 * 1024
# Sizes of the caches of encoded pages, and of records of deltas, for all views of a feed.
CACHE_BYTES = 16 * 1024 * 1024
LINE_CACHE_BYTES = 8 * 1024 * 1024
# What an entry takes besides its bytes: empty ones must not be kept without bounds.
ENTRY_BYTES = 300
# Holdings or deltas compared with the filter for one page: a filter that hides most of them must
# not hold up the event loop. 0.5 ms; 10 ms with 8 KiB of globs, each of which nearly matches.
MAX_PAGE_ITEMS = 500
# Usual size of a record, to estimate how many fit a page.
_RECORD_BYTES = 600

# Where a page begins: the index of its first holding or delta, and the records before it.
Position = tuple[int, int]
# A view's number; a poll's number, negative, or the number of a batch's first delta; an index.
PageKey = tuple[int, int, int]
Wrap = Callable[[bytes], bytes]
_numbers = count(1)
K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


def unchanged(chunk: bytes) -> bytes:
    """Return a chunk as it is, for transports that send it so."""
    return chunk


class Page(NamedTuple):
    """Some records of a snapshot or of a poll's deltas. ``chunk`` is empty where none of many
    passed the filter; ``next`` is where the next page begins, None after the last one."""

    chunk: bytes
    next: Position | None


class ChunkCache(Generic[K, V]):
    """The newest values by key, at most ``max_bytes`` of them; ``size_of`` returns a value's size.

    The oldest entries are dropped, whether they were used or not: what is encoded of a stream is
    wanted for a short time, and to keep the order of use takes longer than the rest of ``get``.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.size = 0

    def get(self, key: K) -> V | None:
        """Return the value of a key; None where there is none."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value; drop the oldest ones where there are too many bytes."""
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self.size -= self._size_of(replaced) + ENTRY_BYTES
        self._entries[key] = value
        self.size += self._size_of(value) + ENTRY_BYTES
        while self.size > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size -= self._size_of(oldest) + ENTRY_BYTES


class Views:
    """The views of one feed: subscriptions that want the same share one.

    ``encoder``, and the caches of ``pages`` and of the records (``lines``) of deltas by number, are
    those of all views.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self.pages = ChunkCache[PageKey, Page](CACHE_BYTES, lambda page: len(page.chunk))
        self.lines = ChunkCache[int, bytes](LINE_CACHE_BYTES, len)
        self._views: WeakValueDictionary[tuple[Filter, Wrap, int], View] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._views)

    def get(self, chosen: Filter, wrap: Wrap, page_bytes: int) -> View:
        """Return the view through a filter. ``wrap`` makes of a chunk what a transport sends; a
        page of a snapshot has at most ``page_bytes``."""
        key = (chosen, wrap, page_bytes)
        view = self._views.get(key)
        if view is None:
            view = self._views[key] = View(self, chosen, wrap, page_bytes)
        return view


class View:
    """The stream through one filter, in pages of NDJSON that its subscriptions share."""

    def __init__(self, views: Views, chosen: Filter, wrap: Wrap, page_bytes: int) -> None:
        self.filter = chosen = chosen.of_host(views.encoder.host)
        self.has_snapshots = "snapshot" in chosen.events
        self.readers = 0  # Subscriptions of this view.
        self._views = views
        self._encoder = views.encoder
        self._wrap = wrap
        self._page_bytes = page_bytes
        self._number = next(_numbers)
        self._passes_all = chosen.passes_all and len(chosen.events) == len(EVENTS)

    def of_filter(self, chosen: Filter) -> View:
        """Return the view through another filter."""
        return self._views.get(chosen, self._wrap, self._page_bytes)

    def add_reader(self) -> None:
        """Count a subscription: where there are several, pages are kept for the others."""
        self.readers += 1

    def remove_reader(self) -> None:
        """Count a subscription less."""
        self.readers -= 1

    def encode(self, message: Hello | Lost | Heartbeat) -> bytes:
        """Return the chunk of a message that consists of one record."""
        encoder, seq, time = self._encoder, message.seq, message.time
        if isinstance(message, Hello):
            line = encoder.hello(
                seq, time, message.coverage, resumed=message.resumed, oldest=message.oldest
            )
        elif isinstance(message, Lost):
            line = encoder.lost(seq, time, message.first, seq)
        else:
            line = encoder.heartbeat(seq, time, message.stats)
        return self._wrap(line)

    def page(self, message: DeltaBatch | FullSnapshot, position: Position) -> Page:
        """Return the page of a message that begins at a position."""
        if self.readers < 2:
            return self._encode_page(message, position)
        if isinstance(message, DeltaBatch):
            key = (self._number, message.batch.first, position[0])
        else:
            key = (self._number, -message.poll, position[0])
        page = self._views.pages.get(key)
        if page is None:
            page = self._encode_page(message, position)
            self._views.pages.put(key, page)
        return page

    def _encode_page(self, message: DeltaBatch | FullSnapshot, position: Position) -> Page:
        if isinstance(message, DeltaBatch):
            lines, following = self._deltas(message.batch, position)
        else:
            lines, following = self._holdings(message, position)
        return Page(self._wrap(b"".join(lines)) if lines else b"", following)

    def _deltas(self, batch: Batch, position: Position) -> tuple[list[bytes], Position | None]:
        begin, before = position
        end = min(begin + MAX_PAGE_ITEMS, len(batch.deltas))
        lines, cut = gather(self._delta_lines(batch, range(begin, end)), MAX_CHUNK_BYTES)
        following = end if cut is None else cut
        more = following < len(batch.deltas)
        return lines, (following, before + len(lines)) if more else None

    def _delta_lines(self, batch: Batch, indexes: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Yield the records of deltas, as the filter shows them."""
        encoder, apply, passes_all = self._encoder, self.filter.apply, self._passes_all
        # A record is wanted again only where there are other filters. With 200 that let the same
        # 100 deltas through, encoding each once takes 20 ms of CPU instead of 72.
        lines = self._views.lines if len(self._views) > 1 else None
        for index in indexes:
            delta, seq = batch.deltas[index], batch.first + index
            shown = delta if passes_all else apply(delta)
            if shown is None:
                continue
            if lines is None or shown is not delta:
                yield index, encoder.delta(shown, seq, batch.time)
                continue
            line = lines.get(seq)
            if line is None:
                line = encoder.delta(delta, seq, batch.time)
                lines.put(seq, line)
            yield index, line

    def _holdings(
        self, snapshot: FullSnapshot, position: Position
    ) -> tuple[list[bytes], Position | None]:
        begin, before = position
        holdings, limit, encoder = snapshot.holdings, self._page_bytes, self._encoder
        found, end = _passing(self.filter, holdings, begin, max(1, limit // _RECORD_BYTES))
        head = encoder.head("snapshot", snapshot.seq, snapshot.time)
        records = encoder.holdings(head, (holdings[index] for index in found))
        lines, cut = gather(zip(found, records, strict=True), limit)
        before += len(lines)
        if cut is not None or end < len(holdings):
            return lines, (end if cut is None else cut, before)
        last = encoder.snapshot_end(snapshot.seq, snapshot.time, before)
        if lines and sum(map(len, lines)) + len(last) > limit:
            return lines, (end, before)
        return [*lines, last], None


def _passing(
    chosen: Filter, holdings: Sequence[Holding], begin: int, max_found: int
) -> tuple[Sequence[int], int]:
    """Return the indexes of the next holdings that pass a filter, and where to continue."""
    if chosen.passes_all:
        end = min(begin + max_found, len(holdings))
        return range(begin, end), end
    end = min(begin + MAX_PAGE_ITEMS, len(holdings))
    passes = chosen.matches
    found = [index for index in range(begin, end) if passes(holdings[index])]
    return (found, end) if len(found) <= max_found else (found[:max_found], found[max_found])


def gather(lines: Iterable[tuple[int, bytes]], max_bytes: int) -> tuple[list[bytes], int | None]:
    """Take pairs of index and line up to a size of the lines, at least one. Return the lines, and
    the index of the first line that did not fit, None where all did."""
    gathered: list[bytes] = []
    size = 0
    for index, line in lines:
        size += len(line)
        if size > max_bytes and gathered:
            return gathered, index
        gathered.append(line)
    return gathered, None
