"""What the descriptors of a process lead to, proc_pid_fd(5). It knows one directory at a time.

Blocking, like everything that opens procfs; whose directories they are the walker knows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice

from .files import GONE_ERRNOS, link, opened

SOCKET = "socket:["
# With more descriptors than this, guessing which are new is cheaper than listing them all.
_MANY = 1024
# Free numbers that are tried in vain before the directory is listed.
_MOST_MISSES = 8
# Of a process with more descriptors than this they are listed, as of one that has more gaps in
# their numbers.
_MOST_TRIED = 1024
_MOST_GAPS = 4
_NUMBERS = tuple(map(str, range(_MOST_TRIED + _MOST_GAPS)))
_FD_BITS = 31  # A descriptor is an int that is not negative.
INODE_BITS = 63  # More than any inode of a socket has: they are 32 bits wide.


def read_fds(
    directory: int, name: str, *, count: int = 0, chdir: bool = False
) -> tuple[dict[int, int], int]:
    """Descriptor → inode, 0 for what is no socket, of the directory ``name``; and how many
    entries were passed over because they are none of the kernel's. Raises OSError.

    ``count`` is how many the kernel says there are, 0 where it does not say. ``chdir``: work from
    inside the directory, which saves a tenth, where no other thread minds.
    """
    with opened(name, directory) as listing:
        if chdir:
            os.fchdir(listing)
            readlink: Callable[[str], str] = os.readlink
        else:
            readlink = partial(os.readlink, dir_fd=listing)
        names, links = _lowest(readlink, count)
        if not count or len(names) < count:
            rest = os.listdir(listing)
            if names:
                rest = list(set(rest).difference(names))
            names += rest
            try:
                links += list(map(readlink, rest))
            except OSError as error:  # One was closed meanwhile: that one only is passed over.
                if error.errno not in GONE_ERRNOS:
                    raise
                links += [link(descriptor, listing) for descriptor in rest]
    try:
        fds = {
            int(descriptor): int(target[8:-1]) if target[:8] == SOCKET else 0
            for descriptor, target in zip(names, links, strict=True)
            if target is not None
        }
    except ValueError:
        return _one_by_one(names, links)
    if fds and (max(fds) >> _FD_BITS or min(fds) < 0 or _is_absurd(fds)):
        return _one_by_one(names, links)
    return fds, 0


def _lowest(readlink: Callable[[str], str], count: int) -> tuple[list[str], list[str | None]]:
    """The lowest descriptors, at most ``count``, and where they lead; there may be more.

    The kernel gives out the lowest number that is free: mostly they have no gaps, and to try the
    numbers costs a quarter less than to list them first.
    """
    links: list[str | None] = []
    gaps: set[int] = set()
    numbers = iter(_NUMBERS)
    while len(links) < count <= _MOST_TRIED and len(gaps) < _MOST_GAPS:
        try:
            # What was read before one fails stays in there.
            links.extend(map(readlink, islice(numbers, count - len(links))))
        except OSError as error:
            if error.errno not in GONE_ERRNOS:
                raise
            gaps.add(len(links) + len(gaps))
    tried = _NUMBERS[: len(links) + len(gaps)]
    return [number for fd, number in enumerate(tried) if fd not in gaps], links


def _is_absurd(fds: Mapping[int, int]) -> bool:
    return bool(max(fds.values()) >> INODE_BITS or min(fds.values()) < 0)


def _one_by_one(names: Sequence[str], links: Sequence[str | None]) -> tuple[dict[int, int], int]:
    """The same, where some are no descriptors."""
    fds: dict[int, int] = {}
    malformed = 0
    for name, target in zip(names, links, strict=True):
        if target is None:
            continue
        try:
            fds[_descriptor(name)] = _inode_in(target)
        except ValueError:
            malformed += 1
    return fds, malformed


def _descriptor(name: str) -> int:
    """Raises ValueError."""
    number = int(name)
    if number >> _FD_BITS:
        raise ValueError("not a descriptor")
    return number


def _inode_in(target: str) -> int:
    """The inode of the socket that a link leads to, 0 if it is none. Raises ValueError."""
    inode = int(target[len(SOCKET) : -1]) if target.startswith(SOCKET) else 0
    if inode >> INODE_BITS:
        raise ValueError("not an inode")
    return inode


def recheck_fds(
    listing: int, fds: Mapping[int, int], fds_of: Collection[int], count: int | None
) -> tuple[dict[int, int | None], int]:
    """What is not as in ``fds``: descriptor → inode, 0 for what is no socket, None for what is
    closed; and how many descriptors were read. ``listing`` is ``PID/fd``, open, and has ``count``
    entries; None where the kernel does not say. Raises OSError, and ValueError where an entry is
    none of the kernel's.

    The kernel gives out the lowest number that is free: where a few descriptors are missing from
    what the directory says there are, they are there. Else the directory is listed.
    """
    changes: dict[int, int | None] = {}
    known = len(fds)
    reads = 0

    def look(descriptor: int) -> bool:
        """Note what the descriptor leads to; whether it is open."""
        nonlocal known, reads
        reads += 1
        inode = _inode(listing, str(descriptor))
        if inode != fds.get(descriptor):
            changes[descriptor] = inode
            known += (inode is not None) - (descriptor in fds)
        return inode is not None

    for descriptor in fds_of:
        look(descriptor)
    free = 0
    misses = 0
    while count is not None and len(fds) > _MANY and known < count and misses < _MOST_MISSES:
        while free in fds or free in changes:
            free += 1
        if not look(free):
            misses += 1
        free += 1
    if known != count or (len(fds) <= _MANY and len(fds_of) < len(fds)):
        now = set(map(_descriptor, os.listdir(listing)))
        for descriptor in now - fds.keys():
            if descriptor not in changes:
                look(descriptor)
        for descriptor in fds.keys() - now:
            changes[descriptor] = None
    return {fd: inode for fd, inode in changes.items() if inode is not None or fd in fds}, reads


def _inode(directory: int, descriptor: str) -> int | None:
    """The inode of the descriptor's socket, 0 if it is none, None if it is closed."""
    try:
        target = os.readlink(descriptor, dir_fd=directory)
    except OSError as error:
        if error.errno in GONE_ERRNOS:
            return None
        raise
    return _inode_in(target)
