"""Scan all processes in a child process, for the one-shot snapshot.

The child is forked before the event loop and most of the agent are even imported. It scans on one
core while the parent imports, reads and parses the tables on another; two threads could not, as
they share the interpreter's lock.
"""

from __future__ import annotations

import marshal
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from fcntl import F_SETPIPE_SZ, fcntl
from struct import Struct
from typing import NamedTuple

from ...model import Process, held_by
from .scan import ScanResult
from .scanner import ProcessScanner

# Requested size of the pipe, so that the child seldom waits: the most that an unprivileged process
# may request (/proc/sys/fs/pipe-max-size).
_PIPE_BYTES = 1 << 20
_LENGTH = Struct("=I")  # The length of a batch in bytes, sent before it.
# Processes in a batch: few, so that the parent can use a batch while the scan goes on.
_BATCH_PROCESSES = 32


class SocketHolder(NamedTuple):
    """One process and the sockets that it holds.

    ``fds_by_inode`` maps the inode of a socket to the descriptors on it, ascending. ``readable``,
    ``netns`` and ``fd_dir_inode`` are as in ProcessScan.
    """

    process: Process
    fds_by_inode: dict[int, tuple[int, ...]]
    readable: bool
    netns: int
    fd_dir_inode: int


class ScanBatch(NamedTuple):
    """A part of a scan of all processes; ``failed`` is as in ScanResult."""

    holders: list[SocketHolder]
    failed: dict[int, str]


def scan_batch(result: ScanResult) -> ScanBatch:
    """Convert the result of a scan to a batch."""
    holders = [
        SocketHolder(
            scan.process,
            held_by(scan.fds, scan.thread_fds),
            scan.readable,
            scan.netns,
            scan.fd_dir_inode,
        )
        for scan in result.scans
    ]
    return ScanBatch(holders, result.failed)


class ForkedScan:
    """A scan of all processes, under way in a child process.

    Must be created while this process has one thread. Raises OSError when it cannot fork.
    """

    def __init__(self, make_scanner: Callable[[], ProcessScanner]) -> None:
        """Fork. ``make_scanner`` is called in the child, so that a procfs that does not answer
        blocks the child only."""
        reading, writing = os.pipe()
        try:
            self._child = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if self._child == 0:
            os.close(reading)  # Or writing would block, not fail, after the parent has ended.
            _scan_and_exit(make_scanner, writing)
        os.close(writing)
        self._file = os.fdopen(reading, "rb")

    def next_batch(self) -> ScanBatch | None:
        """Wait for the next part of the scan; return None at its end. Blocking.

        A child that was killed looks like one that is done: the rest of its processes is missing.
        """
        header = self._file.read(_LENGTH.size)
        data = self._file.read(*_LENGTH.unpack(header)) if len(header) == _LENGTH.size else b""
        try:
            # Not marshal.load: it calls the file's methods for every number.
            holders, failed = marshal.loads(data)  # noqa: S302 (from our own child)
        except (EOFError, ValueError, TypeError):
            self._file.close()
            with suppress(ChildProcessError):  # SIGCHLD was ignored when this process started.
                os.waitpid(self._child, 0)
            self._child = 0
            return None
        return ScanBatch(
            [SocketHolder(Process._make(process), *rest) for process, *rest in holders], failed
        )

    def stop(self) -> None:
        """Kill the child, if it is still running; ``next_batch`` returns then."""
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)


def _scan_and_exit(make_scanner: Callable[[], ProcessScanner], writing: int) -> None:
    """Scan all processes but this one, the child, write the batches, and exit."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError):  # The user's pipes are at their limit: the child waits more often.
            fcntl(writing, F_SETPIPE_SZ, _PIPE_BYTES)
        scanner = make_scanner()
        procfs = scanner.procfs
        own = os.getpid()
        pids = [pid for pid in procfs.pids() if pid != own]
        for start in range(0, len(pids), _BATCH_PROCESSES):
            batch = scan_batch(scanner.scan(pids[start : start + _BATCH_PROCESSES]))
            # marshal has no named tuples; plain tuples it writes ten times as fast as pickle.
            holders = [
                (tuple(process), fds_by_inode, readable, procfs.netns_id(netns) or netns, inode)
                for process, fds_by_inode, readable, netns, inode in batch.holders
            ]
            data = marshal.dumps((holders, batch.failed))
            unsent = memoryview(_LENGTH.pack(len(data)) + data)
            while unsent:
                unsent = unsent[os.write(writing, unsent) :]
        status = 0
    except OSError:  # The parent has ended, or scans the processes itself.
        pass
    finally:
        os._exit(status)
