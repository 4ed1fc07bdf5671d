"""Open and read files of procfs.

A process can end while it is read: the system calls then fail with one of GONE_ERRNOS.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

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
    """Read a whole file; ``path`` is relative to the open ``directory``, if one is given.

    Raises OSError.
    """
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
