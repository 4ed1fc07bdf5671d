"""A table of sockets as it was read, row by row, and what changed since it was read before. Pure.

A row's bytes are its identity: a row that reads as it did before is not decoded again. It knows no
formats and no files.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from typing import Generic, NamedTuple, TypeVar

from .model import Socket

# Decodes rows; those that cannot be read are left out.
Decode = Callable[[Iterable[bytes]], Iterator[tuple[bytes, Socket]]]


class Table(NamedTuple):
    """One table: its rows, as bytes, with the sockets that they show, and those that cannot be
    read. ``fresh`` and ``left`` are what came and went since the reading before."""

    rows: Mapping[bytes, Socket]
    malformed: frozenset[bytes] = frozenset()
    fresh: Mapping[bytes, Socket] = {}
    left: tuple[Socket, ...] = ()

    def sockets(self) -> dict[int, Socket]:
        """By inode, without the rows that no process can hold."""
        return {socket[0]: socket for socket in self.rows.values() if socket[0]}

    def unheld(self) -> list[Socket]:
        """The sockets that no process can hold."""
        return [socket for socket in self.rows.values() if not socket[0]]


EMPTY = Table({})


class Scope(NamedTuple):
    """What is to be known of a network namespace to read its tables.

    ``ephemeral`` are the ports that the kernel chooses from: with no listener in sight, a socket
    on one of them is taken for the side that connected. ``interface`` names one by its index.
    """

    netns: int | None
    ephemeral: range
    interface: Callable[[int], str] = str


def reread(rows: Iterable[bytes], before: Table, decode: Decode) -> Table:
    """The table with these rows; ``before`` itself when nothing changed.

    ``decode`` is called with the rows that are new, once, and only if there are any.
    """
    known = before.rows
    current = dict.fromkeys(rows)
    new = current.keys() - known.keys() - before.malformed if before.rows else current.keys()
    gone = known.keys() - current.keys()
    malformed = before.malformed & current.keys() if before.malformed else before.malformed
    if not new and not gone and malformed == before.malformed:
        return before
    fresh = dict(decode(new)) if new else {}
    if len(fresh) != len(new):
        malformed |= new - fresh.keys()
    if not known:
        return Table(fresh, frozenset(malformed), fresh)
    merged = dict(known)
    left = tuple(merged.pop(row) for row in gone)
    merged.update(fresh)
    return Table(merged, frozenset(malformed), fresh, left)


class Change(NamedTuple):
    """What a reading changed: inodes whose sockets came, changed or went."""

    fresh: set[int]
    gone: set[int]


K = TypeVar("K", bound=Hashable)


class Tables(Generic[K]):
    """The newest reading of every table, by a key of the caller's; and all their sockets.

    A table that is not read again stays as it is.
    """

    def __init__(self) -> None:
        self._tables: dict[K, Table] = {}
        self.sockets: dict[int, Socket] = {}
        # Sockets that a unix row claims too. Who names a unix socket may put a newline into its
        # path, and behind it what reads as a row: such a row hides no other table's socket.
        self.clashes: set[int] = set()
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
        unsure: dict[int, Socket] = {}
        gone: set[int] = set()
        for key, table in tables.items():
            before = self.get(key)
            if table is before:
                continue
            if table is EMPTY:
                self._tables.pop(key, None)
            else:
                self._tables[key] = table
            self.decoded += len(table.fresh)
            came = {row[0]: row for row in table.fresh.values()}
            went = before.rows.values() if table is EMPTY else table.left
            lost = {row[0] for row in went} - came.keys()
            if lost:  # A row that stood twice is not gone while one of them stands.
                gone |= lost - {row[0] for row in table.rows.values()}
            if came:
                is_unix = next(iter(came.values()))[2] == "unix"
                (unsure if is_unix else fresh).update(came)
        sockets = self.sockets
        for inode in gone - fresh.keys():
            sockets.pop(inode, None)
        sockets.update(fresh)
        for inode in unsure.keys() & sockets.keys():
            if sockets[inode][2] != "unix":
                del unsure[inode]
                self.clashes.add(inode)
        sockets.update(unsure)
        fresh.update(unsure)
        # Rows that no process can hold have no inode.
        sockets.pop(0, None)
        fresh.pop(0, None)
        self.clashes &= sockets.keys()
        gone -= fresh.keys()
        gone.discard(0)
        return Change(set(fresh), gone)
