"""The newest deltas of the stream, numbered: what a subscriber may go on from.

It knows neither subscribers nor transports, and nothing of how deltas are told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from .model import Coverage, Delta

# What one takes in memory, but for its command line: about two times its record.
_DELTA_BYTES = 1200


class Batch:
    """The deltas of one poll, at ``time``, never empty: numbered ``first`` to ``last``.

    ``size`` is about what they take in memory. ``lines`` are the records of some, by index, as
    long as the batch is the newest one.
    """

    __slots__ = ("_old", "_size", "deltas", "first", "last", "lines", "size", "time")

    def __init__(self, time: float, deltas: Sequence[Delta], first: int) -> None:
        self.time = time
        self.deltas = tuple(deltas)
        self.first = first
        self.last = first + len(deltas) - 1
        self.size = sum(map(_size, deltas))
        self.lines: dict[int, bytes] = {}
        self._size, self._old = 0, False  # Of the lines.

    def keep(self, index: int, line: bytes, most: int) -> None:
        """Keep the record of a delta, for other subscribers, if all are at most so many bytes."""
        if not self._old and self._size + len(line) <= most:
            self._size += len(line)
            self.lines[index] = line

    def retire(self) -> None:
        """It is not the newest any more: few will ask for it."""
        self._old = True
        self.lines.clear()


def _size(delta: Delta) -> int:
    process = None if isinstance(delta, Coverage) else delta.holding.process
    arguments = process.cmdline if process is not None and process.cmdline else ()
    return _DELTA_BYTES + sum(map(len, arguments))


class History:
    """The newest batches, bounded in records and in bytes; but the newest one is always held.

    A poll may change more than is held at other times: who keeps up is told all of it.
    """

    def __init__(self, records: int, size: int) -> None:
        self._most_records, self._most_bytes = records, size
        self._batches: list[Batch] = []
        self._records = self._bytes = 0
        self._dropped = 0  # The newest seq that is no longer held.

    def append(self, batch: Batch) -> None:
        """Add the newest batch; the oldest ones make room."""
        if self._batches:
            self._batches[-1].retire()
        self._batches.append(batch)
        self._records += len(batch.deltas)
        self._bytes += batch.size
        gone = 0
        while (self._records > self._most_records or self._bytes > self._most_bytes) and gone < len(
            self._batches
        ) - 1:
            oldest = self._batches[gone]
            gone += 1
            self._records -= len(oldest.deltas)
            self._bytes -= oldest.size
            self._dropped = oldest.last
        del self._batches[:gone]

    @property
    def batches(self) -> list[Batch]:
        """Those that are held, the oldest first."""
        return list(self._batches)

    def restore(self, batches: Sequence[Batch], seq: int) -> None:
        """Hold what an earlier run held, whose newest delta is ``seq``."""
        for batch in batches:
            self.append(batch)
        self._dropped = max(self._dropped, batches[0].first - 1 if batches else seq)

    def holds(self, seq: int) -> bool:
        """Whether everything behind ``seq`` is still held."""
        return seq >= self._dropped

    def after(self, seq: int) -> Batch | None:
        """The oldest batch with something behind ``seq``; None when there is none."""
        at = bisect_right(self._batches, seq, key=_last)
        return self._batches[at] if at < len(self._batches) else None


def _last(batch: Batch) -> int:
    return batch.last
