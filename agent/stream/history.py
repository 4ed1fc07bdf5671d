"""The newest deltas of the stream, numbered: what a subscriber can resume from, and the messages
that it gets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from sys import getsizeof
from typing import NamedTuple

from ..model import INET_FAMILIES, Closed, Coverage, Delta, Holding, Updated
from ..snapshot.stats import PollSummary

# What values of the model take with all their numbers and addresses, but without texts of variable
# length. A test compares the sums with what deltas really keep alive.
_DELTA_BYTES = 128
_COVERAGE_BYTES = 256
_FIGURES_BYTES = 288
_HOLDING_BYTES = 280
_SOCKET_BYTES = 832
_PROCESS_BYTES = 304
_OWNER_BYTES = 112
_PLACE_BYTES = 80
_POINTER_BYTES, _NUMBER_BYTES = 8, 32

# Times the bounds that a burst may take: 240 MiB with those of the agent, for as long as it lasts.
MAX_BURST = 10


class Batch:
    """The deltas of one poll at ``time``, at least one: numbered ``first`` to ``last``. ``size`` is
    an upper bound of the bytes that they keep alive.

    Between two batches of a remote agent, numbers may be missing that a filter of it hid.
    """

    __slots__ = ("deltas", "first", "last", "size", "time")

    def __init__(self, time: float, deltas: Sequence[Delta], first: int) -> None:
        self.time = time
        self.deltas = tuple(deltas)
        self.first = first
        self.last = first + len(deltas) - 1
        self.size = _size(deltas)


def _size(deltas: Sequence[Delta]) -> int:
    """Return an upper bound of the bytes that deltas keep alive; shared values count once."""
    counted: set[int] = set()  # Ids of counted values, which the deltas keep alive.
    size = 0
    for delta in deltas:
        size += _DELTA_BYTES
        if isinstance(delta, Coverage):
            size += _COVERAGE_BYTES + _texts((*delta.missing, delta.events_off), counted)
            continue
        size += _holding(delta.holding, counted)
        if isinstance(delta, Updated):
            size += _holding(delta.before, counted)
        elif isinstance(delta, Closed) and delta.figures is not None:
            size += _FIGURES_BYTES
    return size


def _holding(holding: Holding, counted: set[int]) -> int:
    socket, process, fds, owner, _peer_pid, place, _omitted_fds, _attribution = holding
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
        if not text.isascii():  # Python may keep its UTF-8, once encoded.
            size += 4 * len(text) + 1
    return size


class History:
    """The newest batches, bounded in records and in bytes; the newest one is always held.

    A poll may change more than the bounds allow: a subscriber that keeps up gets all of it. Batches
    of the last ``burst`` seconds are held up to MAX_BURST times the bounds: a storm of connections
    makes several such polls in a row, faster than a reader is served.
    """

    def __init__(self, records: int, size: int, burst: float = 0.0) -> None:
        self._max_records, self._max_bytes = records, size
        self._burst = burst
        self._batches: list[Batch] = []
        self._records = self._bytes = 0
        self._dropped = 0  # The newest seq that is no longer held.

    def append(self, batch: Batch) -> None:
        """Add the newest batch; drop the oldest ones that exceed the bounds."""
        self._batches.append(batch)
        self._records += len(batch.deltas)
        self._bytes += batch.size
        dropped = 0
        while self._is_over(1) and dropped < len(self._batches) - 1:
            oldest = self._batches[dropped]
            if 0 <= batch.time - oldest.time < self._burst and not self._is_over(MAX_BURST):
                break
            dropped += 1
            self._records -= len(oldest.deltas)
            self._bytes -= oldest.size
            self._dropped = oldest.last
        del self._batches[:dropped]

    def _is_over(self, times: int) -> bool:
        """Return whether the history exceeds this multiple of its bounds."""
        return self._records > times * self._max_records or self._bytes > times * self._max_bytes

    @property
    def batches(self) -> list[Batch]:
        """The batches held, the oldest first."""
        return list(self._batches)

    def restore(self, batches: Sequence[Batch], seq: int, oldest: int | None = None) -> None:
        """Add the batches that an earlier run held, whose newest delta was ``seq``: all deltas
        after ``oldest``, None: from the first of the batches on."""
        for batch in batches:
            self.append(batch)
        if oldest is None:
            oldest = batches[0].first - 1 if batches else seq
        self._dropped = max(self._dropped, oldest)

    def clear(self, seq: int) -> None:
        """Drop every batch; ``seq`` is the newest delta."""
        self._batches = []
        self._records = self._bytes = 0
        self._dropped = seq

    @property
    def oldest(self) -> int:
        """The smallest number after which all deltas are held."""
        return self._dropped

    def holds(self, seq: int) -> bool:
        """Return whether all deltas after ``seq`` are held."""
        return seq >= self._dropped

    def after(self, seq: int) -> Batch | None:
        """Return the oldest batch with a delta after ``seq``; None when there is none."""
        batches = self._batches
        if batches and seq + 1 >= batches[-1].first:  # The usual case.
            return batches[-1] if seq < batches[-1].last else None
        index = bisect_right(batches, seq, key=attrgetter("last"))
        return batches[index] if index < len(batches) else None


# What a subscription gives its reader.


class Hello(NamedTuple):
    """The first message. A ``FullSnapshot`` follows, if wanted, unless the stream is resumed."""

    seq: int
    time: float
    coverage: Coverage
    resumed: bool
    oldest: int = 0  # The smallest number after which the stream can be resumed.


class FullSnapshot(NamedTuple):
    """Every holding of the newest poll, and of the delta numbered ``seq``. ``poll`` numbers the
    polls of the feed from 1 on: equal numbers mean equal snapshots."""

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
    """Nothing happened for a while; ``stats`` is what the agent's polls cost, None if unknown."""

    seq: int
    time: float
    stats: PollSummary | None


Message = Hello | FullSnapshot | DeltaBatch | Lost | Heartbeat
