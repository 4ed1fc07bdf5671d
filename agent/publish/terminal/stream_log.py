"""The event log of a stream: the lines of a feed's messages, or of decoded records. Pure.

The filter is applied here. What says that something is missing is always reported.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ...model import Closed, Coverage, Delta, Holding, Opened, Updated
from ...stream import decoder
from ...stream.decoder import Decoded, Present, SnapshotEnd
from ...stream.filters import Filter
from ...stream.history import DeltaBatch, FullSnapshot, Lost, Message
from .eventlog import Dropped, Started, log_line
from .names import Resolver
from .options import Options

FOLLOWING = "following, ^C ends (in a pipe: NDJSON)"


class StreamLog:
    """Makes the lines of the event log; from the second host on, each line names its host. ``hint``
    ends the line of the first snapshot."""

    def __init__(
        self,
        chosen: Filter,
        options: Options,
        hint: str = "",
        resolver: Resolver | None = None,
    ) -> None:
        """``resolver`` is told of the addresses that are printed; ``options`` has its names."""
        self._filter = chosen
        self._options = options
        self._hint = hint
        self._resolver = resolver
        self._hosts: dict[str, _Host] = {}

    def of_message(self, host: str, message: Message) -> Iterator[str]:
        """Yield the lines of a message of the feed of this machine, whose name is ``host``."""
        known = self._host(host)
        match message:
            case FullSnapshot(_, _, time, holdings):
                known.add(filter(known.filter.matches, holdings), time)
                yield self._snapshot(host, time)
            case Lost(seq, _, first):
                known.drop(decoder.Dropped(first, seq))
            case DeltaBatch(batch, begin):
                for delta in batch.deltas[begin:]:
                    yield from self._change(host, batch.time, delta)

    def of_record(self, record: Decoded) -> Iterator[str]:
        """Yield the lines of a record; none of a host that the filter leaves out."""
        host, _, time, value = record
        if not self._filter.matches_host(host):
            return
        known = self._host(host)
        match value:
            case Present(holding):
                known.add((holding,) if known.filter.matches(holding) else (), time)
            case SnapshotEnd():
                yield self._snapshot(host, time)
            case decoder.Dropped():
                known.drop(value)
            case Opened() | Updated() | Closed() | Coverage():
                yield from self._change(host, time, value)

    def end(self) -> Iterator[str]:
        """Yield the lines of what the stream did not end: snapshots, and changes that are lost."""
        for host, known in self._hosts.items():
            if known.is_pending:
                yield self._snapshot(host, known.time)

    def _host(self, host: str) -> _Host:
        known = self._hosts.get(host)
        if known is None:
            known = self._hosts[host] = _Host(self._filter.of_host(host))
            if len(self._hosts) > 1 and not self._options.hosts:
                self._options = replace(self._options, hosts=True)
        return known

    def _snapshot(self, host: str, time: float) -> str:
        """Return the line of a snapshot: it begins the log, or follows what was lost."""
        sockets, processes, dropped = self._hosts[host].take()
        if dropped is not None:
            value = Dropped(dropped.first, dropped.last, sockets)
            return log_line(host, time, value, self._options)
        hint, self._hint = self._hint, ""
        return log_line(host, time, Started(sockets, processes, hint), self._options)

    def _change(self, host: str, time: float, delta: Delta) -> Iterator[str]:
        shown = self._host(host).filter.apply(delta)
        if shown is None:
            return
        at = None
        if not isinstance(shown, Coverage):
            at = shown.time
            if self._resolver is not None:
                self._resolver.request((shown.holding,))
        yield log_line(host, time if at is None else at, shown, self._options)


class _Host:
    """The snapshot of a host that arrives, and the changes that were lost before it. ``time`` is
    that of its newest record, in seconds since the Unix epoch. ``filter`` is that of the host."""

    def __init__(self, chosen: Filter) -> None:
        self.filter = chosen
        self.time = 0.0
        self._inodes: set[int] = set()
        self._pids: set[int] = set()
        self._dropped: decoder.Dropped | None = None

    @property
    def is_pending(self) -> bool:
        """Whether something arrived that no line reported."""
        return self._dropped is not None or bool(self._inodes)

    def add(self, holdings: Iterable[Holding], time: float) -> None:
        """Count holdings of the snapshot."""
        self.time = time
        for holding in holdings:
            self._inodes.add(holding.socket.inode)
            if holding.process is not None:
                self._pids.add(holding.process.pid)

    def drop(self, dropped: decoder.Dropped) -> None:
        """Record that changes are lost; the counts begin anew."""
        self.take()
        self._dropped = dropped

    def take(self) -> tuple[int, int, decoder.Dropped | None]:
        """Return the counts of sockets and processes, and what was lost; begin anew."""
        taken = len(self._inodes), len(self._pids), self._dropped
        self._inodes, self._pids, self._dropped = set(), set(), None
        return taken


def is_match(chosen: Filter, message: Message) -> bool:
    """Return whether a message has a socket that passes a filter, which is that of its host."""
    match message:
        case FullSnapshot(holdings=holdings):
            return "snapshot" in chosen.events and any(map(chosen.matches, holdings))
        case DeltaBatch(batch, begin):
            return any(
                not isinstance(delta, Coverage) and chosen.apply(delta) is not None
                for delta in batch.deltas[begin:]
            )
    return False


def is_record_match(chosen: Filter, record: Decoded) -> bool:
    """Return whether a record is of a socket that passes a filter."""
    chosen = chosen.of_host(record.host)
    match record.value:
        case Present(holding):
            return "snapshot" in chosen.events and chosen.matches(holding)
        case Opened() | Updated() | Closed() as delta:
            return chosen.apply(delta) is not None
    return False


def is_of_socket(record: Decoded) -> bool:
    """Return whether a record is of a socket, and not of the stream itself."""
    return isinstance(record.value, (Present, Opened, Updated, Closed))
