"""Destroy notices of sock_diag: the ends of TCP and UDP sockets. Pure.

The kernel sends a notice when such a socket is destroyed (``net/core/sock_diag.c``,
sock_diag_broadcast_destroy), with the socket's cookie and addresses, but without uid and inode. A
cookie is never used again: a notice with a cookie that no reading of the tables showed is of a
socket that opened and closed between two readings.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct
from sys import byteorder
from typing import NamedTuple

from ...model import Socket, TcpFigures
from ..direction import make_direction_finder
from ..rows import Scope, Table
from .inet_diag import ROW_BYTES, find_listeners, is_inet, parse_endpoints
from .messages import (
    HEADER_BYTES,
    LENGTH_AND_TYPE,
    MALFORMED,
    SOCK_DIAG_BY_FAMILY,
    SOURCE,
    MalformedRow,
    parse_attributes,
)

# linux/sock_diag.h: the multicast groups of TCP and UDP, IPv4 and IPv6.
GROUPS = (1, 2, 3, 4)
_INET_DIAG_INFO, _INET_DIAG_PROTOCOL = 2, 10
_PROTOCOLS = {6: "tcp", 17: "udp", 136: "udplite"}
PROTOCOLS = frozenset(_PROTOCOLS.values())
# Places in a row.
_LOCAL_PORT = slice(4, 6)
_COOKIE = slice(44, 52)
# struct tcp_info, linux/tcp.h: rtt in microseconds, total_retrans, bytes_received, segs_out,
# segs_in, bytes_sent. Linux before 4.19 sends a shorter one, without bytes_sent.
_TCP_INFO = Struct("=68xI 28xI 24xQII 56xQ")


class DestroyNotice(NamedTuple):
    """The cookie and the protocol of a destroyed socket, and its row without attributes.

    ``figures`` are of TCP only; None if the kernel does not report them, or if no segment was
    counted: disconnecting a socket, as SO_LINGER with zero seconds does, clears the counters.
    ``received`` is when the notice was read, in nanoseconds since boot.
    """

    cookie: int
    proto: str
    row: bytes
    figures: TcpFigures | None = None
    received: int = 0


def parse_notices(buffer: bytes, received: int = 0) -> tuple[list[DestroyNotice], int]:
    """Return the notices of bound sockets in a datagram, and the number of malformed messages.
    ``received`` is the time of all of them."""
    notices: list[DestroyNotice] = []
    malformed = at = 0
    while at < len(buffer):
        if at + HEADER_BYTES > len(buffer):
            return notices, malformed + 1
        length, kind = LENGTH_AND_TYPE.unpack_from(buffer, at)
        if length < HEADER_BYTES or at + length > len(buffer):
            return notices, malformed + 1
        row = buffer[at + HEADER_BYTES : at + length]
        try:
            number, info = _parse_message(kind, row)
        except MALFORMED:
            malformed += 1
        else:
            proto = _PROTOCOLS.get(number)
            # A socket without a local port was never bound, and therefore in no table.
            if proto is not None and row[_LOCAL_PORT] != b"\0\0":
                cookie = int.from_bytes(row[_COOKIE], byteorder)
                figures = _parse_figures(info) if proto == "tcp" else None
                notices.append(DestroyNotice(cookie, proto, row[:ROW_BYTES], figures, received))
        at += (length + 3) & ~3
    return notices, malformed


def _parse_message(kind: int, row: bytes) -> tuple[int, bytes]:
    """Return the protocol number and the tcp_info of a message, empty if it has none. Raises
    MALFORMED if the message is not a notice."""
    if kind != SOCK_DIAG_BY_FAMILY or not is_inet(row):
        raise MalformedRow
    attributes = parse_attributes(row, ROW_BYTES)
    protocol = attributes.get(_INET_DIAG_PROTOCOL)
    if not protocol:
        raise MalformedRow
    return protocol[0], attributes.get(_INET_DIAG_INFO, b"")


def _parse_figures(info: bytes) -> TcpFigures | None:
    if len(info) < _TCP_INFO.size:
        return None
    rtt, retransmits, received, segments_out, segments_in, sent = _TCP_INFO.unpack_from(info)
    if not segments_out and not segments_in:
        return None
    rtt_ms = rtt / 1000 if rtt else None
    return TcpFigures(sent, received, segments_out, segments_in, retransmits, rtt_ms)


def short_lived(notices: Sequence[DestroyNotice], tcp: Table, scope: Scope) -> list[Socket]:
    """Return the sockets of these notices, whose cookies no reading showed, in the same order.
    ``tcp`` is the last reading of tcp, whose listeners show the directions of connections."""
    parsed = [(notice, parse_endpoints(notice.row)) for notice in notices]
    listening, wildcard_ports = find_listeners(tcp.rows)
    for notice, ends in parsed:
        if notice.proto == "tcp" and ends.remote_addr is None:
            listening.add(ends.raw_local)  # Bound without a peer: it may have been a listener.
    find_direction = make_direction_finder(listening, wildcard_ports, scope.ephemeral_ports)
    sockets = []
    for notice, ends in parsed:
        direction = None
        if notice.proto == "tcp" and ends.remote_addr is not None:
            key = (ends.raw_local, ends.local_port, ends.raw_remote)
            direction = find_direction(*key, "ESTABLISHED")
        sockets.append(
            Socket(
                inode=0,
                proto=notice.proto,
                family=ends.family,
                type=None,
                state=None,  # The notice does not have the state before the end.
                local_addr=ends.local_addr,
                local_port=ends.local_port,
                remote_addr=ends.remote_addr,
                remote_port=ends.remote_port,
                direction=direction,
                netns=scope.netns,
                source=SOURCE,
                cookie=notice.cookie,
            )
        )
    return sockets
