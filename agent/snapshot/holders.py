"""All processes and the sockets that they hold, from poll to poll.

Pure: no files, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from ..model import HoldingKey, Process, Socket, StatFingerprint, ThreadFds
from .process_state import FdsByInode, ProcessState

# Polls for which a process is new: it may still exec, or be moved to its own cgroup.
NEW_POLLS = 5


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
        """Return the readable processes that may hold new sockets, the most likely first.

        Those come first that were searched in vain the least, changed last, and belong to the
        user of one of the sockets.
        """
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
        """Record a scan of a whole process; ``fds`` is None if its descriptors may not be read.

        In that case the sockets that the process held stay as they were.
        """
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
