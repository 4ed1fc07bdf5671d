"""All processes and the sockets that they hold, from poll to poll.

Pure: no files, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..model import HoldingKey, Process, Socket, StatFingerprint, ThreadFds, held_by

# Polls for which a process is new: it may still exec, or be moved to its own cgroup.
NEW_POLLS = 5

# Inode → the descriptors on that socket, ascending.
FdsByInode = Mapping[int, tuple[int, ...]]
_NO_FDS: FdsByInode = {}


@dataclass(slots=True, eq=False)
class ProcessState:
    """The state of one process; only ``Holders`` calls the methods that change it.

    ``fds`` maps descriptors to the inodes of their sockets, 0 for a file that is no socket.
    ``thread_fds`` are the descriptors of threads with descriptor tables of their own. ``held`` maps
    the inodes of both to descriptors. ``directory`` is the inode of ``/proc/PID/fd``.
    ``changed_in`` is the poll in which ``held`` changed last, ``searches`` how often the process
    was searched in vain for the holder of a new socket since then. ``failed`` means that the last
    scan failed or was incomplete. ``shares_fds`` means that another process uses the same
    descriptor table. The process counts as new until poll ``new_until``.
    """

    process: Process
    changed_in: int
    new_until: int
    searches: int = 0
    directory: int = 0
    stat: StatFingerprint | None = None
    netns: int = 0
    readable: bool = True
    failed: bool = False
    shares_fds: bool = False
    fds: dict[int, int] = field(default_factory=dict)
    thread_fds: ThreadFds = ()
    held: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def threads(self) -> int:
        """Return the number of threads when ``/proc/PID/stat`` was read last; 0 if unknown."""
        return 0 if self.stat is None else self.stat.threads

    def set_facts(
        self, process: Process | None, netns: int | None, stat: StatFingerprint | None
    ) -> bool:
        """Set the facts that are not None; return whether ``process`` changed."""
        changed = process is not None and process != self.process
        if process is not None and changed:
            self.process = process
        if netns is not None:
            self.netns = netns
        if stat is not None:
            self.stat = stat
        return changed

    def set_scanned(self, directory: int, *, readable: bool) -> None:
        """Record that a scan of the whole process succeeded."""
        self.directory, self.readable, self.failed = directory, readable, False

    def set_failed(self) -> None:
        """Record that a scan failed: the process is scanned again."""
        self.failed = True

    def set_shares_fds(self) -> None:
        """Record that another process uses the same descriptor table."""
        self.shares_fds = True

    def set_changed(self, poll: int) -> None:
        """Record that what the process holds changed in this poll."""
        self.changed_in, self.searches = poll, 0

    def add_search(self) -> None:
        """Record that the process was searched for the holder of a new socket."""
        self.searches += 1

    def replace_fds(self, fds: dict[int, int], thread_fds: ThreadFds) -> FdsByInode:
        """Replace all descriptors; return what was held before."""
        before, self.held = self.held, held_by(fds, thread_fds)
        self.fds, self.thread_fds = fds, thread_fds
        return before

    def update_fds(self, changes: Mapping[int, int | None]) -> tuple[FdsByInode, FdsByInode]:
        """Apply changes: descriptor → inode, None for a descriptor that was closed. Return what was
        held before and after, of the inodes that the changes concern."""
        fds = self.fds
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
        for descriptor, inode in self.thread_fds:  # A thread may use the same number.
            if inode in inodes:
                added.setdefault(inode, set()).add(descriptor)
        before = {inode: self.held[inode] for inode in inodes if inode in self.held}
        after = {}
        for inode in inodes:
            remaining = set(before.get(inode, ())).difference(removed.get(inode, ()))
            remaining.update(added.get(inode, ()))
            if remaining:
                after[inode] = self.held[inode] = tuple(sorted(remaining))
            else:
                del self.held[inode]
        return before, after

    def remove_socket(self, inode: int) -> FdsByInode:
        """Remove a socket and its descriptors; return what was held of it."""
        fds = self.held.pop(inode, None)
        if fds is None:
            return _NO_FDS
        for descriptor in fds:
            self.fds.pop(descriptor, None)
        return {inode: fds}


class Holders:
    """The state of every process, by pid, and the processes that hold each socket."""

    def __init__(self) -> None:
        self.processes: dict[int, ProcessState] = {}
        self._changes: set[HoldingKey] = set()
        self._pids_of: dict[int, tuple[int, ...]] = {}
        self._poll = 0

    # Queries.

    def pids_of(self, inode: int) -> tuple[int, ...]:
        """Return the processes that hold the socket."""
        return self._pids_of.get(inode, ())

    def fds_of(self, inodes: Iterable[int]) -> dict[int, Collection[int]]:
        """Return pid → the descriptors of readable processes on these sockets."""
        fds_of: dict[int, list[int]] = {}
        for inode in inodes:
            for pid in self.pids_of(inode):
                state = self.processes[pid]
                if state.readable:
                    fds = (fd for fd in state.held[inode] if state.fds.get(fd) == inode)
                    fds_of.setdefault(pid, []).extend(fds)
        return dict(fds_of)

    def candidates_for(self, sockets: Iterable[Socket]) -> list[int]:
        """Return the readable processes that may hold new sockets, the most likely first. Those
        come first that were searched in vain the least, changed last, and belong to the user of one
        of the sockets."""
        wanted = list(sockets)
        uids = {socket.uid for socket in wanted}
        namespaces = {socket.netns for socket in wanted}
        ranks = [
            (state.searches, -state.changed_in, state.process.uid not in uids, -pid)
            for pid, state in self.processes.items()
            if state.readable and state.netns in namespaces
        ]
        return [-rank[-1] for rank in sorted(ranks)]

    def take_changes(self) -> set[HoldingKey]:
        """Return the keys whose holding may have changed since the last call."""
        changes, self._changes = self._changes, set()
        return changes

    # Changes.

    def begin_poll(self) -> int:
        """Begin another poll; return its number, from 1 on."""
        self._poll += 1
        return self._poll

    def mark_changed(self, pid: int) -> None:
        """Record that the number of the process's descriptors changed: it is a likely holder."""
        self.processes[pid].set_changed(self._poll)

    def mark_shared(self, pid: int) -> None:
        """Record that a process and its parent use one descriptor table: both change it."""
        state = self.processes[pid]
        state.set_shares_fds()
        parent = self.processes.get(state.process.ppid)
        if parent is not None:
            parent.set_shares_fds()

    def mark_failed(self, pid: int) -> None:
        """Record that a scan of the process failed: its state stays, and it is scanned again."""
        state = self.processes.get(pid)
        if state is not None:
            state.set_failed()

    def mark_searched(self, pid: int) -> None:
        """Record that the process was searched for the holder of a new socket."""
        state = self.processes.get(pid)
        if state is not None:
            state.add_search()

    def set_scan(
        self,
        process: Process,
        netns: int,
        directory: int,
        fds: dict[int, int] | None,
        thread_fds: ThreadFds = (),
        stat: StatFingerprint | None = None,
    ) -> None:
        """Record a scan of a whole process; ``fds`` is None if its descriptors may not be read. In
        that case the sockets that the process held stay as they were."""
        pid = process.pid
        state = self.processes.get(pid)
        if state is not None and state.process.start_ticks != process.start_ticks:
            self.drop(pid)
            state = None
        if state is None:
            # Processes that the first poll finds are not new.
            until = self._poll + NEW_POLLS if self._poll > 1 else 0
            state = self.processes[pid] = ProcessState(process, self._poll, until)
        self.set_facts(pid, process=process, netns=netns, stat=stat)
        state.set_scanned(directory, readable=fds is not None)
        if fds is not None:
            self._note(pid, state.replace_fds(fds, thread_fds), state.held)

    def set_facts(
        self,
        pid: int,
        *,
        process: Process | None = None,
        netns: int | None = None,
        stat: StatFingerprint | None = None,
    ) -> None:
        """Set the facts of a process that are not None."""
        state = self.processes[pid]
        if state.set_facts(process, netns, stat):
            self._changes.update((pid, inode) for inode in state.held)

    def update_fds(self, pid: int, changes: Mapping[int, int | None]) -> None:
        """Apply changes of descriptors: descriptor → inode, None for one that was closed."""
        if changes:
            self._note(pid, *self.processes[pid].update_fds(changes))

    def drop(self, pid: int) -> None:
        """Drop a process that is gone."""
        state = self.processes.pop(pid, None)
        if state is not None:
            self._note(pid, state.held, {})

    def remove_socket(self, pid: int, inode: int) -> None:
        """Remove a socket that is gone from a process whose descriptors are not read."""
        self._note(pid, self.processes[pid].remove_socket(inode), {})

    def _note(self, pid: int, before: FdsByInode, after: FdsByInode) -> None:
        """Record the difference of what a process held ``before`` and holds ``after``."""
        state = self.processes.get(pid)
        if state is not None and before != after:
            state.set_changed(self._poll)
        pids_of, changes = self._pids_of, self._changes
        for inode, fds in after.items():
            was = before.get(inode)
            if was != fds:
                changes.add((pid, inode))
                if was is None:
                    others = pids_of.get(inode)
                    pids_of[inode] = (pid,) if others is None else (*others, pid)
        for inode in before:
            if inode not in after:
                changes.add((pid, inode))
                others = tuple(other for other in pids_of[inode] if other != pid)
                if others:
                    pids_of[inode] = others
                else:
                    del pids_of[inode]
