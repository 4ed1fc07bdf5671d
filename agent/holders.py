"""Which process holds which socket, kept from poll to poll; what to look at again and what not.

It plans: from what is cheap to see of each process (the number of its descriptors), from sockets
that left the tables or have no holder, and from a sweep that reads everything in turn, it says
which processes, and which descriptors in them, are to be read. And it keeps what was read. It
knows nothing of files, asyncio, tables and output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from itertools import islice
from typing import NamedTuple

from .model import Key, More, Process, Socket, held_by

# Polls for which a process is new: it may still exec, or be moved to its own cgroup.
NEW_POLLS = 5

# In so many seconds the sweep reads everything again, whatever the evidence says.
SWEEP_SECONDS = 60.0

# In so many polls each process is glanced at once.
GLANCE_POLLS = 10

# Turns of the sweep in a row in which a process that has not run is passed over. There is no way
# known in which its descriptors change meanwhile; were there one, this is how long it goes unseen.
MOST_RESTS = 9


class Turn(NamedTuple):
    """What the sweep is to read of a process: the ``first`` ones, or further ones."""

    fds: list[int]
    first: bool


class Plan(NamedTuple):
    """What a poll reads: some processes as a whole; of others the descriptors in doubt; those that
    it glances at, whether they are still the same program; and those whose turn it is in the sweep,
    which are read unless they rest."""

    whole: list[int]
    parts: dict[int, Collection[int]]
    glances: list[int]
    turns: dict[int, Turn]


class Watched:
    """One process with what it was last seen to hold.

    ``fds`` maps its descriptors to inodes, 0 for what is no socket; ``held`` inodes to descriptors.
    ``directory`` is the inode of its ``fd`` directory.
    """

    __slots__ = (
        "changed",
        "directory",
        "failed",
        "fds",
        "glance",
        "held",
        "more",
        "netns",
        "new_until",
        "process",
        "ran",
        "readable",
        "rests",
        "searched",
        "shares",
    )

    def __init__(self, process: Process, poll: int, new_until: int) -> None:
        self.process = process
        self.new_until = new_until
        self.changed = poll  # The poll in which what it holds changed last.
        self.searched = 0  # How often it was searched for a socket since, in vain.
        self.directory = 0
        self.glance: object = None  # What a read of its stat showed last.
        self.netns = 0
        self.readable = True
        self.failed = False  # Whether the last look at it failed, or showed not all of it.
        self.ran: bytes | None = None  # What showed at its last turn whether it had run.
        self.rests = 0  # Turns in a row in which it was passed over.
        self.shares = False  # Whether its table of descriptors is another process's too.
        self.fds: dict[int, int] = {}
        self.more: More = ()
        self.held: dict[int, tuple[int, ...]] = {}


class Holders:
    """All processes and what they hold. ``touched`` gathers the keys whose holding may differ."""

    def __init__(self) -> None:
        self.watched: dict[int, Watched] = {}
        self.touched: set[Key] = set()
        self._pids_of: dict[int, tuple[int, ...]] = {}
        self._poll = 0
        self._sweep: list[int] = []  # Processes that the sweep has still to read, the next last.
        self._swept = 0  # Descriptors of the next one that it has read.

    def pids_of(self, inode: int) -> tuple[int, ...]:
        """The processes that hold the socket."""
        return self._pids_of.get(inode, ())

    # What to read.

    def plan(self, seen: Mapping[int, tuple[int, int]], budget: int) -> Plan:
        """What is to be read, from what is cheap to see: pid → (directory, descriptors).

        ``budget`` is how many descriptors the sweep may read. Processes that are gone are dropped.
        """
        self._poll += 1
        for pid in self.watched.keys() - seen.keys():
            self.drop(pid)
        whole: list[int] = []
        parts: dict[int, Collection[int]] = {}
        for pid, (directory, count) in seen.items():
            known = self.watched.get(pid)
            if known is None or known.directory != directory or known.more or known.failed:
                whole.append(pid)
            elif known.readable and (len(known.fds) != count or known.new_until > self._poll):
                parts[pid] = ()
                if len(known.fds) != count:
                    known.changed, known.searched = self._poll, 0
        turns = self._plan_sweep(budget, whole)
        glances = [
            pid
            for pid in self.watched
            if pid % GLANCE_POLLS == self._poll % GLANCE_POLLS
            and pid not in parts
            and pid not in turns
        ]
        return Plan(whole, parts, glances, turns)

    def _plan_sweep(self, budget: int, whole: list[int]) -> dict[int, Turn]:
        """What the sweep reads: so many descriptors; a process without any counts as one."""
        turns: dict[int, Turn] = {}
        if not self._sweep:
            self._sweep, self._swept = list(self.watched), 0
        while budget > 0 and self._sweep:
            known = self.watched.get(self._sweep[-1])
            chosen: list[int] = []
            if known is not None and not known.readable:
                whole.append(known.process.pid)  # It may be read by now.
            elif known is not None:
                chosen = list(islice(known.fds, self._swept, self._swept + budget))
                turns[known.process.pid] = Turn(chosen, self._swept == 0)
            self._swept += len(chosen)
            budget -= max(1, len(chosen))
            if known is None or not known.readable or self._swept >= len(known.fds):
                self._sweep.pop()
                self._swept = 0
        return turns

    def rests(self, pid: int, turn: Turn, ran: bytes | None) -> bool:
        """Whether what this turn would read is as it was when it was read last.

        ``ran`` differs when the process has run in between, and is None where there is no telling.
        It was read before the descriptors are: what runs meanwhile shows at the next turn.
        """
        known = self.watched[pid]
        same = ran is not None and ran == known.ran and not known.shares
        if turn.first:
            known.rests = known.rests + 1 if same and known.rests < MOST_RESTS else 0
            known.ran = ran
        return same and known.rests > 0

    def shares(self, pid: int) -> None:
        """The process and its parent have one table of descriptors: either changes that of both."""
        known = self.watched[pid]
        known.shares = True
        parent = self.watched.get(known.process.ppid)
        if parent is not None:
            parent.shares = True

    def suspects(self, gone: Iterable[int]) -> dict[int, Collection[int]]:
        """pid → the descriptors on sockets that left the tables."""
        suspects: dict[int, list[int]] = {}
        for inode in gone:
            for pid in self.pids_of(inode):
                known = self.watched[pid]
                if known.readable:
                    fds = (fd for fd in known.held[inode] if known.fds.get(fd) == inode)
                    suspects.setdefault(pid, []).extend(fds)
        return dict(suspects)

    def likely(self, sockets: Iterable[Socket]) -> list[int]:
        """The readable processes that may hold new sockets, the likeliest first: those that changed
        last, those of the same user; each that was looked at in vain goes to the end."""
        wanted = list(sockets)
        uids = {socket.uid for socket in wanted}
        namespaces = {socket.netns for socket in wanted}
        ranks = [
            (known.searched, -known.changed, known.process.uid not in uids, -pid)
            for pid, known in self.watched.items()
            if known.readable and known.netns in namespaces
        ]
        return [-rank[-1] for rank in sorted(ranks)]

    def failed(self, pid: int) -> None:
        """A look at the process failed: it stands as it was, and is looked at again."""
        known = self.watched.get(pid)
        if known is not None:
            known.failed = True

    def searched(self, pid: int) -> None:
        """The process was looked at whole in search of a socket."""
        known = self.watched.get(pid)
        if known is not None:
            known.searched += 1

    # What was read.

    def take(
        self, process: Process, netns: int, directory: int, fds: dict[int, int] | None, more: More
    ) -> None:
        """What a look at a whole process showed; ``fds`` is None when it was denied, which leaves
        what was known."""
        known = self.watched.get(process.pid)
        if known is not None and known.process.start_ticks != process.start_ticks:
            self.drop(process.pid)
            known = None
        if known is None:
            # What the first poll finds is not new.
            until = self._poll + NEW_POLLS if self._poll > 1 else 0
            known = self.watched[process.pid] = Watched(process, self._poll, until)
        self.note_process(known, process)
        known.netns, known.directory, known.readable = netns, directory, fds is not None
        known.failed = False
        if fds is None:
            return
        before, known.held = known.held, held_by(fds, more)
        known.fds, known.more = fds, more
        self._note(process.pid, before, known.held)

    def note_process(self, known: Watched, process: Process) -> None:
        """Facts of a process that were read again."""
        if known.process != process:
            self.touched.update((process.pid, inode) for inode in known.held)
            known.process = process

    def change(self, pid: int, changes: Mapping[int, int | None]) -> None:
        """What a look at some descriptors showed: descriptor → inode, None for a closed one."""
        if not changes:
            return
        known = self.watched[pid]
        if known.more:
            before, fds = known.held, dict(known.fds)
            for descriptor, inode in changes.items():
                if inode is None:
                    fds.pop(descriptor, None)
                else:
                    fds[descriptor] = inode
            known.fds, known.held = fds, held_by(dict(sorted(fds.items())), known.more)
            self._note(pid, before, known.held)
            return
        inodes = {known.fds.get(fd, 0) for fd in changes} | {new or 0 for new in changes.values()}
        inodes.discard(0)
        before = {inode: known.held[inode] for inode in inodes if inode in known.held}
        for descriptor, inode in changes.items():
            was = known.fds.get(descriptor, 0)
            if was:
                left = tuple(fd for fd in known.held[was] if fd != descriptor)
                if left:
                    known.held[was] = left
                else:
                    del known.held[was]
            if inode is None:
                known.fds.pop(descriptor, None)
                continue
            known.fds[descriptor] = inode
            if inode:
                known.held[inode] = tuple(sorted((*known.held.get(inode, ()), descriptor)))
        after = {inode: known.held[inode] for inode in inodes if inode in known.held}
        self._note(pid, before, after)

    def drop(self, pid: int) -> None:
        """The process is gone."""
        known = self.watched.pop(pid, None)
        if known is not None:
            self._note(pid, known.held, {})

    def forget(self, pid: int, inode: int) -> None:
        """An unreadable process no longer holds the socket: it is gone from the tables."""
        known = self.watched[pid]
        fds = known.held.pop(inode, ())
        for descriptor in fds:
            known.fds.pop(descriptor, None)
        self._note(pid, {inode: fds}, {})

    def _note(
        self,
        pid: int,
        before: Mapping[int, tuple[int, ...]],
        after: Mapping[int, tuple[int, ...]],
    ) -> None:
        known = self.watched.get(pid)
        if known is not None and before != after:
            known.changed, known.searched = self._poll, 0
        pids_of, touched = self._pids_of, self.touched
        for inode, fds in after.items():
            was = before.get(inode)
            if was != fds:
                touched.add((pid, inode))
                if was is None:
                    others = pids_of.get(inode)
                    pids_of[inode] = (pid,) if others is None else (*others, pid)
        for inode in before:
            if inode not in after:
                touched.add((pid, inode))
                others = tuple(other for other in pids_of[inode] if other != pid)
                if others:
                    pids_of[inode] = others
                else:
                    del pids_of[inode]
