"""Open and read files of procfs, and follow a batch of such reads.

A process can end while it is read: the system calls then fail with one of GONE_ERRNOS.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Hashable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

# The process is gone (ENOENT, ESRCH, ENOTDIR) or a zombie (EINVAL).
GONE_ERRNOS = frozenset({errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.ENOTDIR})
DENIED_ERRNOS = frozenset({errno.EACCES, errno.EPERM})
_DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# No file of procfs blocks when it is opened; another file in its place, a FIFO, would.
_FILE_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
# Bytes per read(2); the kernel returns at most 4 KiB of most files at a time.
_READ_BYTES = 1 << 16
# After this many reads, 1 MiB at most, check that it is a regular file: a device may have no end.
_CHECKED_READS = 16


T = TypeVar("T")


class ProcessGone(Exception):
    """The process ended while it was read."""


@contextmanager
def open_directory(path: str, directory: int | None = None) -> Iterator[int]:
    """Open a directory for the duration of a with statement; ``path`` is relative to the open
    ``directory``, if one is given. Raises OSError."""
    descriptor = os.open(path, _DIRECTORY_FLAGS, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: str, directory: int | None = None) -> bytes:
    """Read a whole file; ``path`` is relative to the open ``directory``, if one is given. Raises
    OSError."""
    descriptor = os.open(path, _FILE_FLAGS, dir_fd=directory)
    try:
        chunks = []
        while chunk := os.read(descriptor, _READ_BYTES):
            chunks.append(chunk)
            if len(chunks) == _CHECKED_READS and not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EFBIG, "not a regular file", path)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def read_or_empty(path: str, directory: int | None = None) -> bytes:
    """Read a whole file, as ``read``; return b"" when it cannot be read."""
    try:
        return read(path, directory)
    except OSError:
        return b""


def read_link(path: str, directory: int) -> str | None:
    r"""Read a symbolic link, relative to the open ``directory``; None when it cannot be read.

    Bytes that are not UTF-8 are replaced by escapes (``\xNN``).
    """
    try:
        target = os.readlink(path, dir_fd=directory)
    except OSError:
        return None
    return os.fsencode(target).decode("utf-8", "backslashreplace")


def _never(_place: Hashable) -> bool:
    return False


class Progress:
    """Shared by the thread that reads a batch and by the event loop, which waits for it. ``place``
    is what is being read, None before the first item. ``avoids`` returns whether a place must not
    be read because an earlier read of it hangs."""

    __slots__ = ("_stopped", "avoids", "place")

    def __init__(self, avoids: Callable[[Hashable], bool] = _never) -> None:
        self.place: Hashable = None
        self.avoids = avoids
        self._stopped = False

    def begin(self, place: Hashable) -> None:
        """Record that ``place`` is read next, where it changes within an item of ``each``."""
        self.place = place

    def each(
        self, items: Iterable[T], place_of: Callable[[T], Hashable] | None = None
    ) -> Iterator[T]:
        """Yield the items until ``stop`` is called; ``place`` is then that of the item yielded.
        Without ``place_of`` an item is its own place and must be hashable."""
        for item in items:
            if self._stopped:
                return
            self.place = place_of(item) if place_of else item
            yield item

    def stop(self) -> None:
        """End the batch before its next item."""
        self._stopped = True
