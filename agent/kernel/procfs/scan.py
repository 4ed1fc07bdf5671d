"""The values that ProcessScanner takes and returns."""

from __future__ import annotations

from collections.abc import Collection
from operator import attrgetter
from typing import NamedTuple

from ...model import Process, StatFingerprint, ThreadFds

_program = attrgetter("comm", "image", "ppid")


class ProcessScan(NamedTuple):
    """One process, its namespace and all its descriptors.

    ``fds`` maps each descriptor to the inode of its socket, 0 for any other file. ``thread_fds``
    are the sockets of threads that do not share the process's descriptor table. Both are empty, and
    ``readable`` is False, when they may not be read. ``netns`` is as in ``ProcFS.netns``.
    ``fd_dir_inode`` is the inode of ``PID/fd``, which differs for another process with the same
    pid. ``malformed`` counts the descriptors that are left out.
    """

    process: Process
    fingerprint: StatFingerprint
    fds: dict[int, int]
    thread_fds: ThreadFds
    readable: bool
    netns: int
    fd_dir_inode: int
    malformed: int = 0


class ScanResult(NamedTuple):
    """The result of a scan of several processes. ``failed`` maps the pids of processes that could
    not be read, or not completely, to the reason."""

    scans: list[ProcessScan]
    failed: dict[int, str]


class FdSummary(NamedTuple):
    """What one stat(2) shows of ``PID/fd``: its inode, and the number of descriptors. The same
    inode means the same process. The same number is no proof that nothing changed: one descriptor
    may have been closed and another opened."""

    fd_dir_inode: int
    fd_count: int


class FdCheck(NamedTuple):
    """A request to check a process whose descriptors were ``fds`` when they were read last.

    ``fds_to_read`` are read again, and also descriptors that are new or closed according to their
    number; None reads no descriptor. ``with_facts``: read the Process and its namespace too.
    ``has_thread_fds``: some threads are known not to share the process's descriptor table.
    """

    pid: int
    fd_dir_inode: int
    fds: dict[int, int]
    fds_to_read: Collection[int] | None
    with_facts: bool = False
    has_thread_fds: bool = False


class FdCheckResult(NamedTuple):
    """The result of one FdCheck. ``changes`` maps the descriptors that changed to the inode of
    their socket, 0 for any other file, None for a closed descriptor. ``process`` and ``netns`` are
    None unless they were requested. ``reads`` is the number of descriptors that were read."""

    pid: int
    changes: dict[int, int | None]
    fingerprint: StatFingerprint
    process: Process | None
    netns: int | None
    reads: int


def is_other_program(before: StatFingerprint | None, after: StatFingerprint | None) -> bool:
    """Return whether a process called execve(2), got another parent or ended in between."""
    return before is None or after is None or _program(before) != _program(after)
