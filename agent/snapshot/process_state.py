"""One process: its newest facts, and the sockets that its descriptors refer to.

Pure: no files, no clock, no asyncio.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..model import Process, StatFingerprint, ThreadFds, held_by

# Inode → the descriptors on that socket, ascending.
FdsByInode = Mapping[int, tuple[int, ...]]
_NO_FDS: FdsByInode = {}


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

    __slots__ = (
        "changed_in",
        "directory",
        "failed",
        "fds",
        "held",
        "netns",
        "new_until",
        "process",
        "readable",
        "searches",
        "shares_fds",
        "stat",
        "thread_fds",
    )

    def __init__(self, process: Process, poll: int, new_until: int) -> None:
        self.process = process
        self.new_until = new_until
        self.changed_in = poll
        self.searches = 0
        self.directory = 0
        self.stat: StatFingerprint | None = None
        self.netns = 0
        self.readable = True
        self.failed = False
        self.shares_fds = False
        self.fds: dict[int, int] = {}
        self.thread_fds: ThreadFds = ()
        self.held: dict[int, tuple[int, ...]] = {}

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
        """Apply changes: descriptor → inode, None for a descriptor that was closed.

        Return what was held before and after, of the inodes that the changes concern.
        """
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
