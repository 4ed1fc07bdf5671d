"""The walk in a process of its own, for the one-shot snapshot.

Started before the event loop and the rest of the agent are even imported, it walks on one core
while another imports, reads and parses the tables: under the interpreter's lock threads cannot.
It knows the walker, and nothing of what becomes of the looks.
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

# What the pipe should hold, so that the child seldom waits: the most that anyone may ask for.
_PIPE_BYTES = 1 << 20
_LENGTH = Struct("=I")  # Of a batch, before it.
# Processes a batch: small enough to be worked on while the walk goes on.
_BATCH = 32


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
    """What a part of the walk showed; ``failed`` says of other processes why they are left out."""

    holders: list[SocketHolder]
    failed: dict[int, str]


def scan_batch(walked: ScanResult) -> ScanBatch:
    """What these looks found."""
    holders = [
        SocketHolder(
            scan.process,
            held_by(scan.fds, scan.thread_fds),
            scan.readable,
            scan.netns,
            scan.fd_dir_inode,
        )
        for scan in walked.scans
    ]
    return ScanBatch(holders, walked.failed)


class ForkedScan:
    """A walk of all processes under way in a child process.

    Raises OSError when there can be no child. It must be started while there are no threads.
    """

    def __init__(self, walker: Callable[[], ProcessScanner]) -> None:
        """``walker`` is called in the child: opening a procfs that never answers hangs there."""
        reading, writing = os.pipe()
        try:
            self._child = os.fork()
        except OSError:
            os.close(reading)
            os.close(writing)
            raise
        if self._child == 0:
            os.close(reading)  # Else it would wait for itself to read, were the parent gone.
            _walk_and_exit(walker, writing)
        os.close(writing)
        self._file = os.fdopen(reading, "rb")

    def next_batch(self) -> ScanBatch | None:
        """Wait for the next part of the walk; None when there is no more. Blocking.

        A child that was killed looks like one that is done: it left processes out.
        """
        frame = self._file.read(_LENGTH.size)
        data = self._file.read(*_LENGTH.unpack(frame)) if len(frame) == _LENGTH.size else b""
        try:
            # Not marshal.load: that calls the file for every number.
            looks, failed = marshal.loads(data)  # noqa: S302 (from our own child)
        except (EOFError, ValueError, TypeError):
            self._file.close()
            with suppress(ChildProcessError):  # Whoever started us has SIGCHLD ignored.
                os.waitpid(self._child, 0)
            self._child = 0
            return None
        return ScanBatch(
            [SocketHolder(Process._make(process), *rest) for process, *rest in looks], failed
        )

    def stop(self) -> None:
        """End the child, if it still walks; ``batch`` returns then."""
        if self._child:
            with suppress(ProcessLookupError):
                os.kill(self._child, signal.SIGKILL)


def _walk_and_exit(make: Callable[[], ProcessScanner], writing: int) -> None:
    """The child: walk all but itself, write the outcome, and end without a trace."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        with suppress(OSError):  # The user's pipes hold too much already: it waits more often.
            fcntl(writing, F_SETPIPE_SZ, _PIPE_BYTES)
        walker = make()
        walker.may_chdir = True
        procfs = walker.procfs
        own = os.getpid()
        pids = [pid for pid in procfs.pids() if pid != own]
        for start in range(0, len(pids), _BATCH):
            walked = walker.scan(pids[start : start + _BATCH])
            found = scan_batch(walked)
            # marshal knows no named tuples; plain ones it takes ten times as fast as pickle.
            looks = [
                (tuple(process), held, readable, procfs.netns_id(netns) or netns, directory)
                for process, held, readable, netns, directory in found.holders
            ]
            data = marshal.dumps((looks, found.failed))
            left = memoryview(_LENGTH.pack(len(data)) + data)
            while left:
                left = left[os.write(writing, left) :]
        status = 0
    except OSError:  # The parent is gone, or has to walk itself.
        pass
    finally:
        os._exit(status)
