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
    """The newest reading of every table, by a key that the caller chooses, and all their sockets. A
    table that is not read again stays as it is."""

    def __init__(self) -> None:
        self._tables: dict[K, Table] = {}
        self._indexes: dict[K, dict[int, Socket]] = {}  # By inode, of each table.
        self.sockets: dict[int, Socket] = {}
        # Sockets that a unix row claims too. The path of a unix socket may contain a newline and,
        # after it, text that looks like a row: such a row hides no socket of another table.
        self.clashes: set[int] = set()
        # Inodes that several network namespaces show, although a socket is in one namespace. The
        # namespace that showed the inode first counts, for as long as it shows it.
        self.disputed: set[int] = set()
        self.decoded = 0  # Rows that were decoded since the start.
        # Sockets that were put into a table since it was read last, and that it did not show.
        self._provisional: dict[K, set[int]] = {}

    def get(self, key: K) -> Table:
        """Return a table as it was last read."""
        return self._tables.get(key, EMPTY)

    def items(self) -> list[tuple[K, Table]]:
        """Return every table with its key."""
        return list(self._tables.items())

    def update(self, tables: Mapping[K, Table]) -> Change:
        """Take over new readings; EMPTY drops a table. Return what changed."""
        added: dict[int, Socket] = {}
        added_unix: dict[int, Socket] = {}
        ambiguous: set[int] = set()  # Inodes that several rows may show.
        for key, table in tables.items():
            before = self.get(key)
            if table is not before:
                new = {row.inode: row for row in table.added.values()}
                ambiguous |= self._take(key, before, table, new)
                is_unix = any(row.family == "unix" for row in islice(new.values(), 1))
                others = added_unix if is_unix else added
                twice = new.keys() & others.keys()
                ambiguous.update(
                    inode for inode in twice if new[inode].netns != others[inode].netns
                )
                others.update(new)
        sockets = self.sockets
        both = added.keys() & sockets.keys()
        for inode in both:
            before_row = sockets[inode]
            if before_row.family == "unix" or before_row.netns != added[inode].netns:
                ambiguous.add(inode)
        ambiguous.update(inode for inode in added_unix if inode in sockets or inode in added)
        known = {inode: sockets.pop(inode, None) for inode in ambiguous}
        added = added_unix | added
        sockets.update(added)
        gone = self._settle(known, added)
        # Rows that no process can hold have inode 0.
        sockets.pop(0, None)
        added.pop(0, None)
        gone.discard(0)
        self.clashes &= sockets.keys()
        self.disputed &= sockets.keys()
        return Change(set(added), gone)

    def discard(self, keys: Iterable[K], inodes: Collection[int]) -> None:
        """Drop sockets of these tables that are known to be gone, before the next reading."""
        for inode in inodes:
            self.sockets.pop(inode, None)
        for key in keys:
            index = self._indexes.get(key, {})
            for inode in inodes:
                index.pop(inode, None)

    def put(self, key: K, socket: Socket) -> None:
        """Put a socket into a table, or replace it there, until the table is read again."""
        index = self._indexes.setdefault(key, {})
        if socket.inode not in index:
            self._provisional.setdefault(key, set()).add(socket.inode)
        self.sockets[socket.inode] = index[socket.inode] = socket

    def _take(self, key: K, before: Table, table: Table, new: dict[int, Socket]) -> set[int]:
        """Take over one reading; return the inodes of the rows that are no longer in it."""
        self.decoded += len(table.added)
        removed = before.rows.values() if table is EMPTY else table.removed
        inodes = {row.inode for row in removed}
        # A reading without a socket that was put shows that it has ended.
        inodes |= self._provisional.pop(key, set())
        if table is EMPTY:
            self._tables.pop(key, None)
            self._indexes.pop(key, None)
            return inodes
        self._tables[key] = table
        index = self._indexes.get(key)
        if index is None:
            index = self._indexes[key] = new
        else:
            index.update(new)
        if inodes:
            for inode in inodes - new.keys():
                index.pop(inode, None)
            if len(index) < len(table.rows):  # Another row may show a removed inode too.
                for row in table.rows.values():
                    index.setdefault(row.inode, row)
        return inodes

    def _settle(self, known: Mapping[int, Socket | None], added: dict[int, Socket]) -> set[int]:
        """Decide which row counts for each inode; ``known`` are the rows that counted before.
        Return the inodes that are gone."""
        gone = set()
        for inode, before in known.items():
            row = self._resolve(inode, before)
            if row is None:
                self.sockets.pop(inode, None)
                added.pop(inode, None)
                if before is not None:
                    gone.add(inode)
                continue
            self.sockets[inode] = row
            if row is before:
                added.pop(inode, None)
            else:
                added[inode] = row
        return gone

    def _resolve(self, inode: int, before: Socket | None) -> Socket | None:
        """Return the row that counts for an inode; ``before`` is the row that counted so far. A row
        that may be an imitation counts only if there is no other row. A namespace whose row counts
        keeps the inode for as long as it shows it."""
        found = [row for index in self._indexes.values() if (row := index.get(inode)) is not None]
        self.clashes.discard(inode)
        self.disputed.discard(inode)
        if len(found) < 2:
            return found[0] if found else None
        sure = [row for row in found if not _may_be_imitation(row)] or found
        if len(sure) < len(found):
            self.clashes.add(inode)
        namespaces = [row.netns for row in sure]
        if namespaces.count(namespaces[0]) < len(sure):
            self.disputed.add(inode)
        netns = namespaces[0]
        if before is not None and before.netns in namespaces:
            netns = before.netns
        return next(row for row in reversed(sure) if row.netns == netns)


def _may_be_imitation(row: Socket) -> bool:
    """Return whether the row is of a unix table that was read as text."""
    return row.family == "unix" and row.source != "netlink"
