"""Sockets that ended, from the kernel's reports and the rows that showed these sockets before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from socket import AF_INET, AF_INET6

from ..bounded import drop_oldest
from ..kernel.netlink.destroy import DestroyNotice, short_lived
from ..kernel.netlink.messages import SOURCE as NOTICE_SOURCE
from ..kernel.netlink.monitor import DestroyReport
from ..kernel.rows import Scope, Table
from ..kernel.trace.connections import (
    CLIENT,
    LISTENER,
    SERVER,
    ConnectionReport,
    Endpoints,
    Finished,
)
from ..kernel.trace.tasks import Task
from ..model import Socket
from .addresses import format_address
from .ends import End, EndMatcher
from .reading import GROUP_OF, TCP, UDP, Ended, EndedSocket, Group
from .senders import NoticedEnd, SenderFinder, Surroundings
from .table_sources import ConnectionSource, EventSource, TableName

# Sockets kept of a namespace: more than those of a large machine; 100 bytes each.
MAX_ROWS = 250_000
SOURCE = "events"  # ``Socket.source`` of sockets that only trace events showed.
DIRECTIONS: dict[str | None, str] = {
    CLIENT: "outbound", SERVER: "inbound", LISTENER: "listen"
}  # fmt: skip
_FAMILIES = {int(AF_INET): "inet", int(AF_INET6): "inet6"}
UDP_TABLE: Group = ("udp", "udp6")  # Of one netlink dump.
_UDP = frozenset({"udp", "udplite"})
_NO_REPORT = ConnectionReport((), (), 0)

# A socket's cookie or, where no table shows cookies, its local and remote address and port.
RowKey = int | tuple[str | None, int | None, str | None, int | None]


def row_key(ends: Endpoints) -> RowKey:
    """Return the key of a connection in tables without cookies."""
    return (
        format_address(ends.family, ends.local),
        ends.local_port,
        format_address(ends.family, ends.remote),
        ends.remote_port,
    )


class EndedSockets:
    """Matches reports of ended sockets with rows, by the socket's cookie.

    Rows of text tables have no cookie. There, connections are matched by their ends: of two sockets
    with the same ends in one namespace, the earlier one has ended.
    """

    def __init__(
        self,
        sources: Sequence[EventSource],
        ephemeral: range,
        connections: ConnectionSource | None = None,
    ) -> None:
        self._sources = sources
        self._connections = connections
        self._ephemeral = ephemeral
        self._matcher = EndMatcher()
        self._senders = SenderFinder(connections)
        # Namespaces that lost a UDP socket, or may have, since the last call of ``forced``.
        self._udp_moved: set[int] = set()
        # Sockets that a table showed and whose end was not reported yet, by namespace and key, in
        # the order in which they were read first.
        self._rows: dict[int, dict[RowKey, Socket]] = {}
        self._noted: set[tuple[int, TableName]] = set()  # Tables whose sockets are in ``_rows``.
        self._reports: list[DestroyReport] = []  # Of the newest call of ``take``.
        self._listeners: dict[tuple[int | None, int | None], set[int]] = {}  # By netns and port.

    @property
    def is_waiting(self) -> bool:
        """Return whether something that was received is to be reported by a later ``take``."""
        return self._matcher.is_waiting or self._senders.is_waiting

    @property
    def matcher(self) -> EndMatcher:
        """Return the matcher of notices and events."""
        return self._matcher

    def forced(self) -> dict[int, set[Group]]:
        """Return the groups of tables, by namespace, that lost a socket or may have, since the last
        call. Those of UDP are read although ``take`` has taken in the ends: a socket that replaces
        another one changes no counter, and no event shows it."""
        groups: dict[int, set[Group]] = {netns: {UDP} for netns in self._udp_moved}
        self._udp_moved = set()
        for source in self._sources:
            for netns, protos in source.pending().items():
                groups.setdefault(netns, set()).update(GROUP_OF[proto] for proto in protos)
        return groups

    def note(self, netns: int, name: TableName, table: Table, before: Table) -> None:
        """Keep a table's sockets that a process can hold; ``before`` is the table's reading before
        this one."""
        group = GROUP_OF[name if isinstance(name, str) else name[0]]
        if isinstance(name, str):  # A text table.
            if group != TCP:
                return
            if self._connections is None or not self._connections.is_reading:
                self._noted.discard((netns, name))
                return
        elif not self._sources or group not in (TCP, UDP):
            return
        is_noted = (netns, name) in self._noted
        if is_noted and table is before:
            return
        # Rows that were read before the reports began count too.
        new = table.added if is_noted else table.rows
        self._noted.add((netns, name))
        for row in table.removed:
            self._remove_listener(row)
        self._add(self._rows.setdefault(netns, {}), new.values())

    def note_row(self, netns: int, row: Socket) -> None:
        """Keep a socket that was looked up."""
        self._add(self._rows.setdefault(netns, {}), [row])

    def listener_inodes(self, socket: Socket) -> list[int]:
        """Return the inodes of listeners that may have accepted a connection."""
        return sorted(self._listeners.get((socket.netns, socket.local_port), ()))

    def _remove_listener(self, row: Socket) -> None:
        key = (row.netns, row.local_port)
        if row.state == "LISTEN" and key in self._listeners:
            self._listeners[key].discard(row.inode)
            if not self._listeners[key]:
                del self._listeners[key]

    def _add(self, rows: dict[RowKey, Socket], new: Iterable[Socket]) -> None:
        for row in new:
            if row.state == "LISTEN":
                self._listeners.setdefault((row.netns, row.local_port), set()).add(row.inode)
            if row.inode and row.cookie:
                rows[row.cookie] = row
            elif row.inode and row.remote_port:
                rows[row.local_addr, row.local_port, row.remote_addr, row.remote_port] = row
        drop_oldest(rows, MAX_ROWS)  # An end that was not reported leaves its row behind.

    def follow(self, namespaces: Collection[int]) -> None:
        """Receive events of these namespaces from now on; forget all others."""
        self._rows = {netns: rows for netns, rows in self._rows.items() if netns in namespaces}
        self._noted = {key for key in self._noted if key[0] in namespaces}
        for source in self._sources:
            source.follow(namespaces)

    def find(self, netns: int | None, ends: Endpoints) -> tuple[int, Socket] | None:
        """Return the socket with these ends that a text table showed, with its namespace; None
        unless there is exactly one. ``netns`` is None if unknown."""
        key = row_key(ends)
        namespaces = self._rows if netns is None else [netns]
        found = [(at, row) for at in namespaces if (row := self._rows.get(at, {}).get(key))]
        return found[0] if len(found) == 1 else None

    def take(
        self,
        tables: Callable[[int, Group], Table],
        netns_inode: Callable[[int], int | None],
        netns_of: Callable[[Task], int | None],
        now: float,
    ) -> tuple[Ended, dict[int, dict[int, Socket]]]:
        """Return the sockets that ended since the last call; and those that a table showed, by
        namespace and inode, of which the caller drops the rows.

        ``tables`` returns the newest table of a namespace, of TCP, whose listeners show which side
        began a connection, or of UDP; ``netns_inode`` the inode of a namespace, ``netns_of`` the
        namespace of a process. ``now`` is in seconds of the monotonic clock.
        """
        for one in self._sources:
            moved = (netns for netns, protos in one.pending().items() if _UDP.intersection(protos))
            self._udp_moved.update(moved)
        # Notices first: an event is written before its notice.
        self._reports = [source.take() for source in self._sources]
        source = self._connections
        report = _NO_REPORT if source is None else source.take()
        notices = dict(chain.from_iterable(one.notices.items() for one in self._reports))
        ends = self._matcher.match(
            notices,
            report.finished,
            now,
            has_events=source is not None and source.is_reading,
            has_notices=bool(self._sources),
            are_late=not report.complete,
        )
        known = Surroundings(netns_of, cache(lambda netns: _ports(tables(netns, UDP_TABLE))))
        listed: dict[int, dict[int, EndedSocket]] = {}
        unlisted: list[End] = []
        for end in ends:
            netns = end.netns
            if netns is None and end.finished is not None and end.finished.task is not None:
                netns = netns_of(end.finished.task)
            found = self._pop(netns, end)
            if found is not None:
                at, row = found
                self._remove_listener(row)
                figures = None if end.notice is None else end.notice.figures
                ended = EndedSocket(row, end.finished, figures)
                self._senders.forget(NoticedEnd(ended, at, _received(end.notice)), known)
                listed.setdefault(at, {})[row.inode] = ended
            elif end.notice is not None or self._is_reportable(end.finished):
                unlisted.append(End(netns, end.notice, end.finished))
        made = self._make(unlisted, lambda netns: tables(netns, TCP), netns_inode)
        sockets = self._senders.find(made, known, now, are_late=not report.complete)
        by_inode = {inode: one for rows in listed.values() for inode, one in rows.items()}
        rows = {
            netns: {inode: one.socket for inode, one in found.items()}
            for netns, found in listed.items()
        }
        return Ended(by_inode, sockets, report.started), rows

    def _pop(self, netns: int | None, end: End) -> tuple[int, Socket] | None:
        """Remove and return the row of an ended socket, with its namespace; None if no table showed
        it."""
        cookie = end.finished.cookie if end.notice is None and end.finished else None
        cookie = end.notice.cookie if end.notice is not None else cookie
        namespaces = list(self._rows) if netns is None else [netns]
        for at in namespaces:
            row = self._rows.get(at, {}).pop(cookie, None) if cookie is not None else None
            if row is not None:
                return at, row
        if end.notice is not None or end.finished is None or not end.finished.ends.remote_port:
            return None
        found = self.find(netns, end.finished.ends)
        if found is not None:
            del self._rows[found[0]][row_key(end.finished.ends)]
        return found

    def _is_reportable(self, finished: Finished | None) -> bool:
        """Return whether to report a socket of which there was no notice, and no row.

        Where notices are received, a socket without one and without a process is the kernel's own.
        A listener's row in a text table does not show which of several sockets it is.
        """
        if finished is None:
            return False
        if finished.task is None:
            return not self._sources and finished.role is not None and finished.role != LISTENER
        return finished.role != LISTENER or bool(self._sources)

    def _make(
        self,
        ends: Sequence[End],
        tcp_table: Callable[[int], Table],
        netns_inode: Callable[[int], int | None],
    ) -> list[NoticedEnd]:
        """Return the sockets of ends that no table showed, in the same order.

        The event shows which side began the connection; a notice alone does not.
        """
        by_netns: dict[int, list[DestroyNotice]] = {}
        for netns, notice, finished in ends:
            if notice is not None and netns is not None and not _shows_role(finished):
                by_netns.setdefault(netns, []).append(notice)
        noticed: dict[int, Iterator[Socket]] = {}
        for netns, notices in by_netns.items():
            scope = Scope(netns_inode(netns), self._ephemeral)
            noticed[netns] = iter(short_lived(notices, tcp_table(netns), scope))
        inodes = {netns: None if netns is None else netns_inode(netns) for netns, *_rest in ends}
        sockets: list[NoticedEnd] = []
        for netns, notice, finished in ends:
            if notice is not None and netns is not None and not _shows_role(finished):
                socket = next(noticed[netns])
            elif finished is not None:
                source = SOURCE if notice is None else NOTICE_SOURCE
                socket = socket_of(finished, inodes[netns], source)
            else:
                continue
            figures = None if notice is None else notice.figures
            one = EndedSocket(socket, finished, figures)
            sockets.append(NoticedEnd(one, netns, _received(notice)))
        return sockets

    def missing(self, name_of: Callable[[int], str]) -> list[str]:
        """Return a sentence for each kind of event of the last poll that was not used."""
        ignored: Counter[int] = Counter()
        malformed: Counter[int] = Counter()
        for report in self._reports:
            ignored.update(report.ignored)
            malformed.update(report.malformed)
        sentences = [
            f"{count} messages of another process to the agent's netlink sockets in "
            f"{name_of(netns)} were ignored"
            for netns, count in ignored.items()
        ]
        sentences += [
            f"{count} malformed messages on ended sockets in {name_of(netns)} were skipped"
            for netns, count in malformed.items()
        ]
        if any(report.lost for report in self._reports):
            sentences.append("more sockets ended at once than the kernel's notices could report")
        return sentences


def _received(notice: DestroyNotice | None) -> int:
    return 0 if notice is None else notice.received


def _ports(udp: Table) -> frozenset[int]:
    """Return the local ports of the sockets in a table."""
    return frozenset(row.local_port for row in udp.rows.values() if row.local_port)


def _shows_role(finished: Finished | None) -> bool:
    """Return whether an event shows which side began the connection."""
    return finished is not None and finished.role is not None


def socket_of(finished: Finished, netns: int | None, source: str) -> Socket:
    """Return the socket of a trace event, as it was before its end. ``source`` is where the report
    comes from."""
    family, local, local_port, remote, remote_port = finished.ends
    has_peer = remote_port or any(remote[12:] if family == AF_INET else remote)
    # Positional: names take twice the time, which counts in a storm of connections.
    return Socket(
        0,
        "tcp",
        _FAMILIES.get(family),
        None,
        None,  # The event does not have the state before the end.
        format_address(family, local),
        local_port,
        format_address(family, remote) if has_peer else None,
        remote_port or None,
        None,
        DIRECTIONS.get(finished.role),
        None,
        None,
        None,
        netns,
        source,
        cookie=finished.cookie,
    )
