"""The sock_diag dumps of unix, netlink and packet sockets. Pure.

Formats: ``include/uapi/linux/{unix_diag,netlink_diag,packet_diag}.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from socket import AF_NETLINK, AF_PACKET, AF_UNIX
from struct import Struct

from ...model import (
    Socket,
    accepted,
    connected,
    inbound_inodes,
    listening_paths,
    netlink_protocol,
    packet_protocol,
)
from ...text import decode
from ..rows import Scope, Table, reread
from .inet_diag import (
    LISTEN,
    MALFORMED,
    SOCK_DIAG_BY_FAMILY,
    SOURCE,
    Dump,
    attributes,
    request,
)

_U32 = Struct("=I")

# linux/unix_diag.h: family, protocol, padding; states; inode; what to show; cookie.
_UNIX_REQUEST = Struct("=BBHIII8s")
# Family, type, state, padding; inode, cookie.
_UNIX = Struct("=xBBxIQ")
# What most rows are: without a name, with peer, queues, shutdown and uid, and the kinds of these.
_UNIX_USUAL = Struct("=xBBxIQ2xHI2xHII2xH4x2xHI")
_UNIX_USUAL_KINDS = (2, 4, 6, 7)
_QUEUES = Struct("=II")  # Receive, send.
_UNIX_SHOW_NAME, _UNIX_SHOW_PEER, _UNIX_SHOW_QUEUES, _UNIX_SHOW_UID = 1, 4, 0x10, 0x40
_UNIX_NAME, _UNIX_PEER, _UNIX_QUEUES, _UNIX_UID = 0, 2, 4, 7
_UNIX_TYPES = {1: "stream", 2: "dgram", 5: "seqpacket"}
# Unix sockets use TCP's numbers for their states.
_UNIX_STATES = {1: "CONNECTED", 2: "CONNECTING", 7: "UNCONNECTED", 10: "LISTEN"}
_NO_COOKIE = b"\xff" * 8

# linux/netlink_diag.h: family, protocol (255: every one), padding; inode; what to show; cookie.
_NETLINK_REQUEST = Struct("=BBHII8s")
# Family, type, protocol, state; port id, peer's port id, group; inode, cookie.
_NETLINK = Struct("=xxBxI4x4xI8x")
_MEMORY = Struct("=I4xI")  # linux/sock_diag.h: receive memory, its bound, send memory.
_NETLINK_SHOW_MEMORY, _NETLINK_MEMORY = 1, 0

# linux/packet_diag.h: family, protocol, padding; inode; what to show; cookie.
_PACKET_REQUEST = Struct("=BBHII8s")
# Family, type, EtherType; inode, cookie.
_PACKET = Struct("=xxHI8x")
_PACKET_SHOW_INFO, _PACKET_SHOW_MEMORY = 1, 0x10
_PACKET_SHOW = _PACKET_SHOW_INFO | _PACKET_SHOW_MEMORY
_PACKET_INFO, _PACKET_UID, _PACKET_MEMORY = 0, 5, 6


def unix() -> Dump:
    """The dump of unix."""
    show = _UNIX_SHOW_NAME | _UNIX_SHOW_PEER | _UNIX_SHOW_QUEUES | _UNIX_SHOW_UID
    body = _UNIX_REQUEST.pack(AF_UNIX, 0, 0, 0xFFFF_FFFF, 0, show, _NO_COOKIE)
    return Dump(("unix",), (request(SOCK_DIAG_BY_FAMILY, body),), _read_unix)


def _read_unix(rows: Sequence[bytes], scope: Scope, before: Table) -> Table:
    def decode(fresh: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        decoded = list(_unix(fresh, scope.netns))
        listening = listening_paths(before.rows.values())
        listening |= listening_paths(socket for _row, socket in decoded)
        decoded = [(row, accepted(socket, listening)) for row, socket in decoded]
        inbound = inbound_inodes(before.rows.values())
        inbound |= inbound_inodes(socket for _row, socket in decoded)
        for row, socket in decoded:
            yield row, connected(socket, inbound)

    return reread(rows, before, decode)


def _unix(rows: Iterable[bytes], netns: int | None) -> Iterator[tuple[bytes, Socket]]:
    make, usual = Socket._make, _UNIX_USUAL.unpack
    for row in rows:
        path = recv_q = send_q = uid = peer = backlog = None
        if len(row) == _UNIX_USUAL.size:
            (
                kind, code, inode, cookie, first, peer, second, recv_q, send_q, third, fourth, uid,
            ) = usual(row)  # fmt: skip
            if (first, second, third, fourth) == _UNIX_USUAL_KINDS and code != LISTEN:
                yield (
                    row,
                    make((
                        inode, "unix", "unix", _UNIX_TYPES.get(kind), _UNIX_STATES.get(code), None,
                        None, None, None, None, None, recv_q, send_q, uid, netns, SOURCE,
                        peer or None, None, None, None, cookie,
                    )),
                )  # fmt: skip
                continue
            path = recv_q = send_q = uid = peer = None
        if len(row) < _UNIX.size:
            continue
        kind, code, inode, cookie = _UNIX.unpack_from(row)
        try:
            for attribute, value in attributes(row, _UNIX.size):
                if attribute == _UNIX_QUEUES:
                    recv_q, send_q = _QUEUES.unpack_from(value)
                elif attribute == _UNIX_UID:
                    (uid,) = _U32.unpack_from(value)
                elif attribute == _UNIX_PEER:
                    (peer,) = _U32.unpack_from(value)
                elif attribute == _UNIX_NAME and value:
                    path = _unix_path(value)
        except MALFORMED:
            continue
        state = _UNIX_STATES.get(code)
        if code == LISTEN:  # What is the send queue of others.
            backlog, send_q = send_q, 0
        yield (
            row,
            make((
                inode, "unix", "unix", _UNIX_TYPES.get(kind), state, None, None, None, None, path,
                "listen" if state == "LISTEN" else None, recv_q, send_q, uid, netns, SOURCE,
                peer or None, backlog, None, None, cookie,
            )),
        )  # fmt: skip


def _unix_path(raw: bytes) -> str:
    """The path as ``/proc/net/unix`` writes it: ``@`` for the NULs of an abstract name."""
    if raw[0]:
        return decode(raw.split(b"\0", 1)[0])
    return decode(raw.replace(b"\0", b"@"))


def netlink() -> Dump:
    """The dump of netlink, every protocol."""
    body = _NETLINK_REQUEST.pack(AF_NETLINK, 255, 0, 0, _NETLINK_SHOW_MEMORY, _NO_COOKIE)
    asked = request(SOCK_DIAG_BY_FAMILY, body)
    return Dump(("netlink",), (asked,), partial(_read_plain, _netlink))


def _read_plain(
    decode: Callable[[Iterable[bytes], int | None], Iterator[tuple[bytes, Socket]]],
    rows: Sequence[bytes],
    scope: Scope,
    before: Table,
) -> Table:
    return reread(rows, before, lambda fresh: decode(fresh, scope.netns))


def _netlink(rows: Iterable[bytes], netns: int | None) -> Iterator[tuple[bytes, Socket]]:
    for row in rows:
        if len(row) < _NETLINK.size:
            continue
        protocol, port, inode = _NETLINK.unpack_from(row)
        recv_q = send_q = None
        try:
            for attribute, value in attributes(row, _NETLINK.size):
                if attribute == _NETLINK_MEMORY:
                    recv_q, send_q = _MEMORY.unpack_from(value)
        except MALFORMED:
            continue
        yield (
            row,
            Socket(
                # Port id 0 is the kernel's own end, which has an inode that no process can hold.
                inode=inode if port else 0,
                proto="netlink",
                family="netlink",
                type=None,
                state="UNCONNECTED",
                local_addr=netlink_protocol(protocol),
                local_port=port,
                recv_q=recv_q,
                send_q=send_q,
                netns=netns,
                source=SOURCE,
            ),
        )


def packet() -> Dump:
    """The dump of packet."""
    body = _PACKET_REQUEST.pack(AF_PACKET, 0, 0, 0, _PACKET_SHOW, _NO_COOKIE)
    asked = request(SOCK_DIAG_BY_FAMILY, body)
    return Dump(("packet",), (asked,), partial(_read_plain, _packet))


def _packet(rows: Iterable[bytes], netns: int | None) -> Iterator[tuple[bytes, Socket]]:
    for row in rows:
        if len(row) < _PACKET.size:
            continue
        number, inode = _PACKET.unpack_from(row)
        interface = uid = recv_q = None
        try:
            for attribute, value in attributes(row, _PACKET.size):
                if attribute == _PACKET_INFO:
                    (interface,) = _U32.unpack_from(value)
                elif attribute == _PACKET_UID:
                    (uid,) = _U32.unpack_from(value)
                elif attribute == _PACKET_MEMORY:
                    (recv_q,) = _U32.unpack_from(value)
        except MALFORMED:
            continue
        yield (
            row,
            Socket(
                inode=inode,
                proto="packet",
                family="packet",
                type=None,
                state="UNCONNECTED",
                local_addr=packet_protocol(number),
                local_port=interface or None,
                recv_q=recv_q,
                uid=uid,
                netns=netns,
                source=SOURCE,
            ),
        )
