"""Read the protocol of a socket through its descriptor, from the extended attribute
``system.sockprotoname`` (``net/socket.c``).

Blocking. If the descriptor now refers to a file, the file system of that file is not accessed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from operator import itemgetter

from ...model import Socket
from ...text import decode
from .fd import SOCKET_PREFIX
from .files import GONE_ERRNOS, Progress

_OWN_FDS = "/proc/self/fd"  # Of this kernel, also where another procfs is read.
_ATTRIBUTE = "system.sockprotoname"
SocketFd = tuple[int, int, int]  # (pid, descriptor, inode of its socket)


def read_protocols(
    root: str, descriptors: Iterable[SocketFd], progress: Progress | None = None
) -> dict[SocketFd, bytes | None]:
    """Return the kernel's name of the protocol of each socket, for ``socket_from_protocol``. The
    name is empty when the descriptor no longer leads to that socket, None when it cannot be read.
    ``root`` is the procfs."""
    return {
        descriptor: _read_protocol(root, *descriptor)
        for descriptor in (progress or Progress()).each(descriptors, itemgetter(0))
    }


def _read_protocol(root: str, pid: int, fd: int, inode: int) -> bytes | None:
    path, target = f"{root}/{pid}/fd/{fd}", f"{SOCKET_PREFIX}{inode}]"
    # The descriptor may lead to a file meanwhile, on a file system that does not answer. open with
    # O_PATH and readlink do not access that file system. stat and getxattr do: they are not called
    # before it is certain that this is the socket.
    with suppress(OSError):
        own_fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            own_path = f"{_OWN_FDS}/{own_fd}"
            if os.readlink(own_path) == target:
                return os.getxattr(own_path, _ATTRIBUTE)
        finally:
            os.close(own_fd)
    try:
        return None if os.readlink(path) == target else b""
    except OSError as error:
        return b"" if error.errno in GONE_ERRNOS else None


# The kernel's names (.name of its struct proto) of protocols that records name otherwise.
_PROTOCOL_NAMES = {"udp-lite": "udplite", "ping": "icmp", "unix-stream": "unix"}
# Protocols of the inet families, with the state of their sockets that are in no table.
_INET_UNBOUND: dict[str, str | None] = {
    "tcp": "CLOSE",
    **dict.fromkeys(("udp", "udplite", "raw", "icmp"), "UNCONNECTED"),
    **dict.fromkeys(("mptcp", "sctp", "dccp", "smc")),
}


def socket_from_protocol(inode: int, name: bytes | None, netns: int | None = None) -> Socket:
    """Return a socket that is in no table, from its name of ``read_protocols``, which may be None.
    TCP and UDP sockets are in no table while they are not bound."""
    if not name:
        return Socket(inode, None, None, None, None, netns=netns)
    proto = decode(name.rstrip(b"\0")).lower().removeprefix("af_")
    family = "inet6" if proto.endswith("v6") else "inet"
    proto = proto.removesuffix("v6")
    proto = _PROTOCOL_NAMES.get(proto, proto)
    if proto in _INET_UNBOUND:
        return Socket(inode, proto, family, None, _INET_UNBOUND[proto], netns=netns)
    state = "UNCONNECTED" if proto in ("netlink", "packet") else None
    return Socket(inode, proto, proto, None, state, netns=netns)
