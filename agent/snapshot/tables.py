"""The tables of every network namespace, over netlink where it works and as procfs text elsewhere.

It knows the readers and the tables, and nothing of processes' descriptors and of output.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from ..bounded import drop_oldest
from ..kernel.direction import EPHEMERAL
from ..kernel.netlink.client import DUMPED, NetlinkClient
from ..kernel.netlink.destroy import short_lived
from ..kernel.netlink.monitor import DestroyMonitor
from ..kernel.procfs import net_tables, sockstat
from ..kernel.procfs.files import Vanished
from ..kernel.procfs.mount import ProcFS, Way
from ..kernel.procfs.progress import Progress
from ..kernel.rows import EMPTY, Scope, Table
from ..model import Socket
from .blocking import NO_ANSWER, BlockingCalls, CallTimeout
from .schedule import (
    ALL_GROUPS,
    GROUP_OF,
    GROUPS,
    TCP,
    UDP,
    Group,
    Schedule,
)
from .socket_tables import Change, SocketTables

# A table that cannot be read in so many seconds hangs. Longer than a dump over netlink may take,
# behind which the table is read as text.
TABLE_SECONDS = 10.0
COUNTERS = "counters"  # With the namespace, the place of its counters in ``Progress``.

# Cookies kept of a namespace: more than the sockets of a large machine; 100 bytes each.
MAX_COOKIES = 250_000

# A table of one namespace: (namespace, name), or the names that a netlink dump stands for.
TableKey = tuple[int, str | Group]
# All of one namespace, without that.
_NAMES: tuple[str | Group, ...] = (*GROUP_OF, *DUMPED)
Namespaces = Mapping[int, Sequence[Way]]
# The groups that are to be read, or were read, by namespace.
Due = Mapping[int, Collection[Group]]


class Parsed(NamedTuple):
    """Tables that were read, by key; ``failed`` says why others could not be."""

    tables: dict[TableKey, Table]
    failed: dict[TableKey, str]
    vanished: bool = False  # Whether the last process of the namespace is gone.


class Reading(NamedTuple):
    """What a reading changed, and the groups that were read whole, by namespace."""

    change: Change
    groups: Mapping[int, Collection[Group]]

    def joined(self, other: Reading) -> Reading:
        """Return the two as one."""
        groups = {netns: set(read) for netns, read in self.groups.items()}
        for netns, read in other.groups.items():
            groups.setdefault(netns, set()).update(read)
        gone = (self.change.gone | other.change.gone) - other.change.fresh
        return Reading(Change(self.change.fresh | other.change.fresh, gone), groups)


class Ended(NamedTuple):
    """Sockets that ended, as the kernel reported: ``known``, by inode, as a table showed them last;
    and those that no table showed, in the order in which they ended."""

    known: Mapping[int, Socket]
    unknown: Sequence[Socket]


def groups_of(socket: Socket) -> frozenset[Group]:
    """Return the groups of tables that may list such a socket: all of them where its protocol is
    not known, none where no table lists it."""
    if socket.proto is None:
        return ALL_GROUPS
    group = GROUP_OF.get(net_tables.table_of(socket))
    return frozenset() if group is None else frozenset((group,))


class TableReader:
    """All tables as they were last read.

    ``Namespaces`` map the network namespaces, as looks name them, to ways that lead to them.
    """

    def __init__(
        self, procfs: ProcFS, netlink: NetlinkClient | None, hops: BlockingCalls | None = None
    ) -> None:
        self._hops = hops or BlockingCalls()
        self._procfs = procfs
        self._netlink = netlink
        self._tables = SocketTables[TableKey]()
        self._failed: dict[TableKey, str] = {}
        self._schedule = Schedule()
        self._ears = DestroyMonitor()
        # Sockets that a reading showed and whose end was not reported yet, by namespace and cookie,
        # in the order in which they were read first.
        self._cookies: dict[int, dict[int, Socket]] = {}
        self._noted: set[TableKey] = set()  # The tables whose cookies these have.
        self._overrun = False
        self.vanished: set[int] = set()  # Namespaces to which none of their ways led any more.
        # Netlink messages by namespace, of the last poll.
        self._ignored: Counter[int] = Counter()
        self._malformed: Counter[int] = Counter()
        self._ephemeral = procfs.ephemeral_ports() or EPHEMERAL

    @property
    def sockets(self) -> dict[int, Socket]:
        """All sockets that the tables show, by inode."""
        return self._tables.sockets

    @property
    def decoded(self) -> int:
        """How many rows were decoded since the start."""
        return self._tables.decoded

    def unowned(self) -> list[Socket]:
        """The rows that no process can hold."""
        return [row for _key, table in self._tables.items() for row in table.unowned()]

    def datagrams(self) -> list[int]:
        """Return the inodes of all UDP sockets that a process can hold."""
        return [
            socket.inode
            for (_netns, names), table in self._tables.items()
            if GROUP_OF[names if isinstance(names, str) else names[0]] == UDP
            for socket in table.rows.values()
            if socket.inode
        ]

    async def due(
        self,
        namespaces: Namespaces,
        *,
        ran: Collection[int] | None = None,
        doubted: Iterable[Socket] = (),
        datagrams: Collection[int] = (),
    ) -> dict[int, set[Group]]:
        """Return what is to be read, by namespace: groups of tables whose counters moved, in which
        a socket ended, or which should list a ``doubted`` socket.

        ``ran`` are the namespaces in which a process has run since the last call; None where that
        is not known. ``datagrams`` are those in which a holder of a UDP socket ran: it may have
        been connected, which no counter shows.
        """
        forced = self._forced(namespaces, doubted)
        for netns in datagrams:
            forced.setdefault(netns, set()).add(UDP)
        active = namespaces.keys() if ran is None else ran
        chosen = self._schedule.to_count(namespaces, active, forced, time.monotonic())
        asked = [(netns, namespaces[netns]) for netns in chosen]
        counted = await self._hops.batch(self._count, asked, lambda one: (COUNTERS, one[0]))
        for netns in chosen:
            if self._hops.hangs((COUNTERS, netns)):
                counted[netns] = sockstat.UNREADABLE
        self.vanished = set(chosen) - counted.keys()
        return self._schedule.due(counted, forced, time.monotonic())

    def _forced(self, namespaces: Namespaces, doubted: Iterable[Socket]) -> dict[int, set[Group]]:
        """Return the groups that are read whatever their counters show, by namespace."""
        forced: dict[int, set[Group]] = {}
        for netns, protos in self._ears.doubted().items():
            for proto in protos:
                forced.setdefault(netns, set()).add(GROUP_OF[proto])
        keys = self._keys(namespaces)
        for socket in doubted:
            key = keys.get(socket.netns)
            if key is not None:
                forced.setdefault(key, set()).update(groups_of(socket))
        return forced

    def _keys(self, namespaces: Iterable[int]) -> dict[int | None, int]:
        """Return the namespaces by what sockets name them: their inodes, where these are known."""
        keys: dict[int | None, int] = {netns: netns for netns in namespaces}
        for netns in namespaces:
            if netns < 0 and (netns_id := self._procfs.netns_id(netns)) is not None:
                keys[netns_id] = netns
        return keys

    def covers(self, reading: Reading, socket: Socket) -> bool | None:
        """Return whether a reading was of the tables that should list such a socket; None when no
        table lists it."""
        groups = groups_of(socket)
        if not groups:
            return None
        read = None if socket.netns is None else reading.groups.get(socket.netns)
        if read is None:
            key = self._keys([at for at in reading.groups if at < 0]).get(socket.netns, 0)
            read = reading.groups.get(key, ())
        return groups.issubset(read)

    def _count(
        self, namespaces: Iterable[tuple[int, Sequence[Way]]], progress: Progress
    ) -> dict[int, sockstat.Counted]:
        counted: dict[int, sockstat.Counted] = {}
        for netns, ways in namespaces:
            if progress.stopped:
                break
            progress.at = (COUNTERS, netns)
            try:
                read = self._procfs.tables(netns, ways, sockstat.FILES)
            except Vanished:
                continue
            contents = tuple(read.get(name, b"") for name in sockstat.FILES)
            # Counters that cannot be read are no evidence.
            if isinstance(read.get("sockstat"), bytes):
                counted[netns] = sockstat.parse(
                    tuple(data if isinstance(data, bytes) else b"" for data in contents)
                )
            else:
                counted[netns] = sockstat.UNREADABLE
        return counted

    async def read(self, namespaces: Namespaces, due: Due) -> Reading:
        """Read the groups that are ``due``.

        Namespaces that are not among ``namespaces`` are gone, and their tables with them.
        """
        gone = [key for key, _ in self._tables.items() if key[0] not in namespaces]
        self._failed = {at: why for at, why in self._failed.items() if at[0] in namespaces}
        self._noted = {key for key in self._noted if key[0] in namespaces}
        jobs = [
            (netns, namespaces[netns], names)
            for netns, groups in due.items()
            for names in GROUPS
            if names in groups
        ]
        reading = await self._run(jobs, gone)
        for netns, groups in due.items():
            if len(reading.groups.get(netns, ())) < len(set(groups)):
                self._schedule.note_failed(netns)
        if self._netlink is not None:
            for netns in {*due, *self._ears.namespaces}:
                hearing = self._netlink.hearing(netns)
                if hearing is not None:
                    self._ears.listen(netns, hearing)
        return reading

    def take_ended(self, namespaces: Namespaces) -> Ended:
        """Return the sockets that ended since this was called last, and drop their rows.

        Namespaces that are not among ``namespaces`` are left: an open socket keeps them alive.
        """
        heard, overrun = self._ears.take()
        self._overrun = bool(overrun)
        self._ignored, self._malformed = self._ears.take_rejected()
        if self._netlink is not None:
            self._ignored += self._netlink.take_ignored()
        known: dict[int, Socket] = {}
        unknown: list[Socket] = []
        for netns, notices in heard.items():
            seen = self._cookies.get(netns, {})
            unseen = []
            ended: dict[int, Socket] = {}
            for notice in notices:
                socket = seen.pop(notice.cookie, None)
                if socket is None:
                    unseen.append(notice)
                else:
                    ended[socket.inode] = socket
            known |= ended
            if ended:
                self._tables.discard([(netns, name) for name in _NAMES], ended)
            if unseen:
                scope = Scope(self._procfs.netns_id(netns), self._ephemeral)
                unknown += short_lived(unseen, self._tables.get((netns, TCP)), scope)
        self._leave(namespaces)
        return Ended(known, unknown)

    def _leave(self, namespaces: Namespaces) -> None:
        """Close the netlink sockets in namespaces that are gone."""
        if self._netlink is None:
            return
        for netns in list(self._ears.namespaces):
            if netns not in namespaces or self._netlink.hearing(netns) is None:
                self._ears.leave([netns])
        self._netlink.keep(namespaces)
        self._cookies = {at: seen for at, seen in self._cookies.items() if at in namespaces}

    async def _run(
        self, jobs: Sequence[tuple[int, Sequence[Way], Group]], gone: Iterable[TableKey]
    ) -> Reading:
        tables: dict[TableKey, Table] = dict.fromkeys(gone, EMPTY)
        groups: dict[int, set[Group]] = {}
        parsed = await asyncio.gather(*(self._read_soon(*job) for job in jobs))
        for (netns, _ways, group), one in zip(jobs, parsed, strict=True):
            self._failed.pop((netns, group), None)
            for _netns, names in one.tables:
                for name in (names, *(names if isinstance(names, tuple) else ())):
                    self._failed.pop((netns, name), None)
            tables.update(one.tables)
            self._failed.update(one.failed)
            if not one.vanished and not one.failed:
                groups.setdefault(netns, set()).add(group)
        if self._netlink is not None and self._netlink.hears:
            self._note_cookies(tables)
        return Reading(self._tables.update(tables), groups)

    def _note_cookies(self, tables: Mapping[TableKey, Table]) -> None:
        """Note the cookies of held sockets: those that nobody holds are not published."""
        for key, table in tables.items():
            netns, names = key
            if not isinstance(names, tuple) or GROUP_OF[names[0]] not in (TCP, UDP):
                continue
            noted = key in self._noted
            if noted and table is self._tables.get(key):
                continue  # It reads as before.
            # What was read before anything was heard counts too.
            new = table.fresh if noted else table.rows
            self._noted.add(key)
            seen = self._cookies.setdefault(netns, {})
            seen.update((row.cookie, row) for row in new.values() if row.inode and row.cookie)
            drop_oldest(seen, MAX_COOKIES)  # Ends that were not reported leave theirs behind.

    async def _read_soon(self, netns: int, ways: Sequence[Way], group: Group) -> Parsed:
        """Read tables of one namespace in a thread. Tables that hang stay as they are."""
        place = (netns, *group)
        try:
            return await self._hops.call(
                place, self._read, netns, ways, group, seconds=TABLE_SECONDS
            )
        except CallTimeout:
            return Parsed({}, {(netns, group): NO_ANSWER})

    def _read(self, netns: int, ways: Sequence[Way], names: Sequence[str]) -> Parsed:
        """Read and parse tables of one namespace, over netlink those it has; blocking."""
        reading = Parsed({}, {})
        netns_id = self._procfs.netns_id(netns)
        left = list(names)
        if self._netlink is not None and netns_id is not None:
            path = f"{self._procfs.root}/{ways[0]}/ns/net"
            scope = Scope(netns_id, self._ephemeral, partial(self._interface, netns, ways))
            for dump, rows in self._netlink.dumps(netns_id, path, names):
                place: TableKey = (netns, dump.tables)
                before = self._tables.get(place)
                reading.tables[place] = dump.read(rows, scope, before)
                left = [name for name in left if name not in dump.tables]
                # What was read as text before is in here now.
                reading.tables.update(self._replaced((netns, name) for name in dump.tables))
        try:
            texts = self._procfs.tables(netns, ways, left) if left else {}
        except Vanished:
            # With its last process a namespace's sockets are gone.
            return reading._replace(vanished=True)
        for name, data in texts.items():
            place = (netns, name)
            if not isinstance(data, bytes):
                reading.failed[place] = os.strerror(data.errno or 0)
                continue
            if not data:  # Without its heading it is no table, and no proof that nothing is there.
                reading.failed[place] = "it is empty"
                continue
            before = self._tables.get(place)
            reading.tables[place] = net_tables.parse(name, data, netns_id, self._ephemeral, before)
        for dumped in DUMPED:
            place = (netns, dumped)
            table = self._tables.get(place)
            if table is not EMPTY and place not in reading.tables:
                reading.tables.update(self._without(place, table, texts))
        return reading

    def _interface(self, netns: int, ways: Sequence[Way], index: int) -> str:
        """The name of an interface of a namespace, or its index in digits."""
        try:
            texts = self._procfs.tables(netns, ways, net_tables.INTERFACES)
        except Vanished:
            return str(index)
        readable = [data for data in texts.values() if isinstance(data, bytes)]
        return net_tables.interfaces(readable).get(index, str(index))

    def _without(
        self, place: TableKey, table: Table, texts: Mapping[str, object]
    ) -> dict[TableKey, Table]:
        """What netlink showed, without what was read as text now; nothing if that was nothing."""
        read = {name for name, data in texts.items() if isinstance(data, bytes)}
        if read.isdisjoint(place[1]):
            return {}
        kept = {row: one for row, one in table.rows.items() if net_tables.table_of(one) not in read}
        left = tuple(one for row, one in table.rows.items() if row not in kept)
        return {place: Table(kept, left=left) if kept else EMPTY}

    def _replaced(self, places: Iterable[TableKey]) -> dict[TableKey, Table]:
        return {place: EMPTY for place in places if self._tables.get(place) is not EMPTY}

    def missing(self) -> list[str]:
        """One sentence for each thing that could not be read when it was last tried."""
        sentences = [
            f"{_table_name(name)} of {self._name(netns)} could not be read ({why})"
            for (netns, name), why in self._failed.items()
        ]
        sentences += [
            f"{len(table.malformed)} malformed rows of {_table_name(names)} of "
            f"{self._name(netns)} skipped"
            for (netns, names), table in self._tables.items()
            if table.malformed
        ]
        if self._netlink is not None:
            sentences += [
                f"{self._name(netns)} may not be entered, which takes CAP_SYS_ADMIN: "
                "its tables are read as text"
                for netns in self._netlink.refused()
            ]
        sentences += [
            f"{count} messages of another process to the agent's netlink sockets in "
            f"{self._name(netns)} were ignored"
            for netns, count in self._ignored.items()
        ]
        sentences += [
            f"{count} malformed messages on ended sockets in {self._name(netns)} were skipped"
            for netns, count in self._malformed.items()
        ]
        if self._overrun:
            sentences.append("more sockets ended at once than could be heard of")
        if self._tables.clashes:
            sentences.append(
                f"{len(self._tables.clashes)} rows of unix claim sockets of other tables: "
                "a path with a newline in it imitates a row"
            )
        if self._tables.disputed:
            sentences.append(
                f"{len(self._tables.disputed)} sockets are claimed by more than one network "
                "namespace: the first claim counts"
            )
        return sorted(sentences)

    def _name(self, netns: int) -> str:
        netns_id = self._procfs.netns_id(netns)
        return "a network namespace" if netns_id is None else f"network namespace {netns_id}"


def _table_name(names: str | tuple[str, ...]) -> str:
    return names if isinstance(names, str) else "/".join(names)
