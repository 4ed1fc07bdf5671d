"""The newest reading of every table of sockets, and what each reading changed. Pure."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from itertools import islice
from typing import Generic, TypeVar

from ..kernel.rows import EMPTY, Table
from ..model import Socket
from .reading import Change

K = TypeVar("K", bound=Hashable)


class SocketTables(Generic[K]):
    """The newest reading of every table, by a key of the caller's; and all their sockets.

    A table that is not read again stays as it is.
    """

    def __init__(self) -> None:
        self._tables: dict[K, Table] = {}
        self._indexes: dict[K, dict[int, Socket]] = {}  # By inode, of each table.
        self.sockets: dict[int, Socket] = {}
        # Sockets that a unix row claims too. Who names a unix socket may put a newline into its
        # path, and behind it what reads as a row: such a row hides no other table's socket.
        self.clashes: set[int] = set()
        # Inodes that more than one network namespace shows, though a socket is in one of them.
        # The socket of the namespace that showed the inode first stands until it leaves there.
        self.disputed: set[int] = set()
        self.decoded = 0  # Rows, since the start.

    def get(self, key: K) -> Table:
        """The table as it was last read."""
        return self._tables.get(key, EMPTY)

    def items(self) -> list[tuple[K, Table]]:
        """Every table with its key."""
        return list(self._tables.items())

    def update(self, tables: Mapping[K, Table]) -> Change:
        """Take over new readings; an EMPTY one drops its table."""
        fresh: dict[int, Socket] = {}
        fresh_unix: dict[int, Socket] = {}
        unsure: set[int] = set()  # What more than one row may show.
        for key, table in tables.items():
            before = self.get(key)
            if table is not before:
                came = {row[0]: row for row in table.added.values()}
                unsure |= self._take(key, before, table, came)
                is_unix = any(row[2] == "unix" for row in islice(came.values(), 1))
                among = fresh_unix if is_unix else fresh
                twice = came.keys() & among.keys()
                unsure.update(inode for inode in twice if came[inode][14] != among[inode][14])
                among.update(came)
        sockets = self.sockets
        both = fresh.keys() & sockets.keys()
        for inode in both:
            stood = sockets[inode]
            if stood[2] == "unix" or stood[14] != fresh[inode][14]:
                unsure.add(inode)
        unsure.update(inode for inode in fresh_unix if inode in sockets or inode in fresh)
        known = {inode: sockets.pop(inode, None) for inode in unsure}
        fresh = fresh_unix | fresh
        sockets.update(fresh)
        gone = self._settle(known, fresh)
        # Rows that no process can hold have no inode.
        sockets.pop(0, None)
        fresh.pop(0, None)
        gone.discard(0)
        self.clashes &= sockets.keys()
        self.disputed &= sockets.keys()
        return Change(set(fresh), gone)

    def discard(self, keys: Iterable[K], inodes: Collection[int]) -> None:
        """Drop sockets of these tables that are known to be gone: the next reading shows it too."""
        for inode in inodes:
            self.sockets.pop(inode, None)
        for key in keys:
            index = self._indexes.get(key, {})
            for inode in inodes:
                index.pop(inode, None)

    def _take(self, key: K, before: Table, table: Table, came: dict[int, Socket]) -> set[int]:
        """Take over one reading; the inodes of the rows that are no longer in it."""
        self.decoded += len(table.added)
        went = before.rows.values() if table is EMPTY else table.removed
        inodes = {row[0] for row in went}
        if table is EMPTY:
            self._tables.pop(key, None)
            self._indexes.pop(key, None)
            return inodes
        self._tables[key] = table
        index = self._indexes.get(key)
        if index is None:
            index = self._indexes[key] = came
        else:
            index.update(came)
        if inodes:
            for inode in inodes - came.keys():
                index.pop(inode, None)
            if len(index) < len(table.rows):  # A row that stood twice may stand once more.
                for row in table.rows.values():
                    index.setdefault(row[0], row)
        return inodes

    def _settle(self, known: Mapping[int, Socket | None], fresh: dict[int, Socket]) -> set[int]:
        """Find out what stands for the inodes that were ``known`` so; those that are gone."""
        gone = set()
        for inode, before in known.items():
            row = self._resolve(inode, before)
            if row is None:
                self.sockets.pop(inode, None)
                fresh.pop(inode, None)
                if before is not None:
                    gone.add(inode)
                continue
            self.sockets[inode] = row
            if row is before:
                fresh.pop(inode, None)
            else:
                fresh[inode] = row
        return gone

    def _resolve(self, inode: int, before: Socket | None) -> Socket | None:
        """Return what stands for an inode; ``before`` is what stood for it so far.

        A row that may be an imitation stands only where there is no other, and what a namespace
        shows stands for as long as it shows it.
        """
        found = [row for index in self._indexes.values() if (row := index.get(inode)) is not None]
        self.clashes.discard(inode)
        self.disputed.discard(inode)
        if len(found) < 2:
            return found[0] if found else None
        sure = [row for row in found if not _may_be_imitation(row)] or found
        if len(sure) < len(found):
            self.clashes.add(inode)
        namespaces = [row[14] for row in sure]
        if namespaces.count(namespaces[0]) < len(sure):
            self.disputed.add(inode)
        netns = namespaces[0]
        if before is not None and before[14] in namespaces:
            netns = before[14]
        return next(row for row in reversed(sure) if row[14] == netns)


def _may_be_imitation(row: Socket) -> bool:
    """Whether it is a row of unix that was read as text."""
    return row[2] == "unix" and row[15] != "netlink"
