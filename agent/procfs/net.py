"""Bytes of ``/proc/net/*`` to sockets. Pure: it knows no files, no asyncio and no processes.

Formats: ``Documentation/networking/proc_net_tcp.rst``; ``net/ipv4/tcp_ipv4.c`` (tcp4_seq_show),
``udp.c``, ``raw.c``, ``ping.c`` and their IPv6 twins; ``net/unix/af_unix.c`` (unix_seq_show);
``net/netlink/af_netlink.c`` (netlink_native_seq_show); ``net/packet/af_packet.c``
(packet_seq_show).

No input raises: a row that cannot be read is skipped and counted in ``Table.malformed``.
"""

from __future__ import annotations

import re
import sys
from binascii import unhexlify
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop

from ..directions import EPHEMERAL, directions
from ..model import (
    DATAGRAM_STATES,
    TCP_STATES,
    UNIX_STATES,
    Socket,
    Table,
    mark_accepted,
    netlink_protocol,
    packet_protocol,
)
from ..text import text

_TCP = {b"%02X" % code: name for code, name in enumerate(TCP_STATES, 1)}
# Datagram sockets use two of the TCP codes: 01 with a peer, 07 (CLOSE) without.
_DATAGRAM = dict(zip((b"01", b"07"), DATAGRAM_STATES, strict=True))
_ANY = (b"0" * 8, b"0" * 32)
_EMPTY_QUEUES = b"00000000:00000000"


@lru_cache(maxsize=65_536)  # Addresses repeat far more than they differ; about 150 bytes each.
def address(digits: bytes) -> str:
    """The canonical text of an address as the tables print it: 32-bit words in host order.

    Raises ValueError when it is not 8 or 32 hexadecimal digits.
    """
    raw = unhexlify(digits)
    if len(raw) not in (4, 16):
        raise ValueError(f"not an address: {digits!r}")
    if sys.byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return inet_ntop(AF_INET if len(raw) == 4 else AF_INET6, raw)


def parse(name: str, data: bytes, netns: int | None, ephemeral: range = EPHEMERAL) -> Table:
    """The table that is named so in ``/proc/net``."""
    plain = _PLAIN.get(name)
    if plain is not None:
        return plain(data, netns)
    family = "inet6" if name.endswith("6") else "inet"
    return parse_inet(data, name.removesuffix("6"), family, netns, ephemeral)


def table_of(socket: Socket) -> str:
    """The name of the table that lists such a socket, if one does."""
    return f"{socket.proto}6" if socket.family == "inet6" else str(socket.proto)


def parse_inet(
    data: bytes,
    proto: str,
    family: str,
    netns: int | None = None,
    ephemeral: range = EPHEMERAL,
) -> Table:
    """Rows of tcp, udp, udplite, raw and icmp, and of their IPv6 twins.

    ``ephemeral`` are the ports that the kernel chooses from: with no listener in sight, a socket
    on one of them is taken for the side that connected.
    """
    sockets: dict[int, Socket] = {}
    unheld: list[Socket] = []
    malformed = 0
    lines = _rows(data)
    states = _TCP if proto == "tcp" else _DATAGRAM
    direct = directions(*_listeners(lines), ephemeral) if proto == "tcp" else None
    any_address = _ANY[family == "inet6"]
    make = Socket._make  # Half the cost of Socket(), which counts here.
    for line in lines:
        fields = line.split(None, 10)
        try:
            inode = int(fields[9])
            fields[10]  # A row cut off inside its inode would name another socket.
            uid: int | None = int(fields[7])
            local, _, port = fields[1].partition(b":")
            local_port = int(port, 16)
            local_addr = address(local)
            remote, _, port = fields[2].partition(b":")
            remote_port: int | None = int(port, 16)
            if remote_port or remote != any_address:
                remote_addr: str | None = address(remote)
            else:
                remote_addr = remote_port = None
            queues = fields[4]
            if queues == _EMPTY_QUEUES:
                send_q = recv_q = 0
            else:
                send, _, recv = queues.partition(b":")
                send_q, recv_q = int(send, 16), int(recv, 16)
        except (IndexError, ValueError):
            malformed += 1
            continue
        state = states.get(fields[3])
        direction = direct(fields[1], local_port, fields[2], state) if direct else None
        if not inode:
            uid = None  # Such rows print uid 0 whoever owned them.
        row = make((
            inode, proto, family, None, state, local_addr, local_port, remote_addr, remote_port,
            None, direction, recv_q, send_q, uid, netns, "procfs",
        ))  # fmt: skip
        if inode:
            sockets[inode] = row
        else:
            unheld.append(row)
    return Table(sockets, unheld, malformed)


def _rows(data: bytes) -> list[bytes]:
    """The lines of a table without its heading."""
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()
    del lines[:1]
    return lines


def _listeners(lines: list[bytes]) -> tuple[set[bytes], set[int]]:
    """The endpoints listened on, and the ports listened on at every address."""
    listeners: set[bytes] = set()
    wild: set[int] = set()
    for line in lines:
        if b" 0A " not in line:
            continue
        fields = line.split(None, 4)
        if len(fields) > 3 and fields[3] == b"0A":
            listeners.add(fields[1])
            host, _, port = fields[1].partition(b":")
            if host in _ANY:
                with suppress(ValueError):
                    wild.add(int(port, 16))
    return listeners, wild


