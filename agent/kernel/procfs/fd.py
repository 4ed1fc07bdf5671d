"""Read the descriptors of a process from ``/proc/PID/fd``, proc_pid_fd(5). Blocking.

The functions return the inode of each descriptor's socket, from links of the form
``socket:[INODE]`` (``sockfs_dname`` in ``net/socket.c``), and 0 for any other file.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence

from .files import GONE_ERRNOS, open_directory, read_link

SOCKET_PREFIX = "socket:["
# With more descriptors than this, trying the lowest free numbers costs less than listing them all.
_MANY = 1024
# Free numbers that are tried without success before the directory is listed.
_MAX_MISSES = 8
_FD_BITS = 31  # A descriptor is an int that is not negative.
_INODE_BITS = 63  # More than the inode of a socket has, which is 32 bits wide.


def read_fds(directory: int, name: str) -> tuple[dict[int, int], int]:
    """Return descriptor → inode of the directory ``name``, which is relative to the open
    ``directory``, and the number of malformed entries, which are left out. Raises OSError."""
    with open_directory(name, directory) as listing:
        names = os.listdir(listing)
        links: Sequence[str | None]
        try:
            links = [os.readlink(fd, dir_fd=listing) for fd in names]
        except OSError as error:  # One was closed meanwhile: only that one is left out.
            if error.errno not in GONE_ERRNOS:
                raise
            links = [read_link(fd, listing) for fd in names]
    try:
        fds = {
            int(fd): int(link[8:-1]) if link[:8] == SOCKET_PREFIX else 0
            for fd, link in zip(names, links, strict=True)
            if link is not None
        }
    except ValueError:
        return _parse_each(names, links)
    if fds and (
        max(fds) >> _FD_BITS
        or min(fds) < 0
        or max(fds.values()) >> _INODE_BITS
        or min(fds.values()) < 0
    ):
        return _parse_each(names, links)
    return fds, 0


def _parse_each(names: Sequence[str], links: Sequence[str | None]) -> tuple[dict[int, int], int]:
    """Return what ``read_fds`` returns, where some entries are malformed."""
    fds: dict[int, int] = {}
    malformed = 0
    for name, link in zip(names, links, strict=True):
        if link is None:
            continue
        try:
            fds[_parse_fd(name)] = _parse_inode(link)
        except ValueError:
            malformed += 1
    return fds, malformed


def _parse_fd(name: str) -> int:
    """Return the descriptor with this name. Raises ValueError."""
    fd = int(name)
    if fd >> _FD_BITS:
        raise ValueError("not a descriptor")
    return fd


def _parse_inode(link: str) -> int:
    """Return the inode of the socket that a link names, 0 for another file. Raises ValueError."""
    inode = int(link[len(SOCKET_PREFIX) : -1]) if link.startswith(SOCKET_PREFIX) else 0
    if inode >> _INODE_BITS:
        raise ValueError("not an inode")
    return inode


def recheck_fds(
    listing: int, fds: Mapping[int, int], fds_to_read: Collection[int], count: int | None
) -> tuple[dict[int, int | None], int]:
    """Return how the descriptors differ from ``fds``, as descriptor → inode, None for a closed one;
    and the number of descriptors that were read.

    ``listing`` is ``PID/fd``, open, and has ``count`` entries; None where the kernel does not
    report that. The function reads ``fds_to_read`` and the descriptors that ``fds`` does not have.
    Raises OSError, and ValueError for a malformed entry.

    The kernel gives out the lowest free number, so a few new descriptors among many are found by
    trying the free numbers. If that does not find as many as ``count``, the directory is listed.
    """
    changes: dict[int, int | None] = {}
    open_count = len(fds)
    reads = 0

    def check(fd: int) -> bool:
        """Read the descriptor, note how it changed, and return whether it is open."""
        nonlocal open_count, reads
        reads += 1
        inode = _read_inode(listing, str(fd))
        if inode != fds.get(fd):
            changes[fd] = inode
            open_count += (inode is not None) - (fd in fds)
        return inode is not None

    for fd in fds_to_read:
        check(fd)
    free = 0
    misses = 0
    while count is not None and len(fds) > _MANY and open_count < count and misses < _MAX_MISSES:
        while free in fds or free in changes:
            free += 1
        if not check(free):
            misses += 1
        free += 1
    if open_count != count or (len(fds) <= _MANY and len(fds_to_read) < len(fds)):
        listed = set(map(_parse_fd, os.listdir(listing)))
        for fd in listed - fds.keys():
            if fd not in changes:
                check(fd)
        changes.update(dict.fromkeys(fds.keys() - listed))
    return {fd: inode for fd, inode in changes.items() if inode is not None or fd in fds}, reads


def _read_inode(listing: int, name: str) -> int | None:
    """Return the inode of a descriptor's socket, 0 for another file, None if it is closed."""
    try:
        link = os.readlink(name, dir_fd=listing)
    except OSError as error:
        if error.errno in GONE_ERRNOS:
            return None
        raise
    return _parse_inode(link)
