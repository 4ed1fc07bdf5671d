"""Opening and reading in procfs: what every reader of it is built on. It knows no formats.

Whatever vanishes while it is looked at is no error: ENOENT and ESRCH mean that the process is gone,
EINVAL that it is a zombie. EACCES and EPERM mean that the process is not ours to read.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

GONE_ERRNOS = frozenset({errno.ENOENT, errno.ESRCH, errno.EINVAL, errno.ENOTDIR})
DENIED_ERRNOS = frozenset({errno.EACCES, errno.EPERM})
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
# Nothing in procfs makes a reader wait; what may lie elsewhere in its place, a FIFO, does.
_FILE = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
# Files are read in pieces of this many bytes; the kernel hands out 4 KiB at a time anyway.
_READ_SIZE = 1 << 16
# Behind so many pieces, 1 MiB, it is made sure that it is a file: a device may have no end.
_CHECKED_READS = 16


class ProcessGone(Exception):
    """The process, or its namespace, went away while it was read."""


@contextmanager
def opened(path: str, directory: int | None = None) -> Iterator[int]:
    """A directory, open; ``path`` is below ``directory`` if one is given. Raises OSError."""
    descriptor = os.open(path, DIRECTORY, dir_fd=directory)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read(path: str, directory: int | None = None) -> bytes:
    """All of a file; ``path`` is below ``directory`` if one is given. Raises OSError."""
    descriptor = os.open(path, _FILE, dir_fd=directory)
    try:
        chunks = []
        while chunk := os.read(descriptor, _READ_SIZE):
            chunks.append(chunk)
            if len(chunks) == _CHECKED_READS and not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EFBIG, "it is no file, and has no end", path)
        return b"".join(chunks)
    finally:
        os.close(descriptor)


def read_or_empty(path: str, directory: int | None = None) -> bytes:
    """The same, empty when it cannot be read: what the file would tell is unknown then."""
    try:
        return read(path, directory)
    except OSError:
        return b""


def link(path: str, directory: int) -> str | None:
    """Where a link leads; None when it cannot be read: denied, gone, or there is none."""
    try:
        target = os.readlink(path, dir_fd=directory)
    except OSError:
        return None
    return os.fsencode(target).decode("utf-8", "backslashreplace")
