"""The state that records lead to: which process holds which socket on which host. Pure.

It is the same whether the records were decoded or come as messages from a local feed.
"""

# No deferred annotations: typing.NamedTuple would compile each of them at import.
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from ..model import (
    Closed,
    Coverage,
    Delta,
    Holding,
    HoldingKey,
    HostHolding,
    Opened,
    Updated,
)
from .decoder import Alive, Began, Decoded, Dropped, Other, Present, SnapshotEnd, Value
from .diff import is_same
from .history import DeltaBatch, FullSnapshot, Heartbeat, Hello, Lost, Message

# Newest ranges of dropped changes that are kept for each host: a stream may run for months.
MAX_DROPPED = 100


class HostStatus(NamedTuple):
    """What is known of a host beside its holdings.

    ``complete``: a snapshot has ended, and nothing was dropped since. ``coverage`` is the newest
    one, None before the first. ``dropped`` are the newest ranges of changes that are missing. The
    newest record is of ``time``.
    """

    host: str
    complete: bool
    coverage: Coverage | None
    dropped: tuple[Dropped, ...]
    time: float


class State:
    """The holdings of all hosts, kept current by records.

    A record that does not fit, such as the close of a socket that is not open, is applied as far as
    possible and counted in ``violations``. Streams in which a filter hides kinds of records have
    many of them. Changes of sockets without an inode, which opened and closed between polls, leave
    no trace.
    """

    def __init__(self) -> None:
        self._hosts: dict[str, _Host] = {}

    def apply(self, record: Decoded) -> None:
        """Apply a decoded record."""
        host, seq, time, value = record
        self._host(host).apply(value, seq, time)

    def apply_message(self, host: str, message: Message) -> None:
        """Apply a message of the feed of this machine, whose name is ``host``."""
        self._host(host).apply_message(message)

    def holdings(self) -> Iterator[HostHolding]:
        """Yield the holdings, host by host.

        A snapshot replaces the holdings of its host when it ends. Only the first one counts from
        its first record on, so that a one-shot snapshot and one that is cut off are seen.
        """
        for host in self._hosts.values():
            yield from host.holdings.values()

    def keyed(self) -> Iterator[tuple[HoldingKey, HostHolding]]:
        """Yield the holdings with the keys that they have on their hosts: one without an inode has
        a negative number instead."""
        for host in self._hosts.values():
            yield from host.holdings.items()

    def holding(self, host: str, key: HoldingKey) -> HostHolding | None:
        """Return a holding of a host; None if there is none."""
        known = self._hosts.get(host)
        return None if known is None else known.holdings.get(key)

    def __len__(self) -> int:
        return sum(len(host.holdings) for host in self._hosts.values())

    def hosts(self) -> list[HostStatus]:
        """Return the status of each host, in the order in which they appeared."""
        return [host.status() for host in self._hosts.values()]

    @property
    def violations(self) -> int:
        """How many records did not fit the state."""
        return sum(host.violations for host in self._hosts.values())

    def _host(self, name: str) -> "_Host":
        host = self._hosts.get(name)
        if host is None:
            host = self._hosts[name] = _Host(name)
        return host


class _Host:
    """The state of one host."""

    __slots__ = (
        "_arriving", "_complete", "_coverage", "_dropped", "_had_snapshot", "_head", "_name",
        "_time", "holdings", "violations",
    )  # fmt: skip

    def __init__(self, name: str) -> None:
        self.holdings: dict[HoldingKey, HostHolding] = {}
        self.violations = 0
        self._name = name
        self._complete = False
        self._coverage: Coverage | None = None
        self._dropped: deque[Dropped] = deque(maxlen=MAX_DROPPED)
        self._time = float("-inf")
        # The snapshot that has begun and not ended, and the seq and time of all its records.
        self._arriving: dict[HoldingKey, HostHolding] | None = None
        self._head: tuple[int, float] | None = None
        self._had_snapshot = False

    def apply(self, value: Value, seq: int, time: float) -> None:
        """Apply the value of a record."""
        self._time = max(self._time, time)
        match value:
            case Present(holding):
                self._add(holding, (seq, time))
            case Opened() | Updated() | Closed() | Coverage():
                self._change(value, time)
            case SnapshotEnd(records):
                self._end(records)
            case Began(coverage, _, resumed):
                self._begin(coverage, resumed=resumed)
            case Dropped():
                self._drop(value)
            case Alive() | Other():
                pass

    def apply_message(self, message: Message) -> None:
        """Apply a message of a feed."""
        match message:
            case Hello(_, time, coverage, resumed):
                self._begin(coverage, resumed=resumed)
            case FullSnapshot(_, seq, time, holdings):
                for holding in holdings:
                    self._add(holding, (seq, time))
                self._end(len(holdings))
            case DeltaBatch(batch, begin):
                time = batch.time
                for delta in batch.deltas[begin:]:
                    at = None if isinstance(delta, Coverage) else delta.time
                    self._change(delta, time if at is None else at)
            case Lost(seq, time, first):
                self._drop(Dropped(first, seq))
            case Heartbeat(_, time, _):
                pass
        self._time = max(self._time, time)

    def status(self) -> HostStatus:
        """Return what is known beside the holdings."""
        dropped = tuple(self._dropped)
        return HostStatus(self._name, self._complete, self._coverage, dropped, self._time)

    def _begin(self, coverage: Coverage, *, resumed: bool) -> None:
        self._coverage = coverage
        self._arriving = self._head = None
        self._complete = self._complete and resumed

    def _drop(self, dropped: Dropped) -> None:
        self._dropped.append(dropped)
        self._arriving = self._head = None
        self._complete = False

    def _add(self, holding: Holding, head: tuple[int, float]) -> None:
        """Add a holding of a snapshot; those of another head are of another snapshot."""
        arriving = self._arriving
        if arriving is None or head != self._head:
            arriving = self._arriving = {}
            self._head = head
            if not self._had_snapshot:
                self.holdings = arriving
        key = _key(holding)
        if not key[1]:
            # Of the many that may be without an inode, each gets a key of its own.
            key = (key[0], -1 - len(arriving))
        elif key in arriving:
            self.violations += 1
        arriving[key] = HostHolding(self._name, holding, None)

    def _end(self, records: int) -> None:
        """Replace the holdings by those of the snapshot. A holding that was open before keeps the
        time of its opening."""
        before, after = self.holdings, self._arriving or {}
        self.violations += len(after) != records
        if after is not before:
            for key in before.keys() & after.keys():
                was, now = before[key], after[key]
                if was.since is not None and is_same(was.holding, now.holding):
                    after[key] = now._replace(since=was.since)
        self.holdings = after
        self._arriving = self._head = None
        self._had_snapshot = self._complete = True

    def _change(self, delta: Delta, time: float) -> None:
        if isinstance(delta, Coverage):
            self._coverage = delta
            return
        holding = delta.holding
        key = _key(holding)
        if not key[1]:
            return
        was = self.holdings.get(key)
        self.violations += (was is not None) == isinstance(delta, Opened)
        match delta:
            case Opened():
                self.holdings[key] = HostHolding(self._name, holding, time)
            case Updated():
                since = None if was is None else was.since
                self.holdings[key] = HostHolding(self._name, holding, since)
            case Closed():
                self.holdings.pop(key, None)


def _key(holding: Holding) -> HoldingKey:
    process = holding.process
    return (None if process is None else process.pid, holding.socket.inode)
