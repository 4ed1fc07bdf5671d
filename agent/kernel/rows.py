"""Rows of one table of sockets, and what changed since the table was read before. Pure.

A row is identified by its bytes: a row that has not changed is not decoded again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

from ..model import Socket

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

    def unowned(self) -> list[Socket]:
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
    if before is EMPTY:
        every = list(rows)
        fresh = dict(decode(every))
        malformed = frozenset(set(every) - fresh.keys() if len(fresh) < len(every) else ())
        return Table(fresh, malformed, fresh) if every else EMPTY
    known = before.rows
    current = dict.fromkeys(rows)
    unknown = current.keys() - known.keys()
    # Where as many stayed as there were, none is gone.
    stayed = len(current) - len(unknown)
    gone = known.keys() - current.keys() if stayed < len(known) else set()
    malformed = before.malformed & current.keys()
    unknown -= malformed
    # In the order of the table: of a socket that is in there twice, the later row is newer.
    new = list(filter(unknown.__contains__, current)) if len(unknown) > 1 else list(unknown)
    if not new and not gone and malformed == before.malformed:
        return before
    fresh = dict(decode(new)) if new else {}
    if len(fresh) != len(new):
        malformed |= frozenset(new) - fresh.keys()
    merged = dict(known)
    left = tuple(merged.pop(row) for row in gone)
    merged.update(fresh)
    return Table(merged, malformed, fresh, left)
