"""Find out which processes have run since the last call, from their ``schedstat``. Blocking.

``/proc/PID/task/TID/schedstat`` has the time that a thread spent on a processor and waiting for
one, in ns, and how often it was given one (Documentation/scheduler/sched-stats.rst). A descriptor
table is changed by its own process, or by another one that shares it, clone(2) with CLONE_FILES:
where no thread has run, no descriptor was opened, closed or replaced.

Before Linux 5.12 the workers of io_uring are kernel threads, so that the files prove nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import NamedTuple

from .files import GONE_ERRNOS, open_directory

# The line of a thread where the kernel does not keep these times (CONFIG_SCHED_INFO).
_UNKNOWN = b"0 0 0"
_LINE_BYTES = 64  # More than a line: three numbers of 64 bits.
# Read the threads of a process up to this number in any case, and beyond it up to the number of
# its descriptors: for more threads, reading the descriptors costs less.
_MIN_THREADS = 16
_FIRST_CONCLUSIVE = (5, 12)
_RELEASE = re.compile(r"(\d+)\.(\d+)")


def is_conclusive(release: str) -> bool:
    """Return whether ``schedstat`` proves that a process has not run, on this kernel release."""
    found = _RELEASE.match(release)
    return found is not None and (int(found[1]), int(found[2])) >= _FIRST_CONCLUSIVE


class _Threads(NamedTuple):
    """The threads of a process: their ids, their open ``schedstat`` files, and what these contain.

    A descriptor of -1 stands for a file that is opened again for each reading.
    """

    tids: tuple[int, ...]
    files: tuple[int, ...]
    lines: tuple[bytes, ...]


class RunMonitor:
    """Compares the ``schedstat`` of processes with the previous reading. At most ``max_files``
    files stay open, which saves three quarters of the cost. An open file never shows another thread
    with the same id."""

    def __init__(self, root: str, max_files: int) -> None:
        self._root = root
        self._free = max_files
        self._threads: dict[int, _Threads] = {}

    @property
    def open_fds(self) -> set[int]:
        """The descriptors of the files that stay open."""
        return {file for one in self._threads.values() for file in one.files if file >= 0}

    def have_run(self, processes: Iterable[tuple[int, int]]) -> dict[int, bool | None]:
        """Return whether each process has run since the last call, by pid; ``processes`` are (pid,
        number of descriptors).

        The result is also True for a process that is new, and for one with far more threads than
        descriptors, and None where it cannot be read. Processes that have ended are left out.
        The next call reports what a process does during this one.
        """
        found: dict[int, bool | None] = {}
        for pid, descriptors in processes:
            known = self._threads.get(pid)
            try:
                if known is not None:
                    lines = self._lines(pid, known)
                    if lines == known.lines:
                        found[pid] = False
                        continue
                    known = known._replace(lines=lines)
                    self._threads[pid] = known
                    if self._thread_count(pid) == len(known.tids):
                        found[pid] = True
                        continue
            except OSError:  # A thread ended; _begin lists the others.
                pass
            self._forget(pid)
            try:
                found[pid] = self._begin(pid, max(_MIN_THREADS, descriptors))
            except OSError as error:
                if error.errno not in GONE_ERRNOS:  # hidepid=1, or no free descriptor.
                    found[pid] = None
        for pid in self._threads.keys() - found.keys():
            self._forget(pid)
        return found

    def close(self) -> None:
        """Close all files."""
        for pid in list(self._threads):
            self._forget(pid)

    def _lines(self, pid: int, known: _Threads) -> tuple[bytes, ...]:
        """Read the lines of the threads. Raises OSError when one of them has ended."""
        return tuple(
            os.pread(file, _LINE_BYTES, 0) if file >= 0 else self._read_line(pid, tid)
            for tid, file in zip(known.tids, known.files, strict=True)
        )

    def _read_line(self, pid: int, tid: int) -> bytes:
        file = self._open(pid, tid)
        try:
            return os.read(file, _LINE_BYTES)
        finally:
            os.close(file)

    def _open(self, pid: int, tid: int) -> int:
        return os.open(f"{self._root}/{pid}/task/{tid}/schedstat", os.O_RDONLY | os.O_CLOEXEC)

    def _thread_count(self, pid: int) -> int:
        """Return the number of threads: the directory has a link for each, and two more."""
        return os.stat(f"{self._root}/{pid}/task").st_nlink - 2

    def _begin(self, pid: int, max_threads: int) -> bool | None:
        """Open and read the files of a process. Raises OSError when the process has ended, or its
        threads cannot be listed."""
        with open_directory(f"{self._root}/{pid}/task") as tasks:
            tids = tuple(map(int, os.listdir(tasks)))
        if len(tids) > max_threads:
            return True
        files: list[int] = []
        lines: list[bytes] = []
        try:
            for tid in tids:
                if self._free > 0:
                    files.append(self._open(pid, tid))
                    self._free -= 1
                    lines.append(os.read(files[-1], _LINE_BYTES))
                else:
                    files.append(-1)
                    lines.append(self._read_line(pid, tid))
        except OSError:  # A thread ended, or the kernel has no such file.
            self._close(files)
            return None if _is_absent(self._root, pid) else True
        if any(not line or line.startswith(_UNKNOWN) for line in lines):
            self._close(files)
            return None
        self._threads[pid] = _Threads(tids, tuple(files), tuple(lines))
        return True

    def _close(self, files: Iterable[int]) -> None:
        for file in files:
            if file >= 0:
                os.close(file)
                self._free += 1

    def _forget(self, pid: int) -> None:
        known = self._threads.pop(pid, None)
        if known is not None:
            self._close(known.files)


def _is_absent(root: str, pid: int) -> bool:
    """Return whether ``schedstat`` does not exist or may not be read. Raises OSError when the
    process has ended."""
    os.stat(f"{root}/{pid}/stat")
    return not os.access(f"{root}/{pid}/schedstat", os.R_OK)
