"""Receive datagrams from a netlink socket, with what is needed to accept only the kernel's.

Any process in the network namespace of a socket may send to the socket's port id, and to its
multicast groups, as far as CAP_NET_ADMIN over the namespace allows it: who owns a user namespace
has that capability in the network namespaces that belong to it.
"""

from __future__ import annotations

import socket
from typing import NamedTuple

KERNEL = (0, 0)  # The kernel's port id, and no group.
# The kernel fills 32 KiB at a time; twice that leaves room.
_MAX_BYTES = 64 * 1024


class Datagram(NamedTuple):
    """A datagram. One that is ``truncated``, or not ``from_kernel``, must not be parsed."""

    data: bytes
    from_kernel: bool
    truncated: bool


def receive(link: socket.socket) -> Datagram:
    """Return the next datagram. Raises OSError as recvmsg(2) does."""
    data, _ancillary, flags, sender = link.recvmsg(_MAX_BYTES)
    # Of a sender there is (port id, groups).
    return Datagram(data, sender[0] == KERNEL[0], bool(flags & socket.MSG_TRUNC))
