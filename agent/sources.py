"""The tables of every network namespace, over netlink where it works and as procfs text elsewhere;
and when they need not be read.

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

from aiofiles.base import wrap

from .directions import EPHEMERAL
from .model import Socket
from .netlink.destroyed import brief, cookie
from .netlink.ears import Ears
from .netlink.reader import NetlinkReader
from .procfs import counters, net
from .procfs.files import Vanished
from .procfs.reader import ProcFS
from .tables import EMPTY, Change, Scope, Table, Tables

TCP = ("tcp", "tcp6")
# Every table of /proc/net that lists sockets, by executor hop: those that grow large alone. In the
# order of the counters that tell of them.
TABLES = (
    TCP,
    ("unix",),
    ("udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "netlink", "packet"),
)
_NAMES = frozenset(name for names in TABLES for name in names)
# The tables are read at least so often, whatever the evidence says: a connection that its peer
# shut down moves no counter.
READ_SECONDS = 5.0

# The protocols whose sockets are told of when they end.
_WITH_COOKIES = ("tcp", "udp", "udplite")

# Cookies kept of a namespace: more than the sockets of a large machine; 60 bytes each.
MOST_COOKIES = 250_000

# A table of one namespace: (namespace, name), or the names that a netlink dump stands for.
Place = tuple[int, str | tuple[str, ...]]
Namespaces = Mapping[int, Sequence[int]]


class Reading(NamedTuple):
    """Tables that were read, by place; ``failed`` says why others could not be."""

    tables: dict[Place, Table]
    failed: dict[Place, str]


class Sources:
    """All tables as they were last read.

    ``Namespaces`` map the network namespaces, as looks name them, to pids in them.
    """

    def __init__(self, procfs: ProcFS, netlink: NetlinkReader | None) -> None:
        self._procfs = procfs
        self._netlink = netlink
        self._tables = Tables[Place]()
        self._failed: dict[Place, str] = {}
        self._counters: dict[int, counters.Counted] = {}
        self.read_all = False  # Whether the last reading was of every table there is.
        # The tables that need not be read this time, by namespace.
        self._spared: dict[int, set[tuple[str, ...]]] = {}
        self._read_at: dict[int, float] = {}
        self._ears = Ears()
        # Cookies of the sockets that a reading showed and whose end was not heard of, in the order
        # in which they were seen first, by namespace.
        self._cookies: dict[int, dict[bytes, None]] = {}
        self._noted: set[Place] = set()  # The tables whose cookies these have.
        self._unheard = False
        # Netlink messages by namespace, of the last poll.
        self._ignored: Counter[int] = Counter()
        self._malformed: Counter[int] = Counter()
        self._ephemeral = procfs.ephemeral_ports() or EPHEMERAL
        self._read_soon = wrap(self._read)
        self._count_soon = wrap(self._count)

    @property
    def sockets(self) -> dict[int, Socket]:
        """All sockets that the tables show, by inode."""
        return self._tables.sockets

    @property
    def decoded(self) -> int:
        """How many rows were decoded since the start."""
        return self._tables.decoded

    def unheld(self) -> list[Socket]:
        """The rows that no process can hold."""
        return [row for _place, table in self._tables.items() for row in table.unheld()]

    async def due(
        self,
        namespaces: Namespaces,
        doubted: Collection[int],
        touched: Collection[int] = (),
    ) -> list[int]:
        """The namespaces whose tables have to be read: those ``doubted``, those in which a process
        was ``touched``, whose counters moved or in which a socket ended, and those not read for
        READ_SECONDS."""
        ended = self._ears.doubted()
        counted = await self._count_soon(namespaces)
        now = time.monotonic()
        due = []
        self._spared = {}
        for netns in namespaces:
            new, old = counted.get(netns), self._counters.get(netns)
            if (
                new is None
                or old is None
                or netns in doubted
                or now - self._read_at.get(netns, 0.0) >= READ_SECONDS
            ):
                due.append(netns)
                continue
            moved = {
                names
                for names, before, now_ in zip(TABLES, old, new, strict=False)
                if before != now_ or (netns in ended and names is TCP)
            }
            if moved:  # What was touched was of these: of the others as many are left.
                self._spared[netns] = set(TABLES) - moved
            if moved or new != old or netns in touched:
                due.append(netns)
        self._counters = counted
        return due

    def _count(self, namespaces: Namespaces) -> dict[int, counters.Counted]:
        counted: dict[int, counters.Counted] = {}
        for netns, pids in namespaces.items():
            try:
                read = self._procfs.tables(netns, pids, counters.FILES)
            except Vanished:
                continue
            contents = tuple(read.get(name, b"") for name in counters.FILES)
            # Counters that cannot be read are no evidence.
            if isinstance(read.get("sockstat"), bytes):
                counted[netns] = counters.parse(
                    tuple(data if isinstance(data, bytes) else b"" for data in contents)
                )
        return counted

    async def read(self, namespaces: Namespaces, due: Iterable[int]) -> Change:
        """Read all tables of the namespaces that are ``due``.

        Those that are not among ``namespaces`` are gone, and their tables with them.
        """
        due = list(due)
        self.read_all = not self._spared and len(due) == len(namespaces)
        gone = [place for place, _ in self._tables.items() if place[0] not in namespaces]
        self._failed = {at: why for at, why in self._failed.items() if at[0] in namespaces}
        self._read_at = {at: when for at, when in self._read_at.items() if at in namespaces}
        whole = [netns for netns in due if netns not in self._spared]
        self._read_at.update(dict.fromkeys(whole, time.monotonic()))
        self._noted = {place for place in self._noted if place[0] in namespaces}
        self._cookies = {at: seen for at, seen in self._cookies.items() if at in namespaces}
        jobs = [
            (netns, namespaces[netns], names)
            for netns in due
            for names in TABLES
            if names not in self._spared.get(netns, ())
        ]
        self._spared = {}
        change = await self._run(jobs, gone)
        if self._netlink is not None:
            self._ears.leave([netns for netns in self._ears.namespaces if netns not in namespaces])
            for netns in {*due, *self._ears.namespaces}:
                hearing = self._netlink.hearing(netns)
                if hearing is not None:
                    self._ears.listen(netns, hearing)
                else:  # It was dropped, and is closed next.
                    self._ears.leave([netns])
            self._netlink.keep(namespaces)
        return change

    def brief(self) -> list[Socket]:
        """The sockets that came and went unseen since this was called last."""
        heard, overrun = self._ears.take()
        self._unheard = bool(overrun)
        self._ignored, self._malformed = self._ears.take_rejected()
        if self._netlink is not None:
            self._ignored += self._netlink.take_ignored()
        sockets: list[Socket] = []
        for netns, ended in heard.items():
            if not ended:
                continue
            seen = self._cookies.get(netns, {})
            scope = Scope(self._procfs.netns_id(netns), self._ephemeral)
            tcp = self._tables.get((netns, ("tcp", "tcp6")))
            sockets += brief(ended, seen, tcp, scope)
            for one in ended:
                seen.pop(one.cookie, None)
        return sockets

    async def reread(self, namespaces: Namespaces, wanted: Mapping[int, Iterable[str]]) -> Change:
        """Read some tables once more: the names by namespace."""
        jobs = [(netns, namespaces[netns], list(names)) for netns, names in wanted.items()]
        return await self._run(jobs, ())

    async def _run(
        self, jobs: Iterable[tuple[int, Sequence[int], Sequence[str]]], gone: Iterable[Place]
    ) -> Change:
        tables: dict[Place, Table] = dict.fromkeys(gone, EMPTY)
        for reading in await asyncio.gather(*(self._read_soon(*job) for job in jobs)):
            for netns, names in reading.tables:
                for name in (names, *(names if isinstance(names, tuple) else ())):
                    self._failed.pop((netns, name), None)
            tables.update(reading.tables)
            self._failed.update(reading.failed)
        if self._netlink is not None and self._netlink.hears:
            self._note_cookies(tables)
        return self._tables.update(tables)

    def _note_cookies(self, tables: Mapping[Place, Table]) -> None:
        for (netns, names), table in tables.items():
            if isinstance(names, tuple) and names[0] in _WITH_COOKIES:
                noted = (netns, names) in self._noted
                if noted and table is self._tables.get((netns, names)):
                    continue  # It reads as before.
                # What was read before anything was heard counts too.
                new = table.fresh if noted else table.rows
                self._noted.add((netns, names))
                seen = self._cookies.setdefault(netns, {})
                seen.update(dict.fromkeys(map(cookie, new)))
                while len(seen) > MOST_COOKIES:  # Ends that were not heard of leave theirs behind.
                    del seen[next(iter(seen))]

    def _read(self, netns: int, pids: Sequence[int], names: Sequence[str]) -> Reading:
        """Read and parse tables of one namespace, over netlink those it has; blocking."""
        reading = Reading({}, {})
        netns_id = self._procfs.netns_id(netns)
        left = list(names)
        if self._netlink is not None and netns_id is not None:
            path = f"{self._procfs.root}/{pids[0]}/ns/net"
            scope = Scope(netns_id, self._ephemeral, partial(self._interface, netns, pids))
            for dump, rows in self._netlink.dumps(netns_id, path, names):
                place: Place = (netns, dump.tables)
                before = self._tables.get(place)
                reading.tables[place] = dump.read(rows, scope, before)
                left = [name for name in left if name not in dump.tables]
                # What was read as text before is in here now.
                reading.tables.update(self._replaced((netns, name) for name in dump.tables))
        try:
            texts = self._procfs.tables(netns, pids, left) if left else {}
        except Vanished:
            return reading  # With its last process a namespace's sockets are gone.
        for name, data in texts.items():
            place = (netns, name)
            if not isinstance(data, bytes):
                reading.failed[place] = os.strerror(data.errno or 0)
                continue
            if not data:  # Without its heading it is no table, and no proof that nothing is there.
                reading.failed[place] = "it is empty"
                continue
            before = self._tables.get(place)
            reading.tables[place] = net.parse(name, data, netns_id, self._ephemeral, before)
        for place, table in self._tables.items():
            if place[0] == netns and isinstance(place[1], tuple) and place not in reading.tables:
                reading.tables.update(self._without(place, table, texts))
        return reading

    def _interface(self, netns: int, pids: Sequence[int], index: int) -> str:
        """The name of an interface of a namespace, or its index in digits."""
        try:
            texts = self._procfs.tables(netns, pids, net.INTERFACES)
        except Vanished:
            return str(index)
        readable = [data for data in texts.values() if isinstance(data, bytes)]
        return net.interfaces(readable).get(index, str(index))

    def _without(
        self, place: Place, table: Table, texts: Mapping[str, object]
    ) -> dict[Place, Table]:
        """What netlink showed, without what was read as text now; nothing if that was nothing."""
        read = {name for name, data in texts.items() if isinstance(data, bytes)}
        if read.isdisjoint(place[1]):
            return {}
        kept = {row: one for row, one in table.rows.items() if net.table_of(one) not in read}
        left = tuple(one for row, one in table.rows.items() if row not in kept)
        return {place: Table(kept, left=left) if kept else EMPTY}

    def _replaced(self, places: Iterable[Place]) -> dict[Place, Table]:
        return {place: EMPTY for place in places if self._tables.get(place) is not EMPTY}

    def listing(self, socket: Socket) -> str | None:
        """The name of the table that should list such a socket; None when none does."""
        name = net.table_of(socket)
        return name if name in _NAMES else None

    def missing(self) -> list[str]:
        """One sentence for each thing that could not be read when it was last tried."""
        sentences = [
            f"{name} of {self._name(netns)} could not be read ({why})"
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
        if self._unheard:
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
