"""Read processes: what ``stat``, ``cgroup`` and ``exe`` show, and their descriptors.

All functions block. Processes are read in batches, with one call in a thread for each batch: a call
for each descriptor would cost ten times the system call. All files of a process are opened
relative to its open directory, which never leads to a later process with the same pid.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from ...model import Process, StatFingerprint, ThreadFds
from .fd import read_fds, recheck_fds
from .files import (
    DENIED_ERRNOS,
    GONE_ERRNOS,
    ProcessGone,
    Progress,
    open_directory,
    read,
    read_link,
    read_or_empty,
)
from .kcmp import threads_with_own_fds
from .mount import ProcFS
from .scan import FdCheck, FdCheckResult, FdSummary, ProcessScan, ScanResult
from .stat import ProcessStat, parse_cgroup, parse_cmdline, parse_stat

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_DEAD_STATES = ("Z", "X")  # Zombie, dead.
CMDLINE = "cmdline"  # (CMDLINE, pid) is the place of a command line in ``Progress``.

_cgroup_of = lru_cache(maxsize=4096)(parse_cgroup)  # Processes of one service share the text.


class _FdListing(NamedTuple):
    """The descriptors of a process or thread; the fields are as in ProcessScan."""

    fds: dict[int, int]
    readable: bool
    malformed: int


class _ScanNeeded(Exception):
    """Only a scan of the whole process can show what changed."""


class ProcessScanner:
    """Reads the processes of a procfs; with ``cmdline``, also their command lines."""

    def __init__(self, procfs: ProcFS, *, cmdline: bool = False) -> None:
        self.procfs = procfs
        self._root = procfs.root
        self._cmdline = cmdline
        self._boot_ticks = round(procfs.boot_time() * _TICKS_PER_SECOND)
        # Since Linux 6.2 the size of PID/fd is the number of open descriptors; before, it is 0.
        self._has_fd_counts = _has_fd_counts(procfs.root)

    def scan(self, pids: Iterable[int], progress: Progress | None = None) -> ScanResult:
        """Read these processes; those that have ended are left out."""
        result = ScanResult([], {})
        progress = progress or Progress()
        for pid in progress.each(pids):
            try:
                scan = self.scan_process(pid, progress)
            except ProcessGone:
                continue
            except OSError as error:  # hidepid=1, or this process has no free descriptor left.
                result.failed[pid] = os.strerror(error.errno or 0)
                continue
            except ValueError:
                result.failed[pid] = "its stat is malformed"
                continue
            result.scans.append(scan)
            if scan.malformed:
                result.failed[pid] = f"{scan.malformed} malformed descriptors skipped"
            elif self._cmdline and progress.avoids((CMDLINE, pid)):
                result.failed[pid] = "its command line does not answer"
        return result

    def scan_process(self, pid: int, progress: Progress | None = None) -> ProcessScan:
        """Read one process. Raises ProcessGone, OSError when it cannot be read, and ValueError when
        its ``stat`` is malformed."""
        with self._open_process(pid) as directory:
            fd_dir = os.stat("fd", dir_fd=directory)
            tid, thread = pid, ""
            listing = self._list_fds(directory, thread)
            # ``stat`` is read after the descriptors: the kernel closes those of a process that
            # exits before the process becomes a zombie.
            stat = _parse_living(read("stat", directory))
            found = len(listing.fds) + listing.malformed
            if stat.exiting and (not listing.fds or found != self._fd_count(fd_dir)):
                # The main thread ended before the others: only those show its descriptors now.
                tid, listing = self._find_living_thread(directory)
                thread = f"task/{tid}/"
            thread_fds = self._thread_fds(tid, directory, stat) if listing.readable else ()
            return ProcessScan(
                self._read_facts(pid, directory, stat, progress or Progress(), thread),
                _fingerprint_of(stat),
                listing.fds,
                thread_fds,
                listing.readable,
                self.procfs.netns(directory, thread),
                fd_dir.st_ino,
                listing.malformed,
            )

    def facts(self, pids: Iterable[int], progress: Progress | None = None) -> dict[int, Process]:
        """Return the facts of each process, without its descriptors; those that have ended or
        cannot be read are left out."""
        found = {}
        progress = progress or Progress()
        for pid in progress.each(pids):
            with suppress(ProcessGone, OSError, ValueError), self._open_process(pid) as directory:
                stat = _parse_living(read("stat", directory))
                found[pid] = self._read_facts(pid, directory, stat, progress)
        return found

    def start_time(self, start_ticks: int) -> float:
        """Return a time in clock ticks since boot in seconds since the Unix epoch."""
        return (self._boot_ticks + start_ticks) / _TICKS_PER_SECOND

    def _fd_count(self, fd_dir: os.stat_result) -> int | None:
        """Return the number of entries of ``PID/fd``; None where the kernel does not report it."""
        return fd_dir.st_size if self._has_fd_counts else None

    def _list_fds(self, directory: int, thread: str) -> _FdListing:
        """Read all descriptors of a process, or of its ``thread`` (``task/TID/``)."""
        try:
            fds, malformed = read_fds(directory, f"{thread}fd")
        except OSError as error:
            if error.errno not in DENIED_ERRNOS:
                raise
            return _FdListing({}, readable=False, malformed=0)
        return _FdListing(fds, readable=True, malformed=malformed)

    def _find_living_thread(self, directory: int) -> tuple[int, _FdListing]:
        """Return the id and the descriptors of a thread of the process that is not exiting. Raises
        ProcessGone when all its threads are."""
        with open_directory("task", directory) as tasks:
            tids = sorted(int(name) for name in os.listdir(tasks))
        for tid in tids:
            stat = f"task/{tid}/stat"
            try:
                if parse_stat(read(stat, directory)).exiting:
                    continue
                listing = self._list_fds(directory, f"task/{tid}/")
                if not parse_stat(read(stat, directory)).exiting:
                    return tid, listing
            except OSError as error:
                if error.errno not in GONE_ERRNOS:
                    raise
        raise ProcessGone

    def _thread_fds(self, tid: int, directory: int, stat: ProcessStat) -> ThreadFds:
        """Return the sockets of the threads that do not share the descriptor table of ``tid``."""
        thread_fds: list[tuple[int, int]] = []
        for other in self._threads_with_own_fds(tid, directory, stat):
            try:
                fds, _malformed = read_fds(directory, f"task/{other}/fd")
            except OSError as error:
                if error.errno not in GONE_ERRNOS and error.errno not in DENIED_ERRNOS:
                    raise
            else:
                thread_fds += ((fd, inode) for fd, inode in fds.items() if inode)
        return tuple(thread_fds)

    @contextmanager
    def _open_process(self, pid: int) -> Iterator[int]:
        """Open the process's directory; raise ProcessGone for the errors that mean it has ended."""
        try:
            with open_directory(f"{self._root}/{pid}") as directory:
                yield directory
        except OSError as error:
            if error.errno in GONE_ERRNOS:
                raise ProcessGone from error
            raise

    def _threads_with_own_fds(self, tid: int, directory: int, stat: ProcessStat) -> list[int]:
        """Return the threads of a process that do not share the descriptor table of ``tid``."""
        if stat.threads < 2:
            return []
        return threads_with_own_fds(self._root, tid, directory)

    def summaries(
        self, pids: Iterable[int], progress: Progress | None = None
    ) -> dict[int, FdSummary]:
        """Return the FdSummary of each process; those that have ended are left out. Both fields are
        0 when ``PID/fd`` cannot be examined; ``fd_count`` is -1 when the kernel does not report it
        and the directory cannot be listed."""
        summaries = {}
        root, stat, has_fd_counts = self._root, os.stat, self._has_fd_counts
        for pid in (progress or Progress()).each(pids):
            path = f"{root}/{pid}/fd"
            try:
                fd_dir = stat(path)
            except OSError as error:
                if error.errno not in GONE_ERRNOS:
                    summaries[pid] = FdSummary(0, 0)
                continue
            count = fd_dir.st_size
            if not has_fd_counts:
                try:
                    count = len(os.listdir(path))
                except OSError:  # Denied, or the process ended: scan_process finds out which.
                    count = -1
            summaries[pid] = FdSummary(fd_dir.st_ino, count)
        return summaries

    def owners(self, pids: Iterable[int], progress: Progress) -> dict[int, int]:
        """Return the effective user id of each process; those that have ended are left out. That is
        the owner of the process's directory, also where a process that is not dumpable, prctl(2),
        shows root as the owner of all files in it."""
        owners = {}
        for pid in progress.each(pids):
            with suppress(OSError):
                owners[pid] = os.stat(f"{self._root}/{pid}").st_uid
        return owners

    def fingerprints(
        self, pids: Iterable[int], progress: Progress | None = None
    ) -> dict[int, StatFingerprint | None]:
        """Return the StatFingerprint of each process; None for zombies and those that ended."""
        fingerprints: dict[int, StatFingerprint | None] = {}
        for pid in (progress or Progress()).each(pids):
            try:
                stat = _parse_living(read(f"{self._root}/{pid}/stat"))
                fingerprints[pid] = _fingerprint_of(stat)
            except (ProcessGone, OSError, ValueError):
                fingerprints[pid] = None
        return fingerprints

    def check(
        self, checks: Iterable[FdCheck], progress: Progress | None = None
    ) -> tuple[list[FdCheckResult], list[int]]:
        """Check these processes; also return the pids for which that is not enough. Those have
        ended, may no longer be read, or changed in a way that only ``scan`` can show."""
        results, failed = [], []
        progress = progress or Progress()
        for check in progress.each(checks, attrgetter("pid")):
            try:
                results.append(self._check(check, progress))
            except (_ScanNeeded, ProcessGone, OSError, ValueError):
                failed.append(check.pid)
        return results, failed

    def _check(self, check: FdCheck, progress: Progress) -> FdCheckResult:
        """Check one process. Raises _ScanNeeded, ProcessGone, OSError or ValueError."""
        with self._open_process(check.pid) as directory:
            changes: dict[int, int | None] = {}
            reads = 0
            with open_directory("fd", directory) as listing:
                fd_dir = os.fstat(listing)
                if fd_dir.st_ino != check.fd_dir_inode:
                    raise _ScanNeeded
                if check.fds_to_read is not None:
                    changes, reads = recheck_fds(
                        listing, check.fds, check.fds_to_read, self._fd_count(fd_dir)
                    )
            # ``stat`` is read after the descriptors. A process that exits loses its descriptors
            # without closing them; a scan finds out whether other threads still hold them.
            stat = _parse_living(read("stat", directory))
            has_closed = None in changes.values()
            if stat.exiting and (has_closed or (check.with_facts and stat.state in _DEAD_STATES)):
                raise _ScanNeeded
            # No descriptors to read: the process has not run, so its threads are as they were.
            is_idle = check.has_thread_fds and check.fds_to_read is None
            if not is_idle and self._threads_with_own_fds(check.pid, directory, stat):
                raise _ScanNeeded
            process = netns = None
            if check.with_facts:
                if self._cmdline and progress.avoids((CMDLINE, check.pid)):
                    raise _ScanNeeded  # A scan reports it.
                process = self._read_facts(check.pid, directory, stat, progress)
                netns = self.procfs.netns(directory)
            return FdCheckResult(check.pid, changes, _fingerprint_of(stat), process, netns, reads)

    def _read_facts(
        self, pid: int, directory: int, stat: ProcessStat, progress: Progress, thread: str = ""
    ) -> Process:
        cgroup = _cgroup_of(read_or_empty(f"{thread}cgroup", directory))
        cmdline = None
        if self._cmdline and not progress.avoids((CMDLINE, pid)):
            # The kernel reads the command line under the lock of the process's memory. A process
            # holds that lock for as long as a FUSE file system does not answer its mmap(2).
            progress.begin((CMDLINE, pid))
            cmdline = parse_cmdline(read_or_empty(f"{thread}cmdline", directory))
            progress.begin(pid)
        return Process(
            pid=pid,
            start_ticks=stat.start_ticks,
            comm=stat.comm,
            ppid=stat.ppid,
            start_time=self.start_time(stat.start_ticks),
            uid=os.fstat(directory).st_uid,
            exe=read_link(f"{thread}exe", directory),
            cgroup=cgroup.cgroup,
            unit=cgroup.unit,
            container=cgroup.container,
            cmdline=cmdline,
        )


def _has_fd_counts(root: str) -> bool:
    try:
        return os.stat(f"{root}/self/fd").st_size > 0
    except OSError:
        return False


def _parse_living(data: bytes) -> ProcessStat:
    """Parse ``stat``. Raises ProcessGone for a zombie, which holds no descriptors any more. A
    process whose main thread ended before the others has the state of a zombie, but threads."""
    stat = parse_stat(data)
    if stat.state in _DEAD_STATES and stat.threads < 2:
        raise ProcessGone
    return stat


def _fingerprint_of(stat: ProcessStat) -> StatFingerprint:
    return StatFingerprint(stat.comm, stat.image, stat.ppid, stat.threads)
