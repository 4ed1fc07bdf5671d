"""Decide which tables of which network namespaces a poll reads, and read them in threads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from ..kernel.direction import DEFAULT_EPHEMERAL_PORTS
from ..kernel.netlink.client import DUMPED_TABLES
from ..kernel.procfs import sockstat
from ..kernel.procfs.files import Progress
from ..kernel.procfs.mount import NetnsMember, ProcFS
from ..kernel.procfs.net_tables import table_of
from ..kernel.rows import EMPTY, Table
from ..kernel.trace.connections import Endpoints
from ..kernel.trace.tasks import Task
from ..model import Socket
from .blocking import NO_ANSWER, BlockingCalls, CallTimeout
from .ended import EndedSockets
from .reading import (
    GROUP_OF,
    GROUPS,
    TCP,
    UDP,
    Change,
    Ended,
    Group,
    GroupsByNamespace,
    Namespaces,
    Reading,
    groups_of,
)
from .schedule import READ_SECONDS, Schedule
from .socket_tables import SocketTables
from .table_sources import (
    ConnectionSource,
    EventSource,
    Namespace,
    TableName,
    TableReading,
    TableSource,
)

# A table that cannot be read in this many seconds hangs. A netlink dump, and the text that replaces
# it when it fails, may take as long.
TABLE_SECONDS = 10.0
# Namespaces in which a connection is looked up whose process, and so whose namespace, is not known.
MAX_LOOKUP_NAMESPACES = 16
COUNTERS = "counters"  # With the namespace, the place of its counters in ``Progress``.

TableKey = tuple[int, TableName]
_ALL_NAMES: tuple[TableName, ...] = (*GROUP_OF, *DUMPED_TABLES)


def _place_of_counters(namespace: tuple[int, object]) -> tuple[str, int]:
    return COUNTERS, namespace[0]


class TablePlan(NamedTuple):
    """The groups of tables to read, by namespace; the namespaces whose processes are gone; and
    processes that are in another namespace than expected."""

    groups: GroupsByNamespace
    vanished: frozenset[int]
    moved_pids: frozenset[int]


class TableReader:
    """The tables of all network namespaces, as they were last read."""

    def __init__(
        self,
        procfs: ProcFS,
        sources: Sequence[TableSource],
        events: Sequence[EventSource] = (),
        calls: BlockingCalls | None = None,
        connections: ConnectionSource | None = None,
    ) -> None:
        """``sources`` are tried in this order for each table."""
        self._calls = calls or BlockingCalls()
        self._procfs = procfs
        self._sources = sources
        self._tables = SocketTables[TableKey]()
        self._failed: dict[TableKey, str] = {}
        self._schedule = Schedule()
        ephemeral = procfs.ephemeral_ports() or DEFAULT_EPHEMERAL_PORTS
        self._ended = EndedSockets(events, ephemeral, connections)

    @property
    def sockets(self) -> Mapping[int, Socket]:
        """Return all sockets that the tables show, by inode."""
        return self._tables.sockets

    @property
    def rows_decoded(self) -> int:
        """Return the number of rows that were decoded since the start."""
        return self._tables.decoded

    def unowned(self) -> list[Socket]:
        """Return the rows that no process can hold: TIME_WAIT, orphans, sockets of the kernel."""
        return [row for _key, table in self._tables.items() for row in table.unowned()]

    def udp_inodes(self) -> list[int]:
        """Return the inodes of all UDP sockets that a process can hold."""
        return [
            socket.inode
            for (_netns, name), table in self._tables.items()
            if GROUP_OF[name if isinstance(name, str) else name[0]] == UDP
            for socket in table.rows.values()
            if socket.inode
        ]

    # What to read.

    async def plan(
        self,
        namespaces: Namespaces,
        *,
        ran: Collection[int] | None = None,
        doubted: Iterable[Socket] = (),
        udp_users: Collection[int] = (),
        read_seconds: float = READ_SECONDS,
    ) -> TablePlan:
        """Return what to read: groups of tables whose counters changed, that lost a socket, or that
        should list a ``doubted`` socket.

        ``ran`` are the namespaces in which a process has run since the last call, None if unknown.
        ``udp_users`` are those in which a holder of a UDP socket has run: it may have connected the
        socket, which changes no counter. All tables are read at least every ``read_seconds``.
        """
        forced = self._forced(namespaces, doubted)
        for netns in udp_users:
            forced.setdefault(netns, set()).add(UDP)
        active = namespaces.keys() if ran is None else ran
        chosen = self._schedule.to_count(namespaces, active, forced, time.monotonic())
        asked = [(netns, namespaces[netns]) for netns in chosen]
        counted, moved = await self._calls.batch(self._count, asked, _place_of_counters)
        for netns in chosen:
            if self._calls.hangs((COUNTERS, netns)):
                counted[netns] = sockstat.UNREADABLE
        groups = self._schedule.due(counted, forced, time.monotonic(), read_seconds)
        return TablePlan(groups, frozenset(set(chosen) - counted.keys()), frozenset(moved))

    def _forced(self, namespaces: Namespaces, doubted: Iterable[Socket]) -> dict[int, set[Group]]:
        """Return the groups to read whatever their counters show, by namespace."""
        forced = self._ended.forced()
        names = self._names(namespaces)
        for socket in doubted:
            name = None if socket.netns is None else names.get(socket.netns)
            if name is not None:
                forced.setdefault(name, set()).update(groups_of(socket))
        return forced

    def _names(self, namespaces: Iterable[int]) -> dict[int, int]:
        """Return the names of namespaces by name and by inode: sockets have only the inode."""
        names = {netns: netns for netns in namespaces}
        for netns in namespaces:
            if netns < 0 and (inode := self._procfs.netns_id(netns)) is not None:
                names[inode] = netns
        return names

    def _count(
        self, namespaces: Iterable[tuple[int, Sequence[NetnsMember]]], progress: Progress
    ) -> tuple[dict[int, sockstat.SocketCounters], set[int]]:
        """Read the counters of namespaces; those without a process are left out. Blocking. Return
        the counters and the processes that are in another namespace."""
        counted: dict[int, sockstat.SocketCounters] = {}
        moved: set[int] = set()
        for netns, ways in progress.each(namespaces, _place_of_counters):
            read, moved_pids = self._procfs.read_tables(netns, ways, sockstat.FILES)
            moved |= moved_pids
            if read is None:
                continue
            contents = [read.get(name, b"") for name in sockstat.FILES]
            if isinstance(read.get("sockstat"), bytes):
                counted[netns] = sockstat.parse(
                    tuple(data if isinstance(data, bytes) else b"" for data in contents)
                )
            else:
                counted[netns] = sockstat.UNREADABLE
        return counted, moved

    # Reading.

    async def read(self, namespaces: Namespaces, groups: GroupsByNamespace) -> Reading:
        """Read groups of tables. The tables of all namespaces not in ``namespaces`` are dropped."""
        tables: dict[TableKey, Table] = {
            key: EMPTY for key, _table in self._tables.items() if key[0] not in namespaces
        }
        self._failed = {at: why for at, why in self._failed.items() if at[0] in namespaces}
        jobs = [(netns, group) for netns, due in groups.items() for group in GROUPS if group in due]
        read: dict[int, set[Group]] = {netns: set() for netns in groups}
        results = await asyncio.gather(
            *(self._read_in_thread(netns, namespaces[netns], group) for netns, group in jobs)
        )
        for (netns, group), result in zip(jobs, results, strict=True):
            self._failed.pop((netns, group), None)
            for name in result.tables:
                for one in (name, *_files(name)):
                    self._failed.pop((netns, one), None)
                self._ended.note(netns, name, result.tables[name], self._tables.get((netns, name)))
            tables.update(((netns, name), table) for name, table in result.tables.items())
            self._failed.update(((netns, name), why) for name, why in result.failed.items())
            if not result.vanished and not result.failed:
                read[netns].add(group)
        for netns, due in groups.items():
            if len(read[netns]) < len(set(due)):
                self._schedule.note_failed(netns)
        change = self._tables.update(tables)
        names = {inode: read[netns] for inode, netns in self._names(read).items()}
        moved = frozenset(pid for result in results for pid in result.moved_pids)
        return Reading(self._tables.sockets, change, names, moved)

    async def _read_in_thread(
        self, netns: int, ways: Sequence[NetnsMember], group: Group
    ) -> TableReading:
        """Read a group of tables of one namespace. Tables that hang stay as they are."""
        place = (netns, *group)
        try:
            return await self._calls.call(
                place, self._read, netns, ways, group, seconds=TABLE_SECONDS
            )
        except CallTimeout:
            return TableReading({}, {group: NO_ANSWER})

    def _read(self, netns: int, ways: Sequence[NetnsMember], group: Group) -> TableReading:
        """Read a group of tables of one namespace from the first source that has them. Blocking."""
        namespace = Namespace(netns, self._procfs.netns_id(netns), ways)
        tables: dict[TableName, Table] = {}
        failed: dict[TableName, str] = {}
        remaining = list(group)
        vanished = False
        moved: frozenset[int] = frozenset()

        def before(name: TableName) -> Table:
            return self._tables.get((netns, name))

        for source in self._sources:
            if not remaining:
                break
            reading = source.read(namespace, remaining, before)
            tables.update(reading.tables)
            failed.update(reading.failed)
            vanished = vanished or reading.vanished
            moved |= reading.moved_pids
            files = {file for name in reading.tables for file in _files(name)}
            remaining = [name for name in remaining if name not in files]
        if not vanished:
            tables.update(self._replaced(tables, before))
        return TableReading(tables, failed, vanished, moved)

    def _replaced(
        self, read: Mapping[TableName, Table], before: Callable[[TableName], Table]
    ) -> dict[TableName, Table]:
        """Return the tables that another source read before, without the rows of ``read`` tables. A
        dump stands for two text tables: if one of these is read as text, the rows of the other one
        stay."""
        files = {file for name in read for file in _files(name)}
        replaced: dict[TableName, Table] = {}
        for name in _ALL_NAMES:
            table = EMPTY if name in read or files.isdisjoint(_files(name)) else before(name)
            if table is not EMPTY:
                kept = {row: one for row, one in table.rows.items() if table_of(one) not in files}
                removed = tuple(one for row, one in table.rows.items() if row not in kept)
                replaced[name] = Table(kept, removed=removed) if kept else EMPTY
        return replaced

    # What ended, and what is missing.

    def take_ended(
        self, namespaces: Namespaces, netns_of: Callable[[Task], int | None] = lambda _task: None
    ) -> Ended:
        """Return the sockets that ended since the last call, and drop their rows. Namespaces that
        are not among ``namespaces`` are left: an open netlink socket would keep them alive.
        ``netns_of`` returns the namespace of a process."""
        ended, listed = self._ended.take(
            lambda netns, group: self._tables.get((netns, group)),
            self._procfs.netns_id,
            netns_of,
            time.monotonic(),
        )
        for netns, rows in listed.items():
            self._tables.discard([(netns, name) for name in _ALL_NAMES], rows)
        self._ended.follow(namespaces.keys())
        return ended

    @property
    def ends(self) -> EndedSockets:
        """Return what matches reports of ended sockets with rows."""
        return self._ended

    def read_all_again(self) -> None:
        """Read all tables in the next poll: events that show changes were lost."""
        self._schedule.forget_readings()

    # Sockets that events show between two readings.

    async def look_up(
        self, wanted: Sequence[tuple[Endpoints, int | None]]
    ) -> list[tuple[int, Socket] | None]:
        """Return the TCP sockets with these ends, each with its namespace; None for those that do
        not exist or cannot be looked up. A namespace is None if it is not known."""
        try:
            return await self._calls.call("lookup", self._look_up, wanted)
        except CallTimeout:
            return [None] * len(wanted)

    def _look_up(
        self, wanted: Sequence[tuple[Endpoints, int | None]]
    ) -> list[tuple[int, Socket] | None]:
        """Look up sockets. Blocking."""
        found: list[tuple[int, Socket] | None] = []
        tables = {netns for (netns, name), _table in self._tables.items() if name == TCP}
        own = None if self._procfs.own is None else self._procfs.own.netns
        for ends, netns in wanted:
            namespaces = sorted(tables, key=lambda one: one != own)[:MAX_LOOKUP_NAMESPACES]
            found.append(
                next(
                    (
                        (one, socket)
                        for one in (namespaces if netns is None else [netns])
                        if (socket := self._look_up_in(one, ends)) is not None
                    ),
                    None,
                )
            )
        return found

    def _look_up_in(self, netns: int, ends: Endpoints) -> Socket | None:
        inode = self._procfs.netns_id(netns)
        if inode is None:
            return None
        return next(
            (
                socket
                for source in self._sources
                if (socket := source.look_up(netns, inode, ends)) is not None
            ),
            None,
        )

    def put(self, netns: int, socket: Socket) -> None:
        """Put a TCP socket into the tables of a namespace until they are read again."""
        name = table_of(socket) if socket.cookie is None else TCP  # Only dumps show cookies.
        self._tables.put((netns, name), socket)
        self._ended.note_row(netns, socket)

    def partial_reading(self, inodes: Iterable[int]) -> Reading:
        """Return a reading in which sockets that were put have been added or changed, and no table
        was read."""
        return Reading(self._tables.sockets, Change(set(inodes), set()), {})

    def missing(self) -> list[str]:
        """Return a sentence for each thing that could not be read when it was last tried."""
        sentences = [
            f"{'/'.join(_files(name))} of {self._name(netns)} could not be read ({why})"
            for (netns, name), why in self._failed.items()
        ]
        sentences += [
            f"{len(table.malformed)} malformed rows of {'/'.join(_files(name))} of "
            f"{self._name(netns)} skipped"
            for (netns, name), table in self._tables.items()
            if table.malformed
        ]
        sentences += [
            f"{self._name(netns)} {what}"
            for source in self._sources
            for netns, what in source.missing().items()
        ]
        sentences += self._ended.missing(self._name)
        if self._tables.clashes:
            sentences.append(
                f"{len(self._tables.clashes)} rows of unix claim sockets of other tables: "
                "a path that contains a newline imitates a row"
            )
        if self._tables.disputed:
            sentences.append(
                f"{len(self._tables.disputed)} sockets are claimed by more than one network "
                "namespace: the first claim counts"
            )
        return sorted(sentences)

    def _name(self, netns: int) -> str:
        inode = self._procfs.netns_id(netns)
        return "a network namespace" if inode is None else f"network namespace {inode}"


def _files(name: TableName) -> tuple[str, ...]:
    """Return the files in /proc/net that a table stands for."""
    return (name,) if isinstance(name, str) else name
