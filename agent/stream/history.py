"""The newest deltas of the stream, numbered: what a subscriber may go on from.

It knows neither subscribers nor transports, and nothing of how deltas are told.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from sys import getsizeof

from ..model import INET_FAMILIES, Coverage, Delta, Holding, Updated

# What the values of the model take with all their numbers and addresses, but without texts of any
# length. A test compares the sums with what deltas really keep alive.
_DELTA_BYTES = 128
_COVERAGE_BYTES = 256
_HOLDING_BYTES = 280
_SOCKET_BYTES = 832
_PROCESS_BYTES = 304
_OWNER_BYTES = 112
_PLACE_BYTES = 80
_POINTER_BYTES, _NUMBER_BYTES = 8, 32


# Times the bounds that a burst may take: 240 MiB with the agent's, for as long as it lasts.
MAX_BURST = 10


class Batch:
    """The deltas of one poll, at ``time``, never empty: numbered ``first`` to ``last``.

    ``size`` is an upper bound of the bytes that they keep alive.
    """

    __slots__ = ("deltas", "first", "last", "size", "time")

    def __init__(self, time: float, deltas: Sequence[Delta], first: int) -> None:
        self.time = time
        self.deltas = tuple(deltas)
        self.first = first
        self.last = first + len(deltas) - 1
        self.size = _size(deltas)


def _size(deltas: Sequence[Delta]) -> int:
    """Return an upper bound of the bytes that deltas keep alive; what they share counts once."""
    counted: set[int] = set()  # The ids of what is counted; the deltas keep it alive.
    size = 0
    for delta in deltas:
        size += _DELTA_BYTES
        if isinstance(delta, Coverage):
            size += _COVERAGE_BYTES + _texts(delta.missing, counted)
            continue
        size += _holding(delta.holding, counted)
        if isinstance(delta, Updated):
            size += _holding(delta.before, counted)
    return size


def _holding(holding: Holding, counted: set[int]) -> int:
    socket, process, fds, owner, _peer_pid, place, _omitted = holding
    size = _HOLDING_BYTES  # With one descriptor.
    if len(fds) > 1:
        numbers = {id(fd) for fd in fds} - counted
        counted |= numbers
        size += _POINTER_BYTES * len(fds) + _NUMBER_BYTES * len(numbers)
    if id(socket) not in counted:
        counted.add(id(socket))
        size += _SOCKET_BYTES
        if socket.family not in INET_FAMILIES or socket.interface is not None:
            texts = (socket.proto, socket.family, socket.local_addr, socket.path, socket.interface)
            size += _texts(texts, counted)
    if process is not None and id(process) not in counted:
        counted.add(id(process))
        texts = (process.comm, process.exe, process.cgroup, process.unit, process.container)
        size += _PROCESS_BYTES + _texts(texts, counted)
        if process.cmdline is not None:
            size += getsizeof(process.cmdline) + _texts(process.cmdline, counted)
    if owner is not None and id(owner) not in counted:
        counted.add(id(owner))
        size += _OWNER_BYTES + _texts((owner.user,), counted)
    if place is not None:
        size += _PLACE_BYTES + _texts(place, counted)
    return size


def _texts(texts: Iterable[str | None], counted: set[int]) -> int:
    size = 0
    for text in texts:
        if text is None or id(text) in counted:
            continue
        counted.add(id(text))
        size += _POINTER_BYTES + getsizeof(text)
        if not text.isascii():  # To encode it may keep its UTF-8 beside it.
            size += 4 * len(text) + 1
    return size


class History:
    """The newest batches, bounded in records and in bytes; but the newest one is always held.

    A poll may change more than is held at other times: who keeps up is told all of it. Batches of
    the last ``burst`` seconds are held up to MAX_BURST times the bounds: a storm of connections
    makes several such polls in a row, faster than a reader is served.
    """

    def __init__(self, records: int, size: int, burst: float = 0.0) -> None:
        self._most_records, self._most_bytes = records, size
        self._burst = burst
        self._batches: list[Batch] = []
        self._records = self._bytes = 0
        self._dropped = 0  # The newest seq that is no longer held.

    def append(self, batch: Batch) -> None:
        """Add the newest batch; the oldest ones make room."""
        self._batches.append(batch)
        self._records += len(batch.deltas)
        self._bytes += batch.size
        gone = 0
        while self._is_over(1) and gone < len(self._batches) - 1:
            oldest = self._batches[gone]
            if 0 <= batch.time - oldest.time < self._burst and not self._is_over(MAX_BURST):
                break
            gone += 1
            self._records -= len(oldest.deltas)
            self._bytes -= oldest.size
            self._dropped = oldest.last
        del self._batches[:gone]

    def _is_over(self, times: int) -> bool:
        """Return whether more is held than so many times the bounds."""
        return self._records > times * self._most_records or self._bytes > times * self._most_bytes

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
        if self._batches and seq + 1 >= self._batches[-1].first:  # The usual case.
            return self._batches[-1] if seq < self._batches[-1].last else None
        at = bisect_right(self._batches, seq, key=_last)
        return self._batches[at] if at < len(self._batches) else None


def _last(batch: Batch) -> int:
    return batch.last