# Num: RefCount Protocol Flags Type St Inode[ Path]; the path may hold spaces, and newlines too.
_UNIX_ROW = re.compile(
    rb"[0-9A-Fa-f]+: [0-9A-F]{8} [0-9A-F]{8} ([0-9A-F]{8}) ([0-9A-F]{4}) ([0-9A-F]{2}) +"
    rb"(\d{1,10})(?: (.*))?",
    re.DOTALL,
)
_ACCEPTS = 1 << 16  # __SO_ACCEPTCON in include/uapi/linux/net.h.
_UNIX_TYPES = {b"0001": "stream", b"0002": "dgram", b"0005": "seqpacket"}
_UNIX_STATE_NAMES = {b"%02X" % code: name for code, name in enumerate(UNIX_STATES, 1)}


def parse_unix(data: bytes, netns: int | None = None) -> Table:
    """Rows of unix. A path with newlines spreads over lines that are no rows: they are its rest."""
    sockets: dict[int, Socket] = {}
    unheld: list[Socket] = []
    malformed = 0
    listening: set[str] = set()
    lines = _rows(data)
    make = Socket._make
    at = 0
    while at < len(lines):
        match = _UNIX_ROW.fullmatch(lines[at])
        at += 1
        if match is None:
            malformed += 1
            continue
        flags, kind, code, digits, name = match.groups()
        path = None
        if name:
            while at < len(lines) and not _UNIX_ROW.fullmatch(lines[at]):
                name += b"\n" + lines[at]
                at += 1
            path = text(name)
        state = _UNIX_STATE_NAMES.get(code)
        direction = None
        if int(flags, 16) & _ACCEPTS:
            state, direction = "LISTEN", "listen"
            if path:
                listening.add(path)
        inode = int(digits)
        kind_name = _UNIX_TYPES.get(kind)
        row = make((
            inode, "unix", "unix", kind_name, state, None, None, None, None, path, direction,
            None, None, None, netns, "procfs",
        ))  # fmt: skip
        if inode:
            sockets[inode] = row
        else:
            unheld.append(row)
    table = Table(sockets, unheld, malformed)
    mark_accepted(table, listening)
    return table


def parse_netlink(data: bytes, netns: int | None = None) -> Table:
    """Rows of netlink. ``local_addr`` is the netlink protocol, ``local_port`` the port id."""

    def row(fields: list[bytes]) -> Socket:
        port = int(fields[2]) & 0xFFFF_FFFF  # Printed signed by kernels before 5.x.
        return Socket(
            # Port id 0 is the kernel's own end, which has an inode that no process can hold.
            inode=int(fields[9]) if port else 0,
            proto="netlink",
            family="netlink",
            type=None,
            state="UNCONNECTED",
            local_addr=netlink_protocol(int(fields[1])),
            local_port=port,
            recv_q=int(fields[4]),
            send_q=int(fields[5]),
            netns=netns,
        )

    return _parse_plain(data, row)


def parse_packet(data: bytes, netns: int | None = None) -> Table:
    """Rows of packet. ``local_addr`` is ``*`` or the EtherType, ``local_port`` the interface."""

    def row(fields: list[bytes]) -> Socket:
        return Socket(
            inode=int(fields[8]),
            proto="packet",
            family="packet",
            type=None,
            state="UNCONNECTED",
            local_addr=packet_protocol(int(fields[3], 16)),
            local_port=int(fields[4]) or None,
            recv_q=int(fields[6]),
            uid=int(fields[7]),
            netns=netns,
        )

    return _parse_plain(data, row)


def _parse_plain(data: bytes, read: Callable[[list[bytes]], Socket]) -> Table:
    """A table of blank-separated columns, each row read by ``read``."""
    sockets: dict[int, Socket] = {}
    unheld: list[Socket] = []
    malformed = 0
    for line in _rows(data):
        try:
            row = read(line.split())
        except (IndexError, ValueError):
            malformed += 1
            continue
        if row.inode:
            sockets[row.inode] = row
        else:
            unheld.append(row)
    return Table(sockets, unheld, malformed)


# Names that getxattr("system.sockprotoname") gives (the kernel's struct proto .name) for the
# protocols that have a table; any other is passed on as the kernel calls it.
_PROTOCOL_NAMES = {
    "udp-lite": "udplite",
    "ping": "icmp",
    "unix-stream": "unix",
}


def unlisted(inode: int, name: bytes | None, netns: int | None = None) -> Socket:
    """A socket that is in no table, from what its descriptor says of its protocol.

    ``name`` is the value of ``system.sockprotoname`` (``net/socket.c``), None when it cannot be
    read. TCP and UDP sockets are in no table while they are not bound.
    """
    if not name:
        return Socket(inode, None, None, None, None, netns=netns)
    proto = text(name.rstrip(b"\0")).lower().removeprefix("af_")
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

_PLAIN: dict[str, Callable[[bytes, int | None], Table]] = {
    "unix": parse_unix,
    "netlink": parse_netlink,
    "packet": parse_packet,
}
