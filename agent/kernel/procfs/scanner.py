"""Looks at processes: their facts, and what their descriptors lead to.

Together with the reader it is the only code that opens procfs. It knows nothing of tables, deltas
and output. Everything here blocks: it is for executors. Processes are looked at in batches, one
executor hop a batch; a hop per descriptor costs ten times the system call. Inside a batch
everything is opened relative to the process's own directory, which can never lead to a process
that got the same pid later.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from operator import attrgetter
from typing import NamedTuple

from ...model import Process, StatFingerprint
from .fd import read_fds, recheck_fds
from .files import (
    DENIED_ERRNOS,
    GONE_ERRNOS,
    ProcessGone,
    link,
    opened,
    read,
    read_or_empty,
)
from .mount import ProcFS
from .progress import Progress
from .scan import FdCheck, FdCheckResult, FdSummary, ProcessScan, ScanResult
from .stat import ProcessStat, parse_cgroup, parse_cmdline, parse_stat

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_DEAD = ("Z", "X")  # States in stat: zombie, dead.
MALFORMED = "malformed"
CMDLINE = "cmdline"  # With the pid, the place of a command line in ``Progress``.

_cgroup_of = lru_cache(maxsize=4096)(parse_cgroup)  # Processes of one service share the text.


class _Listed(NamedTuple):
    """What a directory of descriptors showed, named as in Look."""

    fds: dict[int, int]
    readable: bool
    malformed: int


class ProcessScanner:
    """Looks at the processes of a procfs. ``cmdline``: whether command lines are read too."""

    def __init__(self, procfs: ProcFS, *, cmdline: bool = False) -> None:
        self.procfs = procfs
        # Walking from inside each directory saves a tenth; for where no other thread minds.
        self.may_chdir = False
        self._root = procfs.root
        self._cmdline = cmdline
        self._boot_ticks = round(procfs.boot_time() * _TICKS_PER_SECOND)
        # Since Linux 6.2 the size of PID/fd is the number of open descriptors; before it is 0.
        self.counts = self._directories_count()

    def _directories_count(self) -> bool:
        try:
            return os.stat(f"{self._root}/self/fd").st_size > 0
        except OSError:
            return False

    def scan(self, pids: Iterable[int], progress: Progress | None = None) -> ScanResult:
        """Look at these processes; those that are gone are left out."""
        walked = ScanResult([], {})
        progress = progress or Progress()
        for pid in progress.each(pids):
            try:
                look = self.scan_process(pid, progress)
            except ProcessGone:
                continue
            except OSError as error:  # hidepid=1, or no descriptors left for ourselves.
                walked.failed[pid] = os.strerror(error.errno or 0)
                continue
            except ValueError:
                walked.failed[pid] = f"its stat is {MALFORMED}"
                continue
            walked.scans.append(look)
            if look.malformed:
                walked.failed[pid] = f"{look.malformed} {MALFORMED} descriptors skipped"
            elif self._cmdline and progress.avoids((CMDLINE, pid)):
                walked.failed[pid] = "its command line does not answer"
        return walked

    def scan_process(self, pid: int, progress: Progress | None = None) -> ProcessScan:
        """Look at all of one process. Raises ProcessGone; OSError when the look itself failed, and
        ValueError when its stat is none."""
        with self._process(pid) as directory:
            found = os.stat("fd", dir_fd=directory)
            count = found.st_size if self.counts else 0
            tid, by = pid, ""
            shown = self._listed(directory, by, count)
            # Read after the descriptors: the kernel closes those of a process that exits before
            # the process is a zombie.
            stat = _living(read("stat", directory))
            if stat.exiting and (not shown.fds or len(shown.fds) + shown.malformed != count):
                # What a main thread held that ended before the others only those show.
                tid, shown = self._of_living_thread(directory)
                by = f"task/{tid}/"
            more = self._more(tid, directory, stat) if shown.readable else ()
            facts = self._facts(pid, directory, stat, progress or Progress(), by)
            netns = self.procfs.netns(directory, by)
            fds, readable, malformed = shown
            return ProcessScan(
                facts, _glance(stat), fds, more, readable, netns, found.st_ino, malformed
            )

    def _listed(self, directory: int, by: str, count: int = 0) -> _Listed:
        """Read all descriptors of a process, or of one of its threads."""
        try:
            fds, malformed = read_fds(directory, f"{by}fd", count=count, chdir=self.may_chdir)
        except OSError as error:
            if error.errno not in DENIED_ERRNOS:
                raise
            return _Listed({}, readable=False, malformed=0)
        return _Listed(fds, readable=True, malformed=malformed)

    def _of_living_thread(self, directory: int) -> tuple[int, _Listed]:
        """Return a thread that does not exit, of the process whose directory this is, with its
        descriptors. Raises ProcessGone."""
        with opened("task", directory) as tasks:
            tids = sorted(int(name) for name in os.listdir(tasks))
        for tid in tids:
            stat = f"task/{tid}/stat"
            try:
                if parse_stat(read(stat, directory)).exiting:
                    continue
                shown = self._listed(directory, f"task/{tid}/")
                if not parse_stat(read(stat, directory)).exiting:
                    return tid, shown
            except OSError as error:
                if error.errno not in GONE_ERRNOS:
                    raise
        raise ProcessGone

    def _more(self, tid: int, directory: int, stat: ProcessStat) -> tuple[tuple[int, int], ...]:
        """(descriptor, inode) of the threads whose descriptor table is not that of ``tid``."""
        more: list[tuple[int, int]] = []
        for other in self._separate(tid, directory, stat):
            try:
                found, _malformed = read_fds(directory, f"task/{other}/fd")
            except OSError as error:
                if error.errno not in GONE_ERRNOS and error.errno not in DENIED_ERRNOS:
                    raise
            else:
                more += (item for item in found.items() if item[1])
        return tuple(more)

    @contextmanager
    def _process(self, pid: int) -> Iterator[int]:
        """The process's directory, open. What says that the process is gone becomes ProcessGone."""
        try:
            with opened(f"{self._root}/{pid}") as directory:
                yield directory
        except OSError as error:
            if error.errno in GONE_ERRNOS:
                raise ProcessGone from error
            raise

    def _separate(self, tid: int, directory: int, stat: ProcessStat) -> list[int]:
        """The process's threads whose descriptor table is not that of ``tid``."""
        if stat.threads < 2:
            return []
        from .kcmp import threads_with_own_fds  # Only here: it loads ctypes.

        return threads_with_own_fds(self._root, tid, directory)

    def summaries(
        self, pids: Iterable[int], progress: Progress | None = None
    ) -> dict[int, FdSummary]:
        """What is cheap to see of each process; those that are gone are left out."""
        seen = {}
        root, stat, counts = self._root, os.stat, self.counts
        progress = progress or Progress()
        for pid in progress.each(pids):
            path = f"{root}/{pid}/fd"
            try:
                directory = stat(path)
            except OSError as error:
                if error.errno not in GONE_ERRNOS:
                    seen[pid] = FdSummary(0, 0)
                continue
            count = directory.st_size
            if not counts:
                try:
                    count = len(os.listdir(path))
                except OSError:  # Denied, or gone: a look tells which.
                    count = -1
            seen[pid] = FdSummary(directory.st_ino, count)
        return seen

    def owners(self, pids: Iterable[int], progress: Progress) -> dict[int, int]:
        """Return the effective user id of each process; those that are gone are left out.

        It is the owner of the directory, also where a process that may not be dumped (prctl(2))
        shows root as the owner of everything in there.
        """
        owners = {}
        for pid in progress.each(pids):
            with suppress(OSError):
                owners[pid] = os.stat(f"{self._root}/{pid}").st_uid
        return owners

    def fingerprints(
        self, pids: Iterable[int], progress: Progress | None = None
    ) -> dict[int, StatFingerprint | None]:
        """What one read shows of each process; None of one that is gone, or a zombie."""
        seen: dict[int, StatFingerprint | None] = {}
        progress = progress or Progress()
        for pid in progress.each(pids):
            try:
                seen[pid] = _glance(_living(read(f"{self._root}/{pid}/stat")))
            except (ProcessGone, OSError, ValueError):
                seen[pid] = None
        return seen

    def check(
        self, checks: Iterable[FdCheck], progress: Progress | None = None
    ) -> tuple[list[FdCheckResult], list[int]]:
        """Check these processes; and those that are gone, or may no longer be read."""
        checked, lost = [], []
        progress = progress or Progress()
        for one in progress.each(checks, attrgetter("pid")):
            try:
                checked.append(self._check(one, progress))
            except (ProcessGone, OSError, ValueError):  # A whole look tells which.
                lost.append(one.pid)
        return checked, lost

    def _check(self, check: FdCheck, progress: Progress) -> FdCheckResult:
        with self._process(check.pid) as directory:
            with opened("fd", directory) as listing:
                found = os.fstat(listing)
                if found.st_ino != check.fd_dir_inode:
                    raise ProcessGone
                count = found.st_size if self.counts else None
                changes: dict[int, int | None] = {}
                reads = 0
                if check.fds_to_read is not None:
                    changes, reads = recheck_fds(listing, check.fds, check.fds_to_read, count)
            # Read after the descriptors. Those that a process loses as it exits are not closed by
            # it; a whole look finds out whether other threads still hold them.
            stat = _living(read("stat", directory))
            lost = None in changes.values()
            if stat.exiting and (lost or (check.with_facts and stat.state in _DEAD)):
                raise ProcessGone
            process = netns = None
            # Of one that has not run, which has no suspects, they are as they were.
            can_skip = check.has_thread_fds and check.fds_to_read is None
            if not can_skip and self._separate(check.pid, directory, stat):
                raise ProcessGone
            if check.with_facts:
                if self._cmdline and progress.avoids((CMDLINE, check.pid)):
                    raise ProcessGone  # A whole look reports it.
                process = self._facts(check.pid, directory, stat, progress)
                netns = self.procfs.netns(directory)
            glance = _glance(stat)
            return FdCheckResult(check.pid, changes, glance, process, netns, reads)

    def _facts(
        self, pid: int, directory: int, stat: ProcessStat, progress: Progress, by: str = ""
    ) -> Process:
        place = _cgroup_of(read_or_empty(f"{by}cgroup", directory))
        cmdline = None
        if self._cmdline and not progress.avoids((CMDLINE, pid)):
            # The kernel takes the lock of the process's memory to read it. A process holds that
            # lock for as long as a FUSE file system of its user does not answer its mmap(2).
            progress.enter((CMDLINE, pid))
            cmdline = read_or_empty(f"{by}cmdline", directory)
            progress.enter(pid)
        return Process(
            pid=pid,
            start_ticks=stat.start_ticks,
            comm=stat.comm,
            ppid=stat.ppid,
            start_time=(self._boot_ticks + stat.start_ticks) / _TICKS_PER_SECOND,
            uid=os.fstat(directory).st_uid,
            exe=link(f"{by}exe", directory),
            cgroup=place.cgroup,
            unit=place.unit,
            container=place.container,
            cmdline=None if cmdline is None else parse_cmdline(cmdline),
        )


def _living(data: bytes) -> ProcessStat:
    """The stat of a process that is no zombie: that has exited, and holds nothing.

    One whose main thread ended before the others says that it is one, but has threads.
    """
    stat = parse_stat(data)
    if stat.state in _DEAD and stat.threads < 2:
        raise ProcessGone
    return stat


def _glance(stat: ProcessStat) -> StatFingerprint:
    return StatFingerprint(stat.comm, stat.image, stat.ppid, stat.threads)
