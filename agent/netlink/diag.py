"""sock_diag(7) dumps: requests to bytes, and the bytes of answers to tables. Pure.

It knows no descriptors, no asyncio and no processes. Formats: sock_diag(7);
``include/uapi/linux/{netlink,sock_diag,inet_diag,unix_diag,netlink_diag,packet_diag}.h``.

What the kernel answers to a dump is a run of messages: one a socket, then NLMSG_DONE. DONE carries
an errno: a family that the kernel cannot dump answers DONE with -ENOENT and no rows, which must
not be read as "there are none".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from errno import EBADMSG
from functools import lru_cache
from socket import AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_UNIX, inet_ntop
from struct import Struct
from sys import byteorder
from typing import Any, NamedTuple

from ..directions import directions
from ..model import (
    DATAGRAM_STATES,
    TCP_STATES,
    Socket,
    Table,
    mark_accepted,
    netlink_protocol,
    packet_protocol,
)
from ..text import text

SOURCE = "netlink"

# A row as it is unpacked, its header's five fields first.
Row = tuple[Any, ...]

# linux/netlink.h: length, type, flags, sequence, port id.
_HEADER = Struct("=IHHII")
_ATTRIBUTE = Struct("=HH")  # length, type
_U32 = Struct("=I")
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ENDS = (_NLMSG_ERROR, _NLMSG_DONE)
_ERROR_KIND = _NLMSG_ERROR.to_bytes(2, byteorder)
_DONE_START = _HEADER.pack(20, _NLMSG_DONE, 0, 0, 0)[:6]
_NLM_F_REQUEST_DUMP = 0x301

# linux/sock_diag.h, linux/inet_diag.h
_SOCK_DIAG_BY_FAMILY = 20
_TCPDIAG_GETSOCK = 18  # The older request: AF_UNSPEC dumps IPv4 and IPv6 in one walk.
_TIME_WAIT, _LISTEN, _NEW_SYN_RECV = 6, 10, 12
_ALL_STATES = (1 << 13) - 2
# Rows of the states left out have no inode: connections that no process holds yet, or any more.
_HELD_STATES = _ALL_STATES & ~(1 << _TIME_WAIT) & ~(1 << _NEW_SYN_RECV)
_UDP, _UDPLITE = 17, 136
_TCP_STATES = dict(enumerate(TCP_STATES, 1))
_DATAGRAM_STATES = dict(zip((1, 7), DATAGRAM_STATES, strict=True))
_NO_ADDRESS = bytes(16)
# family, lengths of two prefixes, extensions; socket id; states, a cookie of its own.
_OLD_INET_REQUEST = Struct("=BBBB48xII")
# family, protocol, extensions, padding; states; socket id.
_INET_REQUEST = Struct("=BBBBI48x")
# The netlink header; family, state, timer, retransmits; both ports (network order), both
# addresses, interface, cookie; expiry, receive and send queue, uid, inode.
_INET = Struct("=IHHIIBBBBHH16s16sI8sIIIII")

# linux/unix_diag.h: family, protocol, padding; states; inode; what to show; cookie.
_UNIX_REQUEST = Struct("=BBHIII8s")
# The netlink header; family, type, state, padding; inode, cookie.
_UNIX = Struct("=IHHIIBBBxI8s")
_UNIX_SHOW_NAME, _UNIX_SHOW_QUEUES, _UNIX_SHOW_UID = 1, 0x10, 0x40
_UNIX_NAME, _UNIX_QUEUES, _UNIX_UID = 0, 4, 7
_UNIX_TYPES = {1: "stream", 2: "dgram", 5: "seqpacket"}
# Unix sockets use TCP's numbers for their states.
_UNIX_STATES = {1: "CONNECTED", 2: "CONNECTING", 7: "UNCONNECTED", 10: "LISTEN"}
_NO_COOKIE = b"\xff" * 8

# linux/netlink_diag.h: family, protocol (255: every one), padding; inode; what to show; cookie.
_NETLINK_REQUEST = Struct("=BBHII8s")
# The netlink header; family, type, protocol, state; port id, peer's port id, group; inode, cookie.
_NETLINK = Struct("=IHHIIBBBBIIII8s")
_NETLINK_SHOW_MEMORY, _NETLINK_MEMORY = 1, 0

# linux/packet_diag.h: family, protocol, padding; inode; what to show; cookie.
_PACKET_REQUEST = Struct("=BBHII8s")
# The netlink header; family, type, EtherType; inode, cookie.
_PACKET = Struct("=IHHIIBBHI8s")
_PACKET_SHOW_INFO, _PACKET_INFO, _PACKET_UID = 1, 0, 5


class DumpError(Exception):
    """The kernel did not dump, or not all of it; ``errno`` says why."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


# (buffers, network namespace, ephemeral ports) → tables by their names in /proc/net
Decode = Callable[[Sequence[bytes], int | None, range], dict[str, Table]]


