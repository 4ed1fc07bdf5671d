"""Which process holds which socket: rows of the tables joined to descriptors, poll after poll.

It remembers what the last polls showed, so that a row that a table skipped, or a reader that
failed, closes nothing. It knows nothing of files, asyncio, clocks and output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from .model import Holding, Key, Owner, Process, Socket

# Polls that a row must be missing from its table before that is believed: the tables skip rows
# while they change.
MISSES_BELIEVED = 2
# States in which a socket has no direction to keep.
_WITHOUT_DIRECTION = frozenset({"LISTEN", "CLOSE", None})


class Held(NamedTuple):
    """What one look at a process showed: inode → descriptors. ``fixed`` when the look failed or
    was denied, so that what was known before still stands."""

    process: Process
    fds: Mapping[int, tuple[int, ...]]
    fixed: bool = False


class Rows(NamedTuple):
    """The rows of all tables of a poll.

    ``frozen`` tells of a socket whether the table that it was last seen in could not be read.
    """

    sockets: Mapping[int, Socket]
    frozen: Callable[[Socket], bool]


class Descriptor(NamedTuple):
    """A descriptor that alone can tell what its socket is."""

    pid: int
    fd: int
    inode: int


class Holders:
    """The join, with what it must remember between polls.

    A poll calls ``keep``, ``resolve`` and ``join``, in this order; ``resolve`` may be called again
    with better rows. Nothing is remembered before ``join``.
    """

    def __init__(self, owner: Callable[[int], Owner]) -> None:
        self._owner = owner
        self._holdings: dict[Key, Holding] = {}
        self._processes: dict[int, Process] = {}
        self._sockets: dict[int, Socket] = {}
        self._unlisted: set[int] = set()
        self._misses: dict[int, int] = {}
        self._awaited: set[int] = set()
        self._first = True
        # Of the poll under way:
        self._new_unlisted: set[int] = set()
        self._new_misses: dict[int, int] = {}

    def keep(self, held: Iterable[Held]) -> list[Held]:
        """The same, with what is known already: processes as they were remembered, and what a
        process held whose descriptors could not be read this time."""
        kept = []
        for one in held:
            known = self._processes.get(one.process.pid)
            if known is None or known.start_ticks != one.process.start_ticks:
                kept.append(one)
                continue
            process = known if known == one.process else one.process
            fds = self._fds_before(process.pid) if one.fixed else one.fds
            kept.append(Held(process, fds, one.fixed))
        return kept

    def _fds_before(self, pid: int) -> dict[int, tuple[int, ...]]:
        return {key[1]: held.fds for key, held in self._holdings.items() if key[0] == pid}

    def process(self, pid: int) -> Process | None:
        """The process as it was at the last poll."""
        return self._processes.get(pid)

    def resolve(
        self, held: Iterable[Held], rows: Rows
    ) -> tuple[dict[int, Socket], list[Descriptor]]:
        """Sockets by inode, and the descriptors that must be asked for those that are missing."""
        sockets: dict[int, Socket] = {}
        asked: dict[int, Descriptor] = {}
        found, known = rows.sockets, self._sockets
        self._new_unlisted, self._new_misses = set(), {}
        for process, fds_of, fixed in held:
            for inode, fds in fds_of.items():
                if inode in sockets:
                    continue
                row, before = found.get(inode), known.get(inode)
                if row is not None:
                    sockets[inode] = row if before is None else _merged(before, row)
                elif before is not None and self._stands(inode, before, rows):
                    sockets[inode] = before
                elif not fixed and inode not in asked:
                    asked[inode] = Descriptor(process.pid, fds[0], inode)
        self._new_unlisted.update(asked)
        return sockets, list(asked.values())

    def _stands(self, inode: int, before: Socket, rows: Rows) -> bool:
        """Whether a held socket that is in no table now is still what it was before."""
        if inode in self._unlisted:
            self._new_unlisted.add(inode)
            return True
        if rows.frozen(before):
            return True
        misses = self._misses.get(inode, 0) + 1
        self._new_misses[inode] = misses
        return misses < MISSES_BELIEVED

    def join(
        self, held: Iterable[Held], sockets: Mapping[int, Socket], rows: Rows
    ) -> dict[Key, Holding]:
        """All holdings of this poll. ``sockets`` are the resolved ones and those that their
        descriptors told of; a descriptor on any other was closed meanwhile."""
        before = self._holdings
        holdings: dict[Key, Holding] = {}
        processes: dict[int, Process] = {}
        seen: set[int] = set()
        for process, fds_of, _fixed in held:
            pid = process.pid
            processes[pid] = process
            for inode, fds in fds_of.items():
                socket = sockets.get(inode)
                if socket is None:
                    continue
                seen.add(inode)
                key = (pid, inode)
                last = before.get(key)
                if (
                    last is None
                    or last[0] is not socket
                    or last[1] is not process
                    or last[2] != fds
                ):
                    last = self.hold(socket, process, fds)
                holdings[key] = last
        self._add_nameless(holdings, seen, rows)
        self._holdings, self._processes, self._first = holdings, processes, False
        self._sockets = {key[1]: holding[0] for key, holding in holdings.items()}
        self._unlisted = self._new_unlisted
        self._misses = self._new_misses
        return holdings

    def _add_nameless(self, holdings: dict[Key, Holding], seen: set[int], rows: Rows) -> None:
        """Add the rows that nobody seems to hold, once a second poll has looked for a holder."""
        awaited: set[int] = set()
        for inode, row in rows.sockets.items():
            if inode in seen:
                continue
            last = self._holdings.get((None, inode))
            if last is None:
                if self._first or inode in self._awaited:
                    holdings[None, inode] = self.hold(row, None, ())
                else:
                    awaited.add(inode)
            else:
                socket = _merged(last.socket, row)
                holdings[None, inode] = (
                    last if socket is last.socket else self.hold(socket, None, ())
                )
        self._awaited = awaited
        for key, last in self._holdings.items():
            pid, inode = key
            if pid is not None or inode in seen or key in holdings:
                continue
            # That its row is missing is all that can be seen of its end.
            if rows.frozen(last.socket):
                holdings[key] = last
                continue
            misses = self._misses.get(inode, 0) + 1
            if misses < MISSES_BELIEVED:
                self._new_misses[inode] = misses
                holdings[key] = last

    def hold(self, socket: Socket, process: Process | None, fds: tuple[int, ...]) -> Holding:
        """A holding with its owner: the socket's, else, where no table tells it, the process's."""
        uid = socket[13]
        if uid is None and process is not None:
            uid = process.uid
        owner = None if uid is None else self._owner(uid)
        return Holding._make((socket, process, fds, owner))


def _merged(before: Socket, row: Socket) -> Socket:
    """The newer row, with the direction that was found out while its listener was there."""
    if row == before:
        return before
    if row.direction != before.direction and (
        before.direction is not None
        and before.state not in _WITHOUT_DIRECTION
        and row.state not in _WITHOUT_DIRECTION
        and before.remote_port == row.remote_port
    ):
        return row._replace(direction=before.direction)
    return row
