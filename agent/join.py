"""Sockets joined to their holders: the holdings of a poll, from what changed since the one before.

It decides what a socket is that no table shows (any more), and which sockets are told of without a
holder. It knows nothing of files, asyncio, clocks and output.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping
from typing import NamedTuple

from .holders import Holders
from .model import Holding, Key, Owner, Place, Process, Socket

# Readings that a row must be missing from its table before that is believed: the tables skip rows
# while they change.
MISSES_BELIEVED = 2
# Sockets in no table whose descriptors are read again in each poll, at the most; 5 µs each.
MOST_UNLISTED = 200
# States in which a socket has no direction to keep.
_WITHOUT_DIRECTION = frozenset({"LISTEN", "CLOSE", None})


class Descriptor(NamedTuple):
    """A descriptor that alone can tell what its socket is."""

    pid: int
    fd: int
    inode: int


class Join:
    """The holdings, poll after poll.

    A poll calls ``resolve`` and then ``finish``; ``resolve`` may be called again with better rows.
    ``rows`` are the sockets of all tables as they were last read, by inode. ``owner`` names a user
    id, ``place`` what a cgroup's inode stands for.
    """

    def __init__(
        self,
        holders: Holders,
        rows: Mapping[int, Socket],
        owner: Callable[[int], Owner],
        place: Callable[[int], Place | None] = lambda _cgroup: None,
    ) -> None:
        self._holders = holders
        self._rows = rows
        self._owner = owner
        self._place = place
        self.holdings: Mapping[Key, Holding] = {}
        self._sockets: dict[int, Socket] = {}  # As they are told, by inode.
        self._unlisted: set[int] = set()  # Held ones of which only their descriptors told.
        self._misses: dict[int, int] = {}  # How often the row of a told one was missing.
        self._awaited: set[int] = set()  # Rows that wait one poll for a holder.
        # Held ones that wait for a row; whether that takes reading all the tables.
        self._rowless: dict[int, bool] = {}
        self._waiting: dict[int, bool] = {}  # Of the poll under way: the next ``_rowless``.
        self._turn = 0  # Where the next of them begin.
        self._first = True

    @property
    def doubts(self) -> bool:
        """Whether all tables are to be read, whatever the evidence says: a row is missing."""
        return bool(self._misses) or any(self._rowless.values())

    def unlisted(self) -> list[int]:
        """Some of the sockets that no table shows, others each time: that one is closed while
        another descriptor is opened shows nowhere but in its descriptor."""
        every = sorted(self._unlisted)
        if len(every) <= MOST_UNLISTED:
            return every
        start = self._turn % len(every)
        self._turn += MOST_UNLISTED
        return (every + every)[start : start + MOST_UNLISTED]

    def orphans(self) -> list[int]:
        """The sockets that wait for a holder, and have none yet."""
        pids_of = self._holders.pids_of
        return [inode for inode in self._awaited if inode in self._rows and not pids_of(inode)]

    def dirty(self, changed: Iterable[int]) -> set[int]:
        """The sockets to be joined anew: those ``changed``, and those that are in doubt."""
        dirty = {inode for _pid, inode in self._holders.touched}
        # Who holds a socket is told with its peer.
        known = self._sockets
        peers = {known[inode].peer_inode for inode in dirty if inode in known}
        dirty.update(peer for peer in peers if peer in known)
        return dirty.union(changed, self._misses, self._awaited, self._rowless)

    def resolve(
        self, dirty: Iterable[int], *, read: bool, late: Container[int] = ()
    ) -> tuple[dict[int, Socket], list[Descriptor]]:
        """What the ``dirty`` sockets are; and the descriptors to be asked for those not known.

        ``read``: whether all tables were read in this poll. ``late`` are those found behind that.
        """
        sockets: dict[int, Socket] = {}
        asked: list[Descriptor] = []
        waiting: dict[int, bool] = {}
        rows, known, pids_of = self._rows, self._sockets, self._holders.pids_of
        for inode in dirty:
            row, before = rows.get(inode), known.get(inode)
            if row is not None:
                sockets[inode] = row if before is None else _merged(before, row)
            elif before is not None and (
                inode in self._unlisted or self._misses.get(inode, 0) + read < MISSES_BELIEVED
            ):
                sockets[inode] = before
            else:
                pids = pids_of(inode)
                if (
                    pids
                    and before is None
                    and not self._first
                    and (inode not in self._rowless or not read)
                ):
                    # It was opened while the tables were read: the next reading shows it, or not.
                    # What was found behind the reading has moved the counters that lead to it.
                    waiting[inode] = inode in self._rowless or inode not in late
                elif pids:
                    watched = self._holders.watched
                    pid = next((pid for pid in pids if watched[pid].readable), pids[0])
                    asked.append(Descriptor(pid, watched[pid].held[inode][0], inode))
        self._waiting = waiting
        return sockets, asked

    def finish(
        self, dirty: Iterable[int], sockets: Mapping[int, Socket], *, read: bool
    ) -> frozenset[Key]:
        """Bring the holdings up to date; the keys of those that changed.

        ``sockets`` are the resolved ones with those that their descriptors told of.
        """
        holders = self._holders
        touched, holders.touched = holders.touched, set()
        update = _Update(self.holdings, self.hold)
        put = update.put
        for key in touched:
            if key[0] not in holders.pids_of(key[1]):
                update.remove(key)
        awaited: set[int] = set()
        for inode in dirty:
            socket, pids = sockets.get(inode), holders.pids_of(inode)
            keys: list[Key] = [(pid, inode) for pid in pids] or [(None, inode)]
            waits = not pids and self._waits(inode)
            if socket is None or (waits and inode not in self._rows):
                for key in (*keys, (None, inode)):
                    update.remove(key)
                self._forget(inode)
            elif waits:
                awaited.add(inode)
            else:
                peer = self._peer_pid(socket)
                for pid in pids:
                    known = holders.watched[pid]
                    put((pid, inode), socket, known.process, known.held[inode], peer)
                if pids:
                    update.remove((None, inode))
                else:
                    put((None, inode), socket, None, (), peer)
                self._remember(inode, socket, read=read)
        self._awaited, self._rowless = awaited, self._waiting
        self._first = False
        if update.changed:
            self.holdings = update.holdings
        return frozenset(update.changed)

    def _waits(self, inode: int) -> bool:
        """Whether a socket without a holder is not to be told of yet: the next poll looks again."""
        told = (None, inode) in self.holdings or inode in self._awaited
        return not told and not self._first

    def _remember(self, inode: int, socket: Socket, *, read: bool) -> None:
        known = self._sockets.get(inode)
        self._sockets[inode] = socket
        if inode in self._rows:
            self._misses.pop(inode, None)
            self._unlisted.discard(inode)
        elif known is not socket:
            self._misses.pop(inode, None)
            self._unlisted.add(inode)
        elif inode not in self._unlisted:
            self._misses[inode] = self._misses.get(inode, 0) + read

    def _forget(self, inode: int) -> None:
        self._sockets.pop(inode, None)
        self._misses.pop(inode, None)
        self._unlisted.discard(inode)

    def hold(
        self,
        socket: Socket,
        process: Process | None,
        fds: tuple[int, ...],
        peer_pid: int | None = None,
    ) -> Holding:
        """A holding with its owner: the socket's, else, where no table tells it, the process's."""
        uid = socket[13]
        if uid is None and process is not None:
            uid = process.uid
        owner = None if uid is None else self._owner(uid)
        place = None
        if process is None and socket.cgroup_id is not None:
            place = self._place(socket.cgroup_id)
        return Holding._make((socket, process, fds, owner, peer_pid, place))

    def _peer_pid(self, socket: Socket) -> int | None:
        pids = self._holders.pids_of(socket.peer_inode) if socket.peer_inode else ()
        return pids[0] if pids else None


class _Update:
    """Holdings being changed; the old ones stay as they were."""

    def __init__(self, holdings: Mapping[Key, Holding], hold: Callable[..., Holding]) -> None:
        self.holdings = dict(holdings)
        self.changed: set[Key] = set()
        self._hold = hold

    def put(
        self,
        key: Key,
        socket: Socket,
        process: Process | None,
        fds: tuple[int, ...],
        peer_pid: int | None,
    ) -> None:
        last = self.holdings.get(key)
        if (
            last is None
            or last[0] is not socket
            or last[1] is not process
            or last[2] != fds
            or last[4] != peer_pid
        ):
            self.holdings[key] = self._hold(socket, process, fds, peer_pid)
            self.changed.add(key)

    def remove(self, key: Key) -> None:
        if self.holdings.pop(key, None) is not None:
            self.changed.add(key)


def _merged(before: Socket, row: Socket) -> Socket:
    """The newer row, with the direction that was found out while its listener was there."""
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
