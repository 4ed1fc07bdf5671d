"""Keep which process holds which socket, from poll to poll.

It knows nothing of files, asyncio, tables and output.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..model import (
    Key,
    Process,
    Socket,
    StatFingerprint,
    ThreadFds,
    held_by,
)

# Polls for which a process is new: it may still exec, or be moved to its own cgroup.
NEW_POLLS = 5


class ProcessState:
    """One process with what it was last seen to hold.

    ``fds`` maps its descriptors to inodes, 0 for what is no socket; ``held`` inodes to descriptors.
    ``directory`` is the inode of its ``fd`` directory.
    """

    __slots__ = (
        "can_skip",
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
        "readable",
        "searched",
        "shares",
    )

    def __init__(self, process: Process, poll: int, new_until: int) -> None:
        self.process = process
        self.new_until = new_until
        self.changed = poll  # The poll in which what it holds changed last.
        self.searched = 0  # How often it was searched for a socket since, in vain.
        self.directory = 0
        self.glance: StatFingerprint | None = None  # What a read of its stat showed last.
        self.netns = 0
        self.readable = True
        self.failed = False  # Whether the last look at it failed, or showed not all of it.
        self.can_skip = 0  # Turns of the sweep in a row in which its descriptors were passed over.
        self.shares = False  # Whether its table of descriptors is another process's too.
        self.fds: dict[int, int] = {}
        self.more: ThreadFds = ()
        self.held: dict[int, tuple[int, ...]] = {}

    @property
    def threads(self) -> int:
        """How many threads the process had when its stat was read last."""
        return 0 if self.glance is None else self.glance.threads


class Holders:
    """All processes and what they hold. ``touched`` gathers the keys whose holding may differ."""

    def __init__(self) -> None:
        self.watched: dict[int, ProcessState] = {}
        self.touched: set[Key] = set()
        self._pids_of: dict[int, tuple[int, ...]] = {}
        self._poll = 0

    def pids_of(self, inode: int) -> tuple[int, ...]:
        """The processes that hold the socket."""
        return self._pids_of.get(inode, ())

    def begin_poll(self) -> int:
        """Begin another poll; return its number, from 1 on."""
        self._poll += 1
        return self._poll

    def counted_anew(self, known: ProcessState) -> None:
        """Note that a process has another number of descriptors: it is a likely holder."""
        known.changed, known.searched = self._poll, 0

    def shares(self, pid: int) -> None:
        """The process and its parent have one table of descriptors: either changes that of both."""
        known = self.watched[pid]
        known.shares = True
        parent = self.watched.get(known.process.ppid)
        if parent is not None:
            parent.shares = True

    def fds_of(self, gone: Iterable[int]) -> dict[int, Collection[int]]:
        """pid → the descriptors on sockets that left the tables."""
        fds_of: dict[int, list[int]] = {}
        for inode in gone:
            for pid in self.pids_of(inode):
                known = self.watched[pid]
                if known.readable:
                    fds = (fd for fd in known.held[inode] if known.fds.get(fd) == inode)
                    fds_of.setdefault(pid, []).extend(fds)
        return dict(fds_of)

    def candidates_for(self, sockets: Iterable[Socket]) -> list[int]:
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
        self,
        process: Process,
        netns: int,
        directory: int,
        fds: dict[int, int] | None,
        more: ThreadFds,
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
            known = self.watched[process.pid] = ProcessState(process, self._poll, until)
        self.note_process(known, process)
        known.netns, known.directory, known.readable = netns, directory, fds is not None
        known.failed = False
        if fds is None:
            return
        before, known.held = known.held, held_by(fds, more)
        known.fds, known.more = fds, more
        self._note(process.pid, before, known.held)

    def note_process(self, known: ProcessState, process: Process) -> None:
        """Facts of a process that were read again."""
        if known.process != process:
            self.touched.update((process.pid, inode) for inode in known.held)
            known.process = process

    def change(self, pid: int, changes: Mapping[int, int | None]) -> None:
        """What a look at some descriptors showed: descriptor → inode, None for a closed one."""
        if not changes:
            return
        known = self.watched[pid]
        fds = known.fds
        removed: dict[int, set[int]] = {}
        added: dict[int, set[int]] = {}
        for descriptor, inode in changes.items():
            was = fds.get(descriptor, 0)
            if was:
                removed.setdefault(was, set()).add(descriptor)
            if inode is None:
                fds.pop(descriptor, None)
                continue
            fds[descriptor] = inode
            if inode:
                added.setdefault(inode, set()).add(descriptor)
        inodes = removed.keys() | added.keys()
        for descriptor, inode in known.more:  # A thread may have the same number open.
            if inode in inodes:
                added.setdefault(inode, set()).add(descriptor)
        before = {inode: known.held[inode] for inode in inodes if inode in known.held}
        after = {}
        for inode in inodes:
            left = set(before.get(inode, ())).difference(removed.get(inode, ()))
            left.update(added.get(inode, ()))
            if left:
                after[inode] = known.held[inode] = tuple(sorted(left))
            else:
                del known.held[inode]
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
