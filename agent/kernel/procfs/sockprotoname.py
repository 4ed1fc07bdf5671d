"""Read the protocol of a socket from its descriptor: the extended attribute that the kernel gives
sockets, ``system.sockprotoname`` (``net/socket.c``).

Blocking. Nothing here reaches the file system of a file that has taken the descriptor's place.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from operator import itemgetter

from ...model import Socket
from ...text import decode
from .fd import SOCKET_PREFIX
from .files import GONE_ERRNOS
from .progress import Progress

_OWN_DESCRIPTORS = "/proc/self/fd"  # Of this kernel, whatever procfs is read.
# A descriptor that may tell what its socket is: pid, descriptor, inode.
SocketFd = tuple[int, int, int]


def read_protocols(
    root: str, descriptors: Iterable[SocketFd], progress: Progress | None = None
) -> dict[SocketFd, bytes | None]:
    """Return, for each (pid, descriptor, inode), the kernel's name of the socket's protocol.

    Empty when the descriptor no longer leads to that socket, None when the name cannot be read.
    ``root`` is the procfs.
    """
    names = {}
    progress = progress or Progress()
    for descriptor in progress.each(descriptors, itemgetter(0)):
        names[descriptor] = _protocol(root, *descriptor)
    return names


def _protocol(root: str, pid: int, fd: int, inode: int) -> bytes | None:
    """The descriptor may lead to a file by now, on a file system that never answers. Opening with
    O_PATH and reading a link do not reach that file system; stat and getxattr do, and are left out
    until it is certain that this is the socket."""
    path, target = f"{root}/{pid}/fd/{fd}", f"{SOCKET_PREFIX}{inode}]"
    try:
        found = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            ours = f"{_OWN_DESCRIPTORS}/{found}"
            return (
                os.getxattr(ours, "system.sockprotoname")
                if os.readlink(ours) == target
                else _unnamed(path, target)
            )
        finally:
            os.close(found)
    except OSError:
        return _unnamed(path, target)


def _unnamed(path: str, target: str) -> bytes | None:
    """Return what is known of a socket whose protocol cannot be read: None, or that a descriptor
    does not lead to it any more."""
    try:
        return None if os.readlink(path) == target else b""
    except OSError as error:
        return b"" if error.errno in GONE_ERRNOS else None


# Names that getxattr("system.sockprotoname") gives (the kernel's struct proto .name) for the
# protocols that have a table; any other is passed on as the kernel calls it.
_PROTOCOL_NAMES = {
    "udp-lite": "udplite",
    "ping": "icmp",
    "unix-stream": "unix",
}


def socket_from_protocol(inode: int, name: bytes | None, netns: int | None = None) -> Socket:
    """A socket that is in no table, from what its descriptor says of its protocol.

    ``name`` is the value of ``system.sockprotoname`` (``net/socket.c``), None when it cannot be
    read. TCP and UDP sockets are in no table while they are not bound.
    """
    if not name:
        return Socket(inode, None, None, None, None, netns=netns)
    proto = decode(name.rstrip(b"\0")).lower().removeprefix("af_")
    family = "inet"
    if proto.endswith("v6"):
        family = "inet6"
        proto = proto.removesuffix("v6")
    proto = _PROTOCOL_NAMES.get(proto, proto)
    if proto in _INET_UNBOUND:
        return Socket(inode, proto, family, None, _INET_UNBOUND[proto], netns=netns)
    state = "UNCONNECTED" if proto in ("netlink", "packet") else None
    return Socket(inode, proto, proto, None, state, netns=netns)


# Protocols of the inet families with the state of a socket that is in no table.
_INET_UNBOUND: dict[str, str | None] = {
    "tcp": "CLOSE",
    "udp": "UNCONNECTED",
    "udplite": "UNCONNECTED",
    "raw": "UNCONNECTED",
    "icmp": "UNCONNECTED",
    "mptcp": None,
    "sctp": None,
    "dccp": None,
    "smc": None,
}
