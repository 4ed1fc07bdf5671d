"""One concurrent pass over procfs → a snapshot; and the cadence of passes.

It knows the sources and the join, and nothing of who reads the snapshots.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import (
    AsyncIterator,
    Callable,
    Container,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from typing import NamedTuple

from aiofiles.base import wrap

from .directions import EPHEMERAL
from .holders import Descriptor, Held, Holders, Rows
from .model import Coverage, Holding, Snapshot, Socket, Table
from .netlink.reader import NetlinkReader
from .procfs import net
from .procfs.forked import ForkedWalk
from .procfs.reader import ProcFS, Vanished, Walked
from .users import Users

# Every table of /proc/net that lists sockets, by executor hop: those that grow large alone.
TABLES = (
    ("tcp", "tcp6"),
    ("unix",),
    ("udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6", "netlink", "packet"),
)
_TABLE_NAMES = frozenset(name for names in TABLES for name in names)
# Two threads walk in 0.6 of the time of one; more lose it again to the interpreter's lock.
WALKERS = min(2, os.cpu_count() or 1)

UNREADABLE = "the descriptors of some processes may not be read"
HIDDEN = "other users' processes are hidden (procfs is mounted with hidepid)"

# A table of one namespace: (``Look.netns``, name).
Place = tuple[int, str]


class Parsed(NamedTuple):
    """Tables of one pass by place; ``failed`` says why others could not be read."""

    tables: dict[Place, Table]
    failed: dict[Place, str]


class Poller:
    """Takes snapshots of one procfs."""

    def __init__(
        self,
        procfs: ProcFS,
        *,
        netlink: NetlinkReader | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._procfs = procfs
        self._netlink = netlink
        self._clock = clock
        self._users = Users()
        self._holders = Holders(self._users.owner)
        self._ephemeral = procfs.ephemeral_ports() or EPHEMERAL
        self._walk_soon = wrap(procfs.walk)
        self._ask_soon = wrap(procfs.protocols)
        self._last: Snapshot | None = None
        self.coverage = Coverage(0, 0, 0)
        self._batch_soon = wrap(ForkedWalk.batch)
        self._read_soon = wrap(self._read)
        self._resolve_soon = wrap(self._holders.resolve)
        self._join_soon = wrap(self._holders.join)

    async def snapshots(self, interval: float) -> AsyncIterator[Snapshot]:
        """A snapshot at once, then one every ``interval`` seconds of the monotonic clock.

        The schedule does not drift; a pass that ends late skips ticks and never bunches them.
        """
        clock = asyncio.get_running_loop().time
        start = clock()
        while True:
            yield await self.poll()
            elapsed = clock() - start
            await asyncio.sleep(next_tick(elapsed, interval) - elapsed)

    async def poll(self) -> Snapshot:
        """One pass. The walk comes first: a socket that it finds is in a table by then.

        Raises OSError when there is no procfs, and never was.
        """
        try:
            pids = self._procfs.pids()
        except OSError as error:
            return self._blind(error)
        walked = await self._walk(pids)
        namespaces = self._namespaces(walked)
        if self._netlink is not None:
            self._netlink.keep(namespaces)
        parsed = await self._all_tables(namespaces)
        return await self._joined(walked, namespaces, parsed)

    async def once(
        self, walk: ForkedWalk | None, *, unheld: bool = False
    ) -> AsyncIterator[Iterable[Holding]]:
        """The holdings of a first and only pass, in parts, while its walk goes on elsewhere.

        Without ``walk`` it walks itself. ``unheld``: with the rows that no process can hold.
        ``coverage`` is known when it is through. Raises OSError when there is no procfs.
        """
        left = set(self._procfs.pids())
        own = {} if self._procfs.own is None else {self._procfs.own[0]: [self._procfs.own[1]]}
        parsed = await self._all_tables(own)
        sockets = self._rows(parsed).sockets
        rest, seen = Walked([], {}), set[int]()

        def taken(walked: Walked) -> Iterator[Holding]:
            rest.failed.update(walked.failed)
            for look in walked.looks:
                left.discard(look.process.pid)
                unlisted = {}
                for inode, fds in look.held.items():
                    socket = sockets.get(inode)
                    if socket is None:
                        unlisted[inode] = fds
                    else:
                        seen.add(inode)
                        yield self._holders.hold(socket, look.process, fds)
                rest.looks.append(look._replace(held=unlisted))

        while walk is not None and (walked := await self._batch_soon(walk)) is not None:
            yield taken(walked)
        # Whom the walk left out is gone, or it was killed.
        yield taken(await self._walk(list(left)))
        namespaces = self._namespaces(rest)
        others = {netns: pids for netns, pids in namespaces.items() if netns not in own}
        more = await self._all_tables(others)
        parsed.tables.update(more.tables)
        parsed.failed.update(more.failed)
        snapshot = await self._joined(rest, namespaces, parsed, seen)
        yield snapshot.holdings.values()
        if unheld:
            for table in parsed.tables.values():
                yield (self._holders.hold(row, None, ()) for row in table.unheld)
        self.coverage = snapshot.coverage

    def _namespaces(self, walked: Walked) -> dict[int, list[int]]:
        """The pids of each network namespace."""
        namespaces: dict[int, list[int]] = {}
        for look in walked.looks:
            netns = self._procfs.netns_id(look.netns) or look.netns
            namespaces.setdefault(netns, []).append(look.process.pid)
        return namespaces

    async def _joined(
        self,
        walked: Walked,
        namespaces: Mapping[int, list[int]],
        parsed: Parsed,
        told: Container[int] = (),
    ) -> Snapshot:
        """The snapshot of what was walked and read, but for the rows that were ``told`` before."""
        self._users.expire()
        held = self._holders.keep(self._held(walked))
        rows = self._rows(parsed, told)
        sockets, asked = await self._resolve_soon(held, rows)
        if asked:
            unlisted = await self._ask(asked)
            doubtful = self._doubtful(walked, unlisted)
            if doubtful:
                again = await self._tables(namespaces, doubtful)
                parsed.tables.update(again.tables)
                rows = self._rows(parsed, told)
                sockets, asked = await self._resolve_soon(held, rows)
                unlisted = await self._ask(asked)
            sockets.update(unlisted)
        holdings = await self._join_soon(held, sockets, rows)
        self._last = Snapshot(
            time=self._clock(),
            holdings=holdings,
            processes={process.pid: process.start_ticks for process, _fds, _fixed in held},
            coverage=self._coverage(walked, namespaces, parsed),
        )
        return self._last

    def _blind(self, error: OSError) -> Snapshot:
        """What was there still stands while nothing can be seen."""
        last = self._last
        if last is None:
            raise error
        why = f"processes could not be listed ({error.strerror})"
        return last._replace(time=self._clock(), coverage=last.coverage._replace(missing=(why,)))

    # The walk.

    async def _walk(self, pids: Sequence[int]) -> Walked:
        chunks = [pids[start::WALKERS] for start in range(WALKERS)]
        parts = await asyncio.gather(*map(self._walk_soon, chunks))
        return Walked(
            [look for part in parts for look in part.looks],
            {pid: why for part in parts for pid, why in part.failed.items()},
        )

    def _held(self, walked: Walked) -> Iterable[Held]:
        for look in walked.looks:
            yield Held(look.process, look.held, fixed=not look.readable)
        for pid in walked.failed:
            known = self._holders.process(pid)
            if known is not None:
                yield Held(known, {}, fixed=True)

    # The tables.

    async def _all_tables(self, namespaces: Mapping[int, list[int]]) -> Parsed:
        wanted = [(netns, names) for netns in namespaces for names in TABLES]
        return await self._tables(namespaces, wanted)

    async def _tables(
        self, namespaces: Mapping[int, list[int]], wanted: Sequence[tuple[int, Sequence[str]]]
    ) -> Parsed:
        parts = await asyncio.gather(
            *(self._read_soon(netns, namespaces[netns], names) for netns, names in wanted)
        )
        whole = Parsed({}, {})
        for part in parts:
            whole.tables.update(part.tables)
            whole.failed.update(part.failed)
        return whole

    def _read(self, netns: int, pids: Sequence[int], names: Sequence[str]) -> Parsed:
        """Read and parse tables of one namespace, over netlink those it has; blocking."""
        parsed = Parsed({}, {})
        netns_id = self._procfs.netns_id(netns)
        if self._netlink is not None and netns_id is not None:
            path = f"{self._procfs.root}/{pids[0]}/ns/net"
            found = self._netlink.tables(netns_id, path, names, self._ephemeral)
            parsed.tables.update({(netns, name): table for name, table in found.items()})
            names = [name for name in names if name not in found]
        try:
            tables = self._procfs.tables(pids, names) if names else {}
        except Vanished:
            return parsed  # With its last process a namespace's sockets are gone.
        for name, data in tables.items():
            if isinstance(data, bytes):
                parsed.tables[netns, name] = net.parse(name, data, netns_id, self._ephemeral)
            else:
                parsed.failed[netns, name] = os.strerror(data.errno or 0)
        return parsed

    def _rows(self, parsed: Parsed, told: Container[int] = ()) -> Rows:
        sockets: dict[int, Socket] = {}
        for table in parsed.tables.values():
            sockets.update(table.sockets)
        if told:
            sockets = {inode: row for inode, row in sockets.items() if inode not in told}
        failed = {(self._procfs.netns_id(netns), name) for netns, name in parsed.failed}
        if not failed:
            return Rows(sockets, lambda _socket: False)
        return Rows(sockets, lambda socket: (socket.netns, net.table_of(socket)) in failed)

    # Sockets in no table.

    async def _ask(self, asked: Sequence[Descriptor]) -> dict[int, Socket]:
        """What the descriptors tell of their sockets; without those that were closed meanwhile."""
        names = await self._ask_soon(asked)
        return {
            descriptor.inode: net.unlisted(descriptor.inode, name)
            for descriptor, name in zip(asked, names, strict=True)
            if name != b""
        }

    def _doubtful(
        self, walked: Walked, told: Mapping[int, Socket]
    ) -> list[tuple[int, Sequence[str]]]:
        """The tables that should have shown these sockets: read while they changed, they may have
        skipped them, so that it takes a second reading to believe that they are not in there."""
        if not told:
            return []
        places = {
            (look.netns, name)
            for look in walked.looks
            for inode in look.held.keys() & told.keys()
            if (name := net.table_of(told[inode])) in _TABLE_NAMES
        }
        return [(netns, (name,)) for netns, name in places]

    # What was seen.

    def _coverage(
        self, walked: Walked, namespaces: Mapping[int, object], parsed: Parsed
    ) -> Coverage:
        unreadable = sum(1 for look in walked.looks if not look.readable)
        missing = []
        if unreadable:
            missing.append(UNREADABLE)
        if self._procfs.hides_processes():
            missing.append(HIDDEN)
        missing += [
            f"some processes could not be read ({why})"
            for why in sorted(set(walked.failed.values()))
        ]
        missing += [
            f"{name} of {self._name(netns)} could not be read ({why})"
            for (netns, name), why in sorted(parsed.failed.items())
        ]
        for (netns, name), table in sorted(parsed.tables.items()):
            if table.malformed:
                missing.append(
                    f"{table.malformed} malformed rows of {name} of {self._name(netns)} skipped"
                )
        return Coverage(len(walked.looks), unreadable, len(namespaces), tuple(missing))

    def _name(self, netns: int) -> str:
        netns_id = self._procfs.netns_id(netns)
        return "a network namespace" if netns_id is None else f"network namespace {netns_id}"


def next_tick(elapsed: float, interval: float) -> float:
    """The next whole multiple of ``interval`` behind ``elapsed`` (seconds since the start)."""
    return (math.floor(elapsed / interval) + 1) * interval
