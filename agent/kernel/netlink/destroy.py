"""What sock_diag's destroy notices tell: sockets that came and went between two readings. Pure.

The kernel sends one for every TCP and UDP socket's end (``net/core/sock_diag.c``,
sock_diag_broadcast_destroy), with its cookie, addresses and state, but without uid and inode. The
cookie is never used again: a notice whose cookie is in no reading is of a socket that nobody saw.
"""

from __future__ import annotations

from collections.abc import Sequence
from sys import byteorder
from typing import NamedTuple

from ...model import Socket
from ..direction import directions
from ..rows import Scope, Table
from .inet_diag import (
    HEADER_BYTES,
    INET_BYTES,
    LENGTH_AND_KIND,
    MALFORMED,
    SOCK_DIAG_BY_FAMILY,
    SOURCE,
    MalformedRow,
    attributes,
    inet_fields,
    is_inet,
    listeners,
)

# linux/sock_diag.h: the groups of TCP and UDP, IPv4 and IPv6.
GROUPS = (1, 2, 3, 4)
_PROTOCOL = 10  # INET_DIAG_PROTOCOL
_PROTOCOLS = {6: "tcp", 17: "udp", 136: "udplite"}
PROTOCOLS = frozenset(_PROTOCOLS.values())
# Where the local port and the cookie are in a row or a notice.
_LOCAL_PORT = slice(4, 6)
_COOKIE = slice(44, 52)


class Ended(NamedTuple):
    """A notice: the socket's cookie, protocol and the message without header and attributes."""

    cookie: int
    proto: str
    notice: bytes


def notices(buffer: bytes) -> tuple[list[Ended], int]:
    """Return the notices of bound sockets in a datagram, and the number of malformed messages."""
    found: list[Ended] = []
    malformed = at = 0
    while at < len(buffer):
        if at + HEADER_BYTES > len(buffer):
            return found, malformed + 1
        length, kind = LENGTH_AND_KIND.unpack_from(buffer, at)
        if length < HEADER_BYTES or at + length > len(buffer):
            return found, malformed + 1
        notice = buffer[at + HEADER_BYTES : at + length]
        try:
            number = _protocol_of(kind, notice)
        except MALFORMED:
            malformed += 1
        else:
            proto = _PROTOCOLS.get(number)
            # A socket without a local port was never bound: it was in no table either.
            if proto is not None and notice[_LOCAL_PORT] != b"\0\0":
                cookie = int.from_bytes(notice[_COOKIE], byteorder)
                found.append(Ended(cookie, proto, notice[:INET_BYTES]))
        at += (length + 3) & ~3
    return found, malformed


def _protocol_of(kind: int, notice: bytes) -> int:
    """Return the protocol of a notice. Raises MALFORMED."""
    if kind == SOCK_DIAG_BY_FAMILY and is_inet(notice):
        for attribute, value in attributes(notice, INET_BYTES):
            if attribute == _PROTOCOL and value:
                return value[0]
    raise MalformedRow


def short_lived(unseen: Sequence[Ended], tcp: Table, scope: Scope) -> list[Socket]:
    """Return the sockets of these notices, which no reading showed, in the same order.

    ``tcp`` is the last reading of tcp.
    """
    parsed = [(one, fields) for one in unseen if (fields := inet_fields(one.notice)) is not None]
    found, wild = listeners(tcp.rows)
    for one, (_family, _local, remote, endpoints) in parsed:
        if one.proto == "tcp" and remote[0] is None:  # Bound without a peer: it may have listened.
            found.add(endpoints[0])
    direct = directions(found, wild, scope.ephemeral)
    sockets = []
    for one, (family, local, remote, endpoints) in parsed:
        direction = direct(endpoints[0], local[1] or 0, endpoints[1], "ESTABLISHED")
        sockets.append(
            Socket(
                inode=0,
                proto=one.proto,
                family=family,
                type=None,
                state=None,  # What it was before its end is not told.
                local_addr=local[0],
                local_port=local[1],
                remote_addr=remote[0],
                remote_port=remote[1],
                direction=direction if one.proto == "tcp" and remote[0] is not None else None,
                netns=scope.netns,
                source=SOURCE,
                cookie=one.cookie,
            )
        )
    return sockets
