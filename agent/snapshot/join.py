"""Sockets joined to their holders: the holdings of a poll, from what changed since the one before.

It decides what a socket is that no table shows (any more), and which sockets are told of without a
holder. It knows nothing of files, asyncio, clocks and output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from ..bounded import drop_oldest
from ..model import (
    INET_FAMILIES,
    MAX_LISTED_FDS,
    CgroupInfo,
    Holding,
    Key,
    Owner,
    Process,
    Socket,
)
from .holders import Holders

# Readings that a row must be missing from its table before that is believed: the tables skip rows
# while they change.
MISSES_BELIEVED = 2
# Sockets in no table whose descriptors are read again in each poll, at the most; 5 µs each.
MOST_UNLISTED = 200
# Cookies of published sockets whose end was not reported yet; 60 bytes each.
MAX_COOKIES = 250_000
# States in which a socket has no direction to keep.
_WITHOUT_DIRECTION = frozenset({"LISTEN", "CLOSE", None})

# Whether the tables that should list such a socket were read in this poll; None when none does.
Covers = Callable[[Socket], bool | None]


class Descriptor(NamedTuple):
    """A descriptor that alone can tell what its socket is."""

    pid: int
    fd: int
    inode: int


class Join:
    """The holdings, poll after poll.

    ``rows`` are the sockets of all tables as they were last read, by inode. ``owner`` names a user
    id, ``place`` what a cgroup's inode stands for. ``missed`` are holdings that ended before they
    were published, and ``ended_unlisted`` counts the sockets in no table that went, by protocol:
    both of the newest poll.
    """

    def __init__(
        self,
        holders: Holders,
        rows: Mapping[int, Socket],
        owner: Callable[[int], Owner],
        place: Callable[[int], CgroupInfo | None] = lambda _cgroup: None,
    ) -> None:
        self._holders = holders
        self._rows = rows
        self._owner = owner
        self._place = place
        self.holdings: Mapping[Key, Holding] = {}
        self.missed: list[Holding] = []
        self.ended_unlisted: Counter[str | None] = Counter()
        self._sockets: dict[int, Socket] = {}  # As they are published, by inode.
        self._unlisted: set[int] = set()  # Held ones of which only their descriptors told.
        self._misses: dict[int, int] = {}  # How often the row of a published one was missing.
        self._awaited: dict[int, Socket] = {}  # Rows that wait one poll for a holder.
        # Held ones that wait for a row: what their descriptors showed.
        self._rowless: dict[int, Socket] = {}
        self._waiting: dict[int, Socket] = {}  # Of the poll under way: the next ``_rowless``.
        self._cookies: dict[int, None] = {}  # Of published sockets whose end was not reported.
        self._turn = 0  # Where the next of the unlisted ones begin.
        self._first = True

    def doubted(self) -> list[Socket]:
        """Return sockets whose tables are to be read, whatever the counters say: those that wait
        for a row or a holder, lost their row, or lost their last holder."""
        rows, pids_of = self._rows, self._holders.pids_of
        left = {inode for _pid, inode in self._holders.touched if not pids_of(inode)}
        doubted = [rows[inode] for inode in left if inode in rows]
        doubted += [self._sockets[inode] for inode in self._misses]
        return [*doubted, *self._awaited.values(), *self._rowless.values()]

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

    def take_ended(self, ended: Mapping[int, Socket]) -> None:
        """Take in sockets that ended, by inode; to be called while their holders are still known.

        Those that were not published are ``missed``.
        """
        self.missed = []
        self.ended_unlisted.clear()
        watched, pids_of = self._holders.watched, self._holders.pids_of
        for inode, row in ended.items():
            published = inode in self._sockets
            if row.cookie is not None and row.cookie in self._cookies:
                del self._cookies[row.cookie]
                published = True
            self._awaited.pop(inode, None)
            self._rowless.pop(inode, None)
            if published:
                continue
            for pid in pids_of(inode):
                known = watched[pid]
                self.missed.append(self.hold(row, known.process, known.held[inode]))
            if not pids_of(inode):
                self.missed.append(self.hold(row, None, ()))

    def dirty(self, changed: Iterable[int]) -> set[int]:
        """The sockets to be joined anew: those ``changed``, and those that are in doubt."""
        dirty = {inode for _pid, inode in self._holders.touched}
        # Who holds a socket is published with its peer.
        known = self._sockets
        peers = {known[inode].peer_inode for inode in dirty if inode in known}
        dirty.update(peer for peer in peers if peer in known)
        return dirty.union(changed, self._misses, self._awaited, self._rowless)

    def unknown(
        self, dirty: Iterable[int], covers: Covers, ended: Container[int]
    ) -> list[Descriptor]:
        """Return the descriptors to be asked what their sockets are: no table shows them."""
        rows, pids_of, watched = self._rows, self._holders.pids_of, self._holders.watched
        asked = []
        for inode in dirty:
            if inode in rows or inode in ended:
                continue
            before = self._sockets.get(inode)
            if before is not None and not self._is_lost(inode, before, covers):
                continue
            pids = pids_of(inode)
            if pids:
                pid = next((pid for pid in pids if watched[pid].readable), pids[0])
                asked.append(Descriptor(pid, watched[pid].held[inode][0], inode))
        return asked

    def _is_lost(self, inode: int, before: Socket, covers: Covers) -> bool:
        """Whether the row of a published socket was missing often enough."""
        if inode in self._unlisted:
            return False
        return self._misses.get(inode, 0) + bool(covers(before)) >= MISSES_BELIEVED

    def resolve(
        self,
        dirty: Iterable[int],
        answers: Mapping[int, Socket],
        covers: Covers,
        ended: Container[int] = (),
    ) -> dict[int, Socket]:
        """What the ``dirty`` sockets are, as far as they are published.

        ``answers`` is what the descriptors of the unknown ones showed; ``covers`` whether the
        tables of a socket were read in this poll; ``ended`` are those that are known to be gone.
        """
        sockets: dict[int, Socket] = {}
        waiting: dict[int, Socket] = {}
        rows, known = self._rows, self._sockets
        for inode in dirty:
            if inode in ended:
                continue
            row, before = rows.get(inode), known.get(inode)
            if row is not None:
                sockets[inode] = row if before is None else _merged(before, row)
            elif before is not None and not self._is_lost(inode, before, covers):
                sockets[inode] = before
            elif (answer := answers.get(inode)) is not None:
                # It may have been opened while the tables were read: the next reading shows it, or
                # it is in none.
                waits = before is None and not self._first and covers(answer) is not None
                if waits and not (inode in self._rowless and covers(answer)):
                    waiting[inode] = answer
                else:  # Its holder's namespace need not be the one in which it was opened.
                    sockets[inode] = answer._replace(netns=None)
            elif self._holders.pids_of(inode):  # The descriptor that was asked leads elsewhere now.
                waiting[inode] = Socket(inode, None, None, None, None)
        self._waiting = waiting
        return sockets

    def finish(
        self, dirty: AbstractSet[int], sockets: Mapping[int, Socket], covers: Covers
    ) -> frozenset[Key]:
        """Bring the holdings up to date; the keys of those that changed.

        ``sockets`` are the resolved ones with those that their descriptors told of.
        """
        holders = self._holders
        touched = {key for key in holders.touched if key[1] in dirty}
        holders.touched -= touched  # What was found since is for the next poll.
        update = _Update(self.holdings, self.hold)
        put = update.put
        for key in touched:
            if key[0] not in holders.pids_of(key[1]):
                update.remove(key)
        awaited: dict[int, Socket] = {}
        for inode in dirty:
            socket, pids = sockets.get(inode), holders.pids_of(inode)
            keys: list[Key] = [(pid, inode) for pid in pids] or [(None, inode)]
            waits = not pids and self._waits(inode)
            if socket is None or (not pids and self._is_gone(inode)):
                for key in (*keys, (None, inode)):
                    update.remove(key)
                if inode in self._awaited and not (
                    inode in self._waiting or inode in self._sockets
                ):
                    self._miss(self._awaited[inode])
                self._forget(inode)
            elif waits:
                awaited[inode] = socket
            else:
                peer = self._peer_pid(socket)
                for pid in pids:
                    known = holders.watched[pid]
                    put((pid, inode), socket, known.process, known.held[inode], peer)
                if pids:
                    update.remove((None, inode))
                else:
                    put((None, inode), socket, None, (), peer)
                self._remember(inode, socket, covers)
        self._awaited, self._rowless = awaited, self._waiting
        self._first = False
        if update.changed:
            self.holdings = update.holdings
        return frozenset(update.changed)

    def _miss(self, row: Socket) -> None:
        """Note a row that was read, found no holder, and is gone: it came and went."""
        self.missed.append(self.hold(row, None, ()))
        self._note_cookie(row)

    def _note_cookie(self, socket: Socket) -> None:
        """Note a socket that is published, so that its end is not taken for another's. The kernel
        reports the ends of IP sockets only."""
        if socket.cookie is not None and socket.family in INET_FAMILIES:
            self._cookies[socket.cookie] = None
            drop_oldest(self._cookies, MAX_COOKIES)

    def _is_gone(self, inode: int) -> bool:
        """Whether a socket without a holder, not published so before, has no row either."""
        return inode not in self._rows and not self._is_nameless(inode)

    def _waits(self, inode: int) -> bool:
        """Whether a socket without a holder is not to be told of yet: the next poll looks again."""
        told = self._is_nameless(inode) or inode in self._awaited
        return not told and not self._first

    def _is_nameless(self, inode: int) -> bool:
        """Return whether the socket is published without a holder."""
        return (None, inode) in self.holdings

    def _remember(self, inode: int, socket: Socket, covers: Covers) -> None:
        known = self._sockets.get(inode)
        self._sockets[inode] = socket
        if known is None or known.cookie != socket.cookie:
            self._note_cookie(socket)
        if inode in self._rows:
            self._misses.pop(inode, None)
            self._unlisted.discard(inode)
        elif known is not socket:
            self._misses.pop(inode, None)
            self._unlisted.add(inode)
        elif inode not in self._unlisted:
            self._misses[inode] = self._misses.get(inode, 0) + bool(covers(socket))

    def _forget(self, inode: int) -> None:
        known = self._sockets.pop(inode, None)
        if known is not None and inode in self._unlisted:
            self.ended_unlisted[known.proto] += 1
        self._misses.pop(inode, None)
        self._unlisted.discard(inode)

    def hold(
        self,
        socket: Socket,
        process: Process | None,
        fds: tuple[int, ...],
        peer_pid: int | None = None,
    ) -> Holding:
        """A holding with its owner: the socket's, else, where no table tells it, the process's.
        ``fds`` are all of the process's descriptors on the socket, ascending."""
        uid = socket[13]
        if uid is None and process is not None:
            uid = process.uid
        owner = None if uid is None else self._owner(uid)
        place = None
        if process is None and socket.cgroup_id is not None:
            place = self._place(socket.cgroup_id)
        omitted = 0
        if len(fds) > MAX_LISTED_FDS:
            fds, omitted = fds[:MAX_LISTED_FDS], len(fds) - MAX_LISTED_FDS
        return Holding._make((socket, process, fds, owner, peer_pid, place, omitted))

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
            or last[6]
        ):
            holding = self._hold(socket, process, fds, peer_pid)
            if holding != last:  # More descriptors than a holding lists may be the same ones.
                self.holdings[key] = holding
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
