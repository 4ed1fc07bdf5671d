"""Join sockets to the processes that hold them: the holdings of a poll, from what changed.

This module decides what becomes of a socket that is in no table, or in no table any more, and when
a socket without a holder is published. Pure: no files, no clock, no asyncio.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from ..bounded import drop_oldest
from ..model import INET_FAMILIES, Holding, HoldingKey, Socket
from .holders import Holders
from .holding import HoldingBuilder, HoldingsUpdate
from .reading import EndedSocket, Reading

# Readings that must miss a row before its socket counts as gone: the kernel skips rows in tables
# that change while they are read.
MAX_MISSES = 2
# Sockets in no table whose descriptors one poll reads again; 5 µs each.
MAX_UNLISTED_CHECKS = 200
# Published sockets whose end was not reported yet; 60 bytes each.
MAX_UNREPORTED = 250_000
# States in which a socket has no direction to keep.
_WITHOUT_DIRECTION = frozenset({"LISTEN", "CLOSE", None})


class Descriptor(NamedTuple):
    """A descriptor whose socket is in no table: only the descriptor shows what the socket is."""

    pid: int
    fd: int
    inode: int


class Resolution(NamedTuple):
    """The identified sockets of a poll, by inode.

    ``sockets`` can be published. ``rowless`` are held sockets that wait for a table to show them.
    """

    sockets: Mapping[int, Socket]
    rowless: Mapping[int, Socket]


class Joined(NamedTuple):
    """The result of a join: the keys of holdings that changed; holdings that began and ended
    between two polls; and sockets in no table that are gone, counted by protocol."""

    changed: frozenset[HoldingKey]
    short_lived: list[Holding]
    gone_unlisted: Counter[str | None]


class Join:
    """The holdings, poll after poll. A poll calls ``end``, ``dirty``, ``questions``, ``resolve``
    and ``apply``. Of these only ``end`` and ``apply`` change what is kept for the next poll."""

    def __init__(
        self,
        holders: Holders,
        builder: HoldingBuilder,
        *,
        has_events: Callable[[], bool] = lambda: False,
    ) -> None:
        """``has_events`` returns whether trace events report the ends of TCP connections."""
        self._holders = holders
        self._builder = builder
        self._has_events = has_events
        self.holdings: Mapping[HoldingKey, Holding] = {}
        self._sockets: dict[int, Socket] = {}  # As published, by inode.
        self._unlisted: set[int] = set()  # Published sockets that only their descriptors show.
        self._misses: dict[int, int] = {}  # Readings in a row that missed a published socket.
        self._ownerless: dict[int, Socket] = {}  # Rows that wait one poll for a holder.
        self._rowless: Mapping[int, Socket] = {}  # Held sockets that wait for a row.
        self._unreported: dict[int, None] = {}  # Published sockets whose end was not reported.
        self._next_unlisted = 0  # Where the next checks of unlisted sockets begin.
        self._is_first = True

    def doubted(self, sockets: Mapping[int, Socket], changes: Iterable[HoldingKey]) -> list[Socket]:
        """Return sockets whose tables are read in any case. These wait for a row or a holder, lost
        their row, or lost their last holder. ``sockets`` are those of the newest reading,
        ``changes`` the keys of holdings that may have changed."""
        pids_of = self._holders.pids_of
        left = {inode for _pid, inode in changes if not pids_of(inode)}
        doubted = [sockets[inode] for inode in left if inode in sockets]
        doubted += [self._sockets[inode] for inode in self._misses]
        return [*doubted, *self._ownerless.values(), *self._rowless.values()]

    def take_unlisted(self) -> list[int]:
        """Return sockets in no table whose descriptors are to be read again, others in each poll.
        Only its descriptor shows that such a socket was closed and another file opened."""
        inodes = sorted(self._unlisted)
        if len(inodes) <= MAX_UNLISTED_CHECKS:
            return inodes
        start = self._next_unlisted % len(inodes)
        self._next_unlisted += MAX_UNLISTED_CHECKS
        return (inodes + inodes)[start : start + MAX_UNLISTED_CHECKS]

    def orphans(self, sockets: Mapping[int, Socket]) -> list[Socket]:
        """Return the sockets in tables that wait for a holder and still have none."""
        pids_of = self._holders.pids_of
        return [
            sockets[inode] for inode in self._ownerless if inode in sockets and not pids_of(inode)
        ]

    def end(self, ended: Mapping[int, EndedSocket]) -> list[tuple[EndedSocket, Holding | None]]:
        """Take in sockets whose end was reported, while their holders are still known. Return those
        that were never published, with each holding, or None if no holder is known."""
        unpublished: list[tuple[EndedSocket, Holding | None]] = []
        build, processes = self._builder.build, self._holders.processes
        for inode, one in ended.items():
            row, published = one.socket, inode in self._sockets
            identity = self._identity(row)
            if identity is not None and identity in self._unreported:
                del self._unreported[identity]
                published = True
            self._ownerless.pop(inode, None)
            if published:
                continue
            pids = self._holders.pids_of(inode)
            for pid in pids:
                state = processes[pid]
                unpublished.append((one, build(row, state.process, state.held[inode])))
            if not pids:
                unpublished.append((one, None))
        if ended:
            self._rowless = {at: row for at, row in self._rowless.items() if at not in ended}
        return unpublished

    def _identity(self, socket: Socket) -> int | None:
        """Return what a report of the end of a socket is matched with: its cookie or, where text
        tables show connections whose ends trace events report, its inode, negative."""
        if socket.cookie is not None:
            return socket.cookie
        return -socket.inode if socket.proto == "tcp" and self._has_events() else None

    def dirty(self, changes: Iterable[HoldingKey], inodes: Iterable[int]) -> set[int]:
        """Return the sockets to join again: those of ``changes``, ``inodes``, and those in doubt. A
        unix socket's peer is among them: a holding names a holder of the peer."""
        dirty = {inode for _pid, inode in changes}
        published = self._sockets
        peers = {published[inode].peer_inode for inode in dirty if inode in published}
        dirty.update(peer for peer in peers if peer in published)
        return dirty.union(inodes, self._misses, self._ownerless, self._rowless)

    def questions(
        self, dirty: Iterable[int], reading: Reading, ended: Container[int]
    ) -> list[Descriptor]:
        """Return the descriptors to read, to identify sockets that are in no table."""
        pids_of, processes = self._holders.pids_of, self._holders.processes
        asked = []
        for inode in dirty:
            if inode in reading.sockets or inode in ended:
                continue
            before = self._sockets.get(inode)
            if before is not None and not self._is_lost(inode, before, reading):
                continue
            pids = pids_of(inode)
            if pids:
                pid = next((pid for pid in pids if processes[pid].readable), pids[0])
                asked.append(Descriptor(pid, processes[pid].held[inode][0], inode))
        return asked

    def _is_lost(self, inode: int, published: Socket, reading: Reading) -> bool:
        """Return whether enough readings missed the row of a published socket."""
        if inode in self._unlisted:
            return False
        return self._misses.get(inode, 0) + bool(reading.covers(published)) >= MAX_MISSES

    def resolve(
        self,
        dirty: Iterable[int],
        reading: Reading,
        ended: Container[int],
        answers: Mapping[int, Socket],
    ) -> Resolution:
        """Return what the ``dirty`` sockets are. ``answers`` is what the descriptors of
        ``questions`` showed; ``ended`` are known to be gone."""
        sockets: dict[int, Socket] = {}
        rowless: dict[int, Socket] = {}
        rows, published = reading.sockets, self._sockets
        for inode in dirty:
            if inode in ended:
                continue
            row, before = rows.get(inode), published.get(inode)
            if row is not None:
                sockets[inode] = row if before is None else _merged(before, row)
            elif before is not None and not self._is_lost(inode, before, reading):
                sockets[inode] = before
            elif (answer := answers.get(inode)) is not None:
                # The socket may have been opened while the tables were read: then the next reading
                # shows it.
                covered = reading.covers(answer)
                waits = before is None and not self._is_first and covered is not None
                if waits and not (inode in self._rowless and covered):
                    rowless[inode] = answer
                else:  # A process may hold a socket that was opened in another namespace.
                    sockets[inode] = answer._replace(netns=None)
            elif self._holders.pids_of(inode):  # The descriptor refers to another file by now.
                rowless[inode] = Socket(inode, None, None, None, None)
        return Resolution(sockets, rowless)

    def apply(
        self,
        dirty: AbstractSet[int],
        changes: AbstractSet[HoldingKey],
        resolution: Resolution,
        reading: Reading,
    ) -> Joined:
        """Bring the holdings up to date with the resolved sockets. ``dirty`` is the result of
        ``dirty`` for ``changes``, or more."""
        if not dirty and not self._is_first:  # Copying the holdings takes longer than the rest.
            return Joined(frozenset(), [], Counter())
        holders, rows = self._holders, reading.sockets
        update = HoldingsUpdate(self.holdings, self._builder)
        short_lived: list[Holding] = []
        gone: Counter[str | None] = Counter()
        for key in changes:
            if key[0] not in holders.pids_of(key[1]):
                update.remove(key)
        ownerless: dict[int, Socket] = {}
        for inode in dirty:
            socket, pids = resolution.sockets.get(inode), holders.pids_of(inode)
            is_published = (None, inode) in self.holdings
            if socket is None or not (pids or is_published or inode in rows):
                for pid in pids:
                    update.remove((pid, inode))
                update.remove((None, inode))
                waited = self._ownerless.get(inode)
                if waited and not (inode in resolution.rowless or inode in self._sockets):
                    # Its row was read, no holder was found, and the row is gone.
                    short_lived.append(self._builder.build(waited, None, ()))
                    self._note_published(waited)
                gone.update(self._forget(inode))
            elif not (pids or is_published or inode in self._ownerless or self._is_first):
                ownerless[inode] = socket
            else:
                self._put(update, inode, socket, pids)
                self._remember(inode, socket, reading)
        # Between two polls only some sockets are joined.
        waiting = {inode: row for inode, row in self._ownerless.items() if inode not in dirty}
        rowless = {inode: row for inode, row in self._rowless.items() if inode not in dirty}
        self._ownerless, self._rowless = waiting | ownerless, {**rowless, **resolution.rowless}
        self._is_first = False
        if update.changed:
            self.holdings = update.holdings
        return Joined(frozenset(update.changed), short_lived, gone)

    def _put(self, update: HoldingsUpdate, inode: int, socket: Socket, pids: Iterable[int]) -> None:
        """Put the holdings of a socket, one for each holder, or one without a holder."""
        peers = self._holders.pids_of(socket.peer_inode) if socket.peer_inode else ()
        peer_pid = peers[0] if peers else None
        for pid in pids:
            state = self._holders.processes[pid]
            update.put((pid, inode), socket, state.process, state.held[inode], peer_pid)
        if pids:
            update.remove((None, inode))
        else:
            update.put((None, inode), socket, None, (), peer_pid)

    def _note_published(self, socket: Socket) -> None:
        """Keep the identity of a published socket, so that its end is not taken for that of a
        socket that was never published. The kernel reports the end of IP sockets only."""
        identity = self._identity(socket)
        if identity is not None and socket.family in INET_FAMILIES:
            self._unreported[identity] = None
            drop_oldest(self._unreported, MAX_UNREPORTED)

    def _remember(self, inode: int, socket: Socket, reading: Reading) -> None:
        """Store a socket as it is published."""
        before = self._sockets.get(inode)
        self._sockets[inode] = socket
        if before is None or before.cookie != socket.cookie:
            self._note_published(socket)
        if inode in reading.sockets:
            self._misses.pop(inode, None)
            self._unlisted.discard(inode)
        elif before is not socket:
            self._misses.pop(inode, None)
            self._unlisted.add(inode)
        elif inode not in self._unlisted:
            self._misses[inode] = self._misses.get(inode, 0) + bool(reading.covers(socket))

    def _forget(self, inode: int) -> list[str | None]:
        """Forget a socket; return its protocol if it was published and in no table."""
        before = self._sockets.pop(inode, None)
        unlisted = before is not None and inode in self._unlisted
        self._misses.pop(inode, None)
        self._unlisted.discard(inode)
        return [before.proto] if before is not None and unlisted else []


def _merged(before: Socket, row: Socket) -> Socket:
    """Return the newer row, with the direction that was known while its listener existed."""
    if row is before or row == before:
        return before
    if row.direction != before.direction and (
        before.direction is not None
        and before.state not in _WITHOUT_DIRECTION
        and row.state not in _WITHOUT_DIRECTION
        and before.remote_port == row.remote_port
    ):
        return row._replace(direction=before.direction)
    return row