class Dump(NamedTuple):
    """A dump: the requests to send, one after the other, and what decodes all their answers.

    ``tables`` are the tables of ``/proc/net`` that it stands for.
    """

    tables: tuple[str, ...]
    requests: tuple[bytes, ...]
    decode: Decode


def is_last(buffer: bytes) -> bool:
    """Whether an answer ends with this buffer: in DONE, or in an error instead of an answer."""
    return buffer[-20:-14] == _DONE_START or buffer[4:6] == _ERROR_KIND


def _rows(buffers: Sequence[bytes], layout: Struct) -> Iterator[tuple[bytes, int, Row]]:
    """(buffer, end, fields) of every row. Raises DumpError when an answer is an error or not whole.

    A row is unpacked together with its header; so is a message that ends the answer, if there is
    enough behind it, and else by itself.
    """
    ended = True
    unpack, fixed = layout.unpack_from, layout.size
    for buffer in buffers:
        at, size, ended = 0, len(buffer), False
        while at < size:
            if at + fixed <= size:
                row = unpack(buffer, at)
            elif at + _HEADER.size <= size:
                row = _HEADER.unpack_from(buffer, at)
            else:
                raise DumpError(EBADMSG)
            length = row[0]
            if length < _HEADER.size or at + length > size:
                raise DumpError(EBADMSG)
            if row[1] in _ENDS:
                code = int.from_bytes(buffer[at + 16 : at + 20], byteorder, signed=True)
                if code:
                    raise DumpError(-code)
                ended = True
            elif length >= fixed:
                yield buffer, at + length, row
            at += (length + 3) & ~3
    if not ended:
        raise DumpError(EBADMSG)


