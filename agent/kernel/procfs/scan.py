"""What ProcessScanner takes and returns: values only."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from ...model import Process, StatFingerprint


class ProcessScan(NamedTuple):
    """What one look at a process showed.

    ``fds`` maps its descriptors to the inodes of their sockets, 0 for what is no socket; ``more``
    are (descriptor, inode) of threads with descriptor tables of their own. ``readable`` is False
    when they may not be read. ``netns`` is the inode of its network namespace; negative when that
    may not be read: then it only tells namespaces apart. ``directory`` is the inode of ``PID/fd``,
    which another process with the same pid has not. ``malformed`` counts descriptors passed over.
    """

    process: Process
    fingerprint: StatFingerprint
    fds: dict[int, int]
    thread_fds: tuple[tuple[int, int], ...]
    readable: bool
    netns: int
    fd_dir_inode: int
    malformed: int = 0


class ScanResult(NamedTuple):
    """What a walk showed; ``failed`` says of processes that could not be looked at, or not at all
    of which, why not."""

    scans: list[ProcessScan]
    failed: dict[int, str]


class FdSummary(NamedTuple):
    """What is cheap to see of a process: the inode of ``PID/fd``, and how many descriptors it has.

    The same inode is the same process. The same number is a hint only: one may have been closed
    and another opened.
    """

    fd_dir_inode: int
    fd_count: int


class FdCheck(NamedTuple):
    """What to look at again in a process whose descriptors were ``fds``: the ``suspects``, and what
    its number of descriptors shows to be new or gone; nothing of them where there are no suspects
    but None. ``facts``: its facts too. ``separate``: some of its threads are known to have tables
    of their own."""

    pid: int
    fd_dir_inode: int
    fds: dict[int, int]
    fds_to_read: Collection[int] | None
    with_facts: bool = False
    has_thread_fds: bool = False


class FdCheckResult(NamedTuple):
    """What a check showed: descriptor → inode, 0 for what is no socket, None for what is closed;
    only what is not as it was. The facts are None if they were not asked for."""

    pid: int
    changes: dict[int, int | None]
    fingerprint: StatFingerprint
    process: Process | None
    netns: int | None
    reads: int


def is_other_program(was: StatFingerprint | None, now: StatFingerprint | None) -> bool:
    """Return whether a process exec'ed or got another parent between two glances, or is gone."""
    return was is None or now is None or was[:3] != now[:3]
