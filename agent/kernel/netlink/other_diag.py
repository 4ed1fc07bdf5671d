"""The sock_diag dumps of netlink and packet sockets. Pure.

Formats: ``include/uapi/linux/{netlink_diag,packet_diag}.h``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from socket import AF_NETLINK, AF_PACKET
from struct import Struct

from ...model import Socket
from ..rows import Scope, Table, netlink_protocol, packet_protocol, update_table
from .messages import MALFORMED, NO_COOKIE, SOURCE, Dump, make_request, parse_attributes

# Family, protocol, padding; inode; attributes to show; cookie. For both families.
_REQUEST = Struct("=BBHII8s")
_U32 = Struct("=I")

_EVERY_PROTOCOL = 255  # NDIAG_PROTO_ALL
# Family, type, protocol, state; port id, peer's port id, group; inode, cookie.
_NETLINK_ROW = Struct("=xxBxI4x4xI8x")
_NETLINK_SHOW_MEMORY, _NETLINK_MEMORY = 1, 0
_MEMORY = Struct("=I4xI")  # linux/sock_diag.h: receive memory, its limit, send memory.

# Family, type, EtherType; inode, cookie.
_PACKET_ROW = Struct("=xxHI8x")
_PACKET_SHOW_INFO, _PACKET_SHOW_MEMORY = 1, 0x10
_PACKET_INFO, _PACKET_UID, _PACKET_MEMORY = 0, 5, 6

# Decodes one row of a namespace. Raises MALFORMED.
_DecodeRow = Callable[[bytes, int | None], Socket]


def netlink_dump() -> Dump:
    """Return the dump of netlink, with every protocol."""
    body = _REQUEST.pack(AF_NETLINK, _EVERY_PROTOCOL, 0, 0, _NETLINK_SHOW_MEMORY, NO_COOKIE)
    return Dump(("netlink",), (make_request(body),), partial(_read, _decode_netlink))


def packet_dump() -> Dump:
    """Return the dump of packet."""
    show = _PACKET_SHOW_INFO | _PACKET_SHOW_MEMORY
    body = _REQUEST.pack(AF_PACKET, 0, 0, 0, show, NO_COOKIE)
    return Dump(("packet",), (make_request(body),), partial(_read, _decode_packet))


def _read(decode_row: _DecodeRow, rows: Sequence[bytes], scope: Scope, before: Table) -> Table:
    return update_table(rows, before, partial(_decode, decode_row, scope.netns))


def _decode(
    decode_row: _DecodeRow, netns: int | None, rows: Iterable[bytes]
) -> Iterator[tuple[bytes, Socket]]:
    for row in rows:
        try:
            yield row, decode_row(row, netns)
        except MALFORMED:
            continue


def _decode_netlink(row: bytes, netns: int | None) -> Socket:
    protocol, port, inode = _NETLINK_ROW.unpack_from(row)
    memory = parse_attributes(row, _NETLINK_ROW.size).get(_NETLINK_MEMORY)
    recv_q, send_q = (None, None) if memory is None else _MEMORY.unpack_from(memory)
    return Socket(
        # Port id 0 is the kernel's side, whose inode no process can hold.
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
    )


def _decode_packet(row: bytes, netns: int | None) -> Socket:
    number, inode = _PACKET_ROW.unpack_from(row)
    attributes = parse_attributes(row, _PACKET_ROW.size)
    interface, uid, recv_q = (
        _U32.unpack_from(attributes[kind])[0] if kind in attributes else None
        for kind in (_PACKET_INFO, _PACKET_UID, _PACKET_MEMORY)
    )
    return Socket(
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
    )
