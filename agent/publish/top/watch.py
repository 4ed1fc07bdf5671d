"""What the live screen knows: the state that records lead to, and what happened lately. Pure.

``now`` is the time of the screen, in seconds since the Unix epoch. The times of records are those
of their hosts, whose clocks may differ.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ...model import Closed, Coverage, Delta, HostHolding, Opened, Updated
from ...stream.decoder import Alive, Began, Decoded, Dropped, Other, Present, SnapshotEnd
from ...stream.filters import Filter
from ...stream.history import DeltaBatch, FullSnapshot, Lost, Message
from ...stream.state import State
from ..terminal import eventlog
from ..terminal.peers import Peers
from .alarms import LostChanges, ranked
from .details import Shown, ended_row, index_peers, peer_rows, socket_rows
from .groups import Since
from .heading import make_header
from .model import (
    Alarm,
    Event,
    Grouping,
    GroupKey,
    GroupRow,
    Header,
    PeerRow,
    SocketKey,
    SocketRow,
)
from .monitor import AlarmMonitor
from .rates import WINDOW, Clocks
from .recent import NO_ENDS, Change, Recent
from .table import LINGER_SECONDS, Entry, Held, Table

MAX_EVENTS = 2_000
# Seconds for which the other ends that were looked up are used again, and between two counts of
# all holdings while a snapshot arrives: each takes tens of milliseconds at 20,000 sockets.
_PEERS_SECONDS, _ARRIVING_SECONDS = 2.0, 1.0
# Sockets that were attributed and of which the open of the holder is still to come.
_MAX_MOVED = 10_000
# The rows of a group of more sockets are made once a second only, in 5 µs each.
_MANY, _MANY_SECONDS = 1_000, 1.0
_EVERYTHING = Filter()


class Watch:
    """Takes records and returns what the screen shows. ``changes`` counts the records taken, but
    for heartbeats."""

    def __init__(self, *, one_clock: bool = False) -> None:
        """``one_clock``: the time of the screen is that of the records, because they are of this
        machine or the screen shows a recording."""
        self.changes = 0
        self._state = State()
        self._clocks = Clocks(one_clock=one_clock)
        self._recent = Recent()
        self._hosts = Table(Grouping.HOST, _EVERYTHING)
        self._processes = Table(Grouping.PROCESS, _EVERYTHING)
        self._chosen: Table | None = None  # Of another grouping or filter.
        # Whether the holdings must be counted anew: a snapshot ended, or the first one arrives.
        self._replaced = self._arriving = False
        self._rebuilt = float("-inf")
        self._whole: set[str] = set()  # Hosts of which a snapshot ended.
        self._snapshots: dict[str, float] = {}  # The times of the newest snapshots.
        self._times: dict[str, float] = {}  # Of their newest records,
        self._since: dict[str, float] = {}  # and of their first ones.
        self._close_wait: dict[SocketKey, Since] = {}
        self._monitor = AlarmMonitor()
        self._moved: set[tuple[str, int]] = set()
        self._queues: Mapping[tuple[str, int], tuple[int, int]] = {}
        # By host, and whether sockets that ended are among them.
        self._peers: dict[tuple[str, bool], tuple[float, int, Peers]] = {}
        self._shown: Shown | None = None

    # Records.

    def apply(self, record: Decoded) -> None:
        """Apply a decoded record."""
        host, _, time, value = record
        self._hear(host, time)
        match value:
            case Opened() | Updated() | Closed():
                self._change(record, value)
            case Coverage():
                self._state.apply(record)
                self._recent.append(host, time, value)
            case Dropped(first, last):
                self._state.apply(record)
                self._drop(host, time, first, last)
            case Present():
                self._state.apply(record)
                self._snapshots[host] = time
                self._arriving |= host not in self._whole
            case SnapshotEnd():
                self._state.apply(record)
                self._end_snapshot(host, time)
            case Began() | Alive() | Other():
                self._state.apply(record)
        self.changes += not isinstance(value, (Alive, Other))

    def apply_message(self, host: str, message: Message) -> None:
        """Apply a message of the feed of this machine, whose name is ``host``."""
        match message:
            case DeltaBatch(batch, begin):
                for number, delta in enumerate(batch.deltas[begin:], batch.first + begin):
                    at = None if isinstance(delta, Coverage) else delta.time
                    self.apply(Decoded(host, number, batch.time if at is None else at, delta))
                self._hear(host, batch.time)
                return
            case FullSnapshot(_, _, time, holdings):
                self._end_snapshot(host, time)
                self.changes += len(holdings)
            case Lost(seq, time, first):
                self._drop(host, time, first, seq)
                self.changes += 1
            case _:
                time = message.time
        self._hear(host, time)
        self._state.apply_message(host, message)

    def _hear(self, host: str, time: float) -> None:
        self._clocks.record(host, time)
        self._times[host] = time
        if host not in self._since:
            self._since[host] = time
            self._monitor.begin(host, time)

    def _end_snapshot(self, host: str, time: float) -> None:
        self._replaced = True
        self._snapshots[host] = time
        self._whole.add(host)

    def _drop(self, host: str, time: float, first: int, last: int | None) -> None:
        self._monitor.drop(LostChanges(host, first, last, time))
        self._recent.append(host, time, eventlog.Dropped(first, last))

    def _change(self, record: Decoded, delta: Opened | Updated | Closed) -> None:
        host, _, time, _ = record
        process, inode = delta.holding.process, delta.holding.socket.inode
        key = SocketKey(host, None if process is None else process.pid, inode)
        was_held = self._hosts.holds(GroupKey(Grouping.HOST, host), inode)
        before = self._held(key)
        self._state.apply(record)
        self._note_close_wait(key, time)
        if not self._replaced and not self._arriving:
            after = self._held(key)
            for table in self._tables():
                table.change(key, before, after, time)
        counts = self._counts(delta, (host, inode), was_held=was_held)
        change = self._recent.append(host, time, delta, counts=counts)
        if counts and isinstance(delta, Opened):
            self._monitor.open(host, time)
        if not self._replaced and not self._arriving:
            for table in self._tables():
                table.count(change)

    def _held(self, key: SocketKey) -> Held | None:
        one = self._state.holding(key.host, (key.pid, key.inode)) if key.inode else None
        return None if one is None else Held(one, self._close_wait.get(key))

    def _note_close_wait(self, key: SocketKey, time: float) -> None:
        one = self._state.holding(key.host, (key.pid, key.inode)) if key.inode else None
        if one is None or one.holding.socket.state != "CLOSE_WAIT":
            self._close_wait.pop(key, None)
        elif key not in self._close_wait:
            self._close_wait[key] = Since(time, before=False)

    def _counts(self, delta: Delta, socket: tuple[str, int], *, was_held: bool) -> bool:
        """Return whether a delta opens or closes a connection: its socket had no holder before, or
        has none now, as far as the snapshot is counted. A socket that is attributed goes from no
        known holder to one."""
        match delta:
            case Opened():
                is_moved = socket in self._moved
                self._moved.discard(socket)
                return not is_moved and not was_held
            case Closed(reason="attributed"):
                if len(self._moved) < _MAX_MOVED:
                    self._moved.add(socket)
                return False
            case Closed(reason=reason):
                host, inode = socket
                is_held = self._hosts.holds(GroupKey(Grouping.HOST, host), inode)
                return reason not in NO_ENDS and not is_held
        return False

    def queues(self, values: Mapping[tuple[str, int], tuple[int, int]]) -> None:
        """Set the accept queues that were read now: host and inode → queue and backlog. Listeners
        that ``values`` lack have the queue of their records."""
        if values != self._queues:
            self._queues = dict(values)
            self.changes += 1
            for table in self._tables():
                table.touch_queues()

    # What the screen shows.

    def groups(
        self, grouping: Grouping, now: float, chosen: Filter = _EVERYTHING
    ) -> list[GroupRow]:
        """Return the rows of a grouping, in no order, of the holdings that a filter chooses."""
        self._advance(now)
        return self._rows(self._table(grouping, chosen), now)

    def sockets(self, key: GroupKey, now: float, chosen: Filter = _EVERYTHING) -> list[SocketRow]:
        """Return the sockets of a group, in no order, those that ended less than 5 s ago too."""
        self._advance(now)
        shown = self._shown
        if shown is not None and (shown.key, shown.chosen) == (key, chosen):
            is_fresh = 0 <= now - shown.made < _MANY_SECONDS
            if is_fresh and (shown.changes == self.changes or len(shown.rows) > _MANY):
                return shown.rows
        rows = self._socket_rows(key, now, chosen)
        self._shown = Shown(key, chosen, now, self.changes, rows)
        return rows

    def _socket_rows(self, key: GroupKey, now: float, chosen: Filter) -> list[SocketRow]:
        members = self._table(key.grouping, chosen).members(key)
        host_now = self._clocks.of(key.host)
        peers = self._peers_of(key.host, now)
        rows = list(socket_rows(members, peers, self._close_wait, self._queues, host_now))
        known = {row.key for row in rows}
        for change in self._recent.newest(key, chosen):
            if host_now - change.time >= LINGER_SECONDS:
                break
            if isinstance(change.value, Closed) and change.value.reason not in NO_ENDS:
                row = ended_row(change, change.value, host_now)
                if row.key not in known:
                    known.add(row.key)
                    rows.append(row)
        return rows

    def peers(self, key: GroupKey, now: float, chosen: Filter = _EVERYTHING) -> list[PeerRow]:
        """Return the other ends of the connections of a group, open or closed in the last minute,
        those with most connections first."""
        self._advance(now)
        members = self._table(key.grouping, chosen).members(key)
        peers = self._peers_of(key.host, now, with_ended=True)
        ended = self._ended(key.host, self._recent.newest(key, chosen))
        return peer_rows(members.values(), ended, peers)

    def _ended(self, host: str, changes: Iterable[Change]) -> list[HostHolding]:
        """Return the connections of a host that closed in the last minute."""
        oldest = self._clocks.of(host) - WINDOW
        return [
            HostHolding(host, change.value.holding, None)
            for change in changes
            if change.counts and change.time > oldest and isinstance(change.value, Closed)
            and change.host == host
        ]  # fmt: skip

    def events(self, key: GroupKey | None, chosen: Filter = _EVERYTHING) -> list[Event]:
        """Return the newest events of a group, None: of all groups, the newest last; 2,000 at
        most. Coverage and lost records of its host are among them."""
        events: list[Event] = []
        for change in self._recent.newest(key, chosen):
            events.append(Event(change.host, change.time, change.value, change.number))
            if len(events) == MAX_EVENTS:
                break
        return events[::-1]

    def holdings(self) -> Iterator[HostHolding]:
        """Yield all holdings, host by host."""
        return self._state.holdings()

    @property
    def event_count(self) -> int:
        """How many events there were: those that were dropped too."""
        return self._recent.count

    @property
    def host_count(self) -> int:
        """How many hosts records came of."""
        return len(self._times)

    def header(self, now: float) -> Header:
        """Return the first line, of all hosts and holdings."""
        self._advance(now)
        rows = self._rows(self._hosts, now)
        return make_header(self._hosts, rows, self._state.hosts(), self._clocks)

    def alarms(self, now: float) -> list[Alarm]:
        """Return what is wrong now, of all hosts and holdings, in the order of ``ranked``."""
        self._advance(now)
        self._rows(self._processes, now)
        self._rows(self._hosts, now)
        found = self._monitor.process_alarms(self._processes, self._clocks, self._queues, now)
        hosts = {one.host: one for one in self._state.hosts()}
        for host in self._times:
            coverage = hosts[host].coverage if host in hosts else None
            found += self._monitor.host_alarms(
                host, coverage, self._hosts, self._processes, self._clocks
            )
        return ranked(found)

    # How it comes about.

    def _advance(self, now: float) -> None:
        """Set the time, and count the holdings anew if that is needed."""
        self._clocks.advance(now)
        is_due = self._arriving and now - self._rebuilt >= _ARRIVING_SECONDS
        if self._replaced or is_due:
            self._rebuilt = now
            self._replaced = self._arriving = False
            entries = self._entries()
            self._hosts = self._built(Grouping.HOST, _EVERYTHING, entries)
            self._processes = self._built(Grouping.PROCESS, _EVERYTHING, entries)
            if self._chosen is not None:
                grouping, chosen = self._chosen.grouping, self._chosen.chosen
                self._chosen = self._built(grouping, chosen, entries)

    def _entries(self) -> list[Entry]:
        """Return the present holdings with their keys, and since when they are in CLOSE_WAIT."""
        entries: list[Entry] = []
        close_wait: dict[SocketKey, Since] = {}
        for (pid, inode), one in self._state.keyed():
            key = SocketKey(one.host, pid, inode)
            since = None
            if one.holding.socket.state == "CLOSE_WAIT":
                since = self._close_wait.get(key) or Since(self._snapshots[one.host], before=True)
                close_wait[key] = since
            entries.append((key, one, since))
        self._close_wait = close_wait
        return entries

    def _built(self, grouping: Grouping, chosen: Filter, entries: Iterable[Entry]) -> Table:
        """Return a table of holdings and the newest changes."""
        table = Table(grouping, chosen, self._recent.since)
        table.fill(entries)
        for change in self._recent:
            table.count(change)
        return table

    def _table(self, grouping: Grouping, chosen: Filter) -> Table:
        for table in self._tables():
            if table.grouping is grouping and table.chosen == chosen:
                return table
        self._chosen = self._built(grouping, chosen, self._entries())
        return self._chosen

    def _tables(self) -> list[Table]:
        return [self._hosts, self._processes, *([] if self._chosen is None else [self._chosen])]

    def _rows(self, table: Table, now: float) -> list[GroupRow]:
        return table.rows(now, self._clocks, self._since, self._queues)

    def _peers_of(self, host: str, now: float, *, with_ended: bool = False) -> Peers:
        known = self._peers.get((host, with_ended))
        if known is not None:
            made, changes, peers = known
            if changes == self.changes or 0 <= now - made < _PEERS_SECONDS:
                return peers
        at = GroupKey(Grouping.HOST, host)
        ended = self._ended(host, self._recent) if with_ended else []
        peers = index_peers(self._hosts.members(at).values(), ended)
        self._peers[host, with_ended] = (now, self.changes, peers)
        return peers