def _attributes(buffer: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(type, value) of the attributes behind a row."""
    while at + 4 <= end:
        length, kind = _ATTRIBUTE.unpack_from(buffer, at)
        if length < 4 or at + length > end:
            return
        yield kind, buffer[at + 4 : at + length]
        at += (length + 3) & ~3


@lru_cache(maxsize=65_536)
def _address(family: int, raw: bytes) -> str:
    return inet_ntop(AF_INET, raw[:4]) if family == AF_INET else inet_ntop(AF_INET6, raw)


def inet(proto: str, *, unheld: bool = False) -> Dump:
    """The dump of tcp, udp or udplite, IPv4 and IPv6. ``unheld``: with rows without an inode."""
    states = _ALL_STATES if unheld else _HELD_STATES
    if proto == "tcp":
        requests: tuple[bytes, ...] = (
            _request(_TCPDIAG_GETSOCK, _OLD_INET_REQUEST.pack(0, 0, 0, 0, states, 0)),
        )
    else:
        number = _UDP if proto == "udp" else _UDPLITE
        requests = tuple(
            _request(_SOCK_DIAG_BY_FAMILY, _INET_REQUEST.pack(family, number, 0, 0, states))
            for family in (AF_INET, AF_INET6)
        )

    def decode(buffers: Sequence[bytes], netns: int | None, ephemeral: range) -> dict[str, Table]:
        return _decode_inet(buffers, proto, netns, ephemeral)

    return Dump((proto, proto + "6"), requests, decode)


def _decode_inet(
    buffers: Sequence[bytes], proto: str, netns: int | None, ephemeral: range
) -> dict[str, Table]:
    tables = {AF_INET: Table({}, [], 0), AF_INET6: Table({}, [], 0)}
    rows = [row for _buffer, _end, row in _rows(buffers, _INET)]
    is_tcp = proto == "tcp"
    direct = directions(*_listeners(rows), ephemeral) if is_tcp else None
    states = _TCP_STATES if is_tcp else _DATAGRAM_STATES
    names = {AF_INET: "inet", AF_INET6: "inet6"}
    make, address = Socket._make, _address
    for (
        _length, _kind, _flags, _sequence, _port_id, family, code, _timer, _retransmits, port,
        peer_port, local, remote, _interface, _cookie, _expires, recv_q, send_q, uid, inode,
    ) in rows:  # fmt: skip
        table = tables.get(family)
        if table is None:
            continue
        state = states.get(code)
        local_port = (port & 0xFF) << 8 | port >> 8
        remote_port: int | None = (peer_port & 0xFF) << 8 | peer_port >> 8
        if remote_port or remote != _NO_ADDRESS:
            remote_addr: str | None = address(family, remote)
        else:
            remote_addr = remote_port = None
        direction = (
            direct((local, port), local_port, (remote, peer_port), state) if direct else None
        )
        row = make((
            inode, proto, names[family], None, state, address(family, local), local_port,
            remote_addr, remote_port, None, direction, recv_q,
            # Of a listener text shows no send queue; here it is the backlog that it asked for.
            0 if code == _LISTEN else send_q,
            uid if inode else None, netns, SOURCE,
        ))  # fmt: skip
        if inode:
            table.sockets[inode] = row
        else:
            table.unheld.append(row)
    return {proto: tables[AF_INET], proto + "6": tables[AF_INET6]}


def _listeners(rows: list[Row]) -> tuple[set[tuple[bytes, int]], set[int]]:
    """The endpoints listened on, and the ports listened on at every address."""
    listeners, wild = set(), set()
    for row in rows:
        if row[6] == _LISTEN:
            port, local = row[9], row[11]
            listeners.add((local, port))
            if local == _NO_ADDRESS:
                wild.add((port & 0xFF) << 8 | port >> 8)
    return listeners, wild


def unix() -> Dump:
    """The dump of unix."""
    show = _UNIX_SHOW_NAME | _UNIX_SHOW_QUEUES | _UNIX_SHOW_UID
    body = _UNIX_REQUEST.pack(AF_UNIX, 0, 0, 0xFFFF_FFFF, 0, show, _NO_COOKIE)
    return Dump(("unix",), (_request(_SOCK_DIAG_BY_FAMILY, body),), _decode_unix)


def _decode_unix(
    buffers: Sequence[bytes], netns: int | None, _ephemeral: range
) -> dict[str, Table]:
    table = Table({}, [], 0)
    listening: set[str] = set()
    make = Socket._make
    for buffer, end, row in _rows(buffers, _UNIX):
        kind, code, inode = row[6], row[7], row[8]
        path = recv_q = send_q = uid = None
        for attribute, value in _attributes(buffer, end - row[0] + _UNIX.size, end):
            if attribute == _UNIX_QUEUES and len(value) == 8:
                recv_q, send_q = _U32.unpack(value[:4])[0], _U32.unpack(value[4:])[0]
            elif attribute == _UNIX_UID and len(value) == 4:
                uid = _U32.unpack(value)[0]
            elif attribute == _UNIX_NAME and value:
                path = _unix_path(value)
        state = _UNIX_STATES.get(code)
        if state == "LISTEN" and path:
            listening.add(path)
        direction = "listen" if state == "LISTEN" else None
        table.sockets[inode] = make((
            inode, "unix", "unix", _UNIX_TYPES.get(kind), state, None, None, None, None, path,
            direction, recv_q, send_q, uid, netns, SOURCE,
        ))  # fmt: skip
    mark_accepted(table, listening)
    return {"unix": table}


def _unix_path(raw: bytes) -> str:
    """The path as ``/proc/net/unix`` writes it: ``@`` for the NULs of an abstract name."""
    if raw[0]:
        return text(raw.split(b"\0", 1)[0])
    return text(raw.replace(b"\0", b"@"))


def netlink() -> Dump:
    """The dump of netlink, every protocol."""
    body = _NETLINK_REQUEST.pack(AF_NETLINK, 255, 0, 0, _NETLINK_SHOW_MEMORY, _NO_COOKIE)
    return Dump(("netlink",), (_request(_SOCK_DIAG_BY_FAMILY, body),), _decode_netlink)


def _decode_netlink(
    buffers: Sequence[bytes], netns: int | None, _ephemeral: range
) -> dict[str, Table]:
    table = Table({}, [], 0)
    for buffer, end, row in _rows(buffers, _NETLINK):
        protocol, port, inode = row[7], row[9], row[12]
        recv_q = send_q = None
        for attribute, value in _attributes(buffer, end - row[0] + _NETLINK.size, end):
            if attribute == _NETLINK_MEMORY and len(value) >= 12:
                recv_q, send_q = _U32.unpack(value[:4])[0], _U32.unpack(value[8:12])[0]
        socket = Socket(
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
        )
        if socket.inode:
            table.sockets[inode] = socket
        else:
            table.unheld.append(socket)
    return {"netlink": table}


def packet() -> Dump:
    """The dump of packet."""
    body = _PACKET_REQUEST.pack(AF_PACKET, 0, 0, 0, _PACKET_SHOW_INFO, _NO_COOKIE)
    return Dump(("packet",), (_request(_SOCK_DIAG_BY_FAMILY, body),), _decode_packet)


def _decode_packet(
    buffers: Sequence[bytes], netns: int | None, _ephemeral: range
) -> dict[str, Table]:
    table = Table({}, [], 0)
    for buffer, end, row in _rows(buffers, _PACKET):
        number, inode = row[7], row[8]
        interface = uid = recv_q = None
        for attribute, value in _attributes(buffer, end - row[0] + _PACKET.size, end):
            if attribute == _PACKET_INFO and len(value) >= 4:
                interface = _U32.unpack(value[:4])[0] or None
            elif attribute == _PACKET_UID and len(value) == 4:
                uid = _U32.unpack(value)[0]
        table.sockets[inode] = Socket(
            inode=inode,
            proto="packet",
            family="packet",
            type=None,
            state="UNCONNECTED",
            local_addr=packet_protocol(number),
            local_port=interface,
            recv_q=recv_q,
            uid=uid,
            netns=netns,
            source=SOURCE,
        )
    return {"packet": table}


def _request(kind: int, body: bytes) -> bytes:
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, _NLM_F_REQUEST_DUMP, 1, 0) + body
