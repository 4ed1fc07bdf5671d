"""Bytes of ``/proc/net/*`` to sockets. Pure: it knows no files, no asyncio and no processes.

Formats: ``Documentation/networking/proc_net_tcp.rst``; ``net/ipv4/tcp_ipv4.c`` (tcp4_seq_show),
``udp.c``, ``raw.c``, ``ping.c`` and their IPv6 twins; ``net/unix/af_unix.c`` (unix_seq_show);
``net/netlink/af_netlink.c`` (netlink_native_seq_show); ``net/packet/af_packet.c``
(packet_seq_show).

No input raises: a row that cannot be read is kept apart in ``Table.malformed``.
"""

from __future__ import annotations

import re
import sys
from binascii import unhexlify
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from socket import AF_INET, AF_INET6, inet_ntop

from ...model import (
    DATAGRAM_STATES,
    TCP_STATES,
    UNIX_STATES,
    Socket,
)
from ...text import decode
from ..direction import (
    DEFAULT_EPHEMERAL_PORTS,
    DirectionFinder,
    listening_paths,
    make_direction_finder,
    mark_inbound,
)
from ..protocols import netlink_protocol, packet_protocol
from ..rows import EMPTY, Table, update_table

SOURCE = "procfs"
# What text does not show: peer, backlog, interface, cgroup, cookie.
_UNKNOWN = (None,) * 5

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


def parse(
    name: str,
    data: bytes,
    netns: int | None,
    ephemeral: range = DEFAULT_EPHEMERAL_PORTS,
    before: Table = EMPTY,
) -> Table:
    """The table that is named so in ``/proc/net``; ``before`` is what was read of it last.

    ``ephemeral`` are the ports that the kernel chooses from: with no listener in sight, a socket
    on one of them is taken for the side that connected.
    """
    lines = data.split(b"\n")
    cut = lines.pop()  # Of a whole table nothing: a row cut inside its inode would name another.
    del lines[:1]  # The heading.
    if name == "unix":
        table = _read_unix(lines, netns, before)
    elif (row := _PLAIN.get(name)) is not None:
        table = update_table(lines, before, partial(_plain, row, netns))
    else:
        table = _read_inet(name, lines, netns, ephemeral, before)
    if not cut:
        return table
    if table is before:  # Then nothing came and nothing left.
        return Table(table.rows, table.malformed | {cut})
    return table._replace(malformed=table.malformed | {cut})


def table_of(socket: Socket) -> str:
    """The name of the table that lists such a socket, if one does."""
    return f"{socket.proto}6" if socket.family == "inet6" else str(socket.proto)


def _read_inet(
    name: str, lines: Iterable[bytes], netns: int | None, ephemeral: range, before: Table
) -> Table:
    """Rows of tcp, udp, udplite, raw and icmp, and of their IPv6 twins."""
    proto, family = name.removesuffix("6"), "inet6" if name.endswith("6") else "inet"
    # What stands before the colon is the row's place, which changes when others come and go.
    rows = [line.partition(b":")[2] or line for line in lines]

    def decode(fresh: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        direct = make_direction_finder(*_listeners(rows), ephemeral) if proto == "tcp" else None
        return _inet(fresh, proto, family, netns, direct)

    return update_table(rows, before, decode)


def _inet(
    rows: Iterable[bytes],
    proto: str,
    family: str,
    netns: int | None,
    direct: DirectionFinder | None,
) -> Iterator[tuple[bytes, Socket]]:
    states = _TCP if proto == "tcp" else _DATAGRAM
    any_address = _ANY[family == "inet6"]
    make = Socket._make  # Half the cost of Socket(), which counts here.
    for row in rows:
        fields = row.split(None, 9)
        try:
            inode = int(fields[8])
            fields[9]  # A row that ends inside its inode would name another socket.
            uid: int | None = (owner := int(fields[6]))
            local, _, port = fields[0].partition(b":")
            local_port = int(port, 16)
            local_addr = address(local)
            remote, _, port = fields[1].partition(b":")
            remote_port: int | None = (peer := int(port, 16))
            if remote_port or remote != any_address:
                remote_addr: str | None = address(remote)
            else:
                remote_addr = remote_port = None
            queues = fields[3]
            if queues == _EMPTY_QUEUES:
                send_q = recv_q = 0
            else:
                send, _, recv = queues.partition(b":")
                send_q, recv_q = int(send, 16), int(recv, 16)
            # Below 0, or more than 63, 32 or 16 bits: no kernel's.
            if (inode | send_q | recv_q | owner << 31 | (local_port | peer) << 47) >> 63:
                continue
        except (IndexError, ValueError):
            continue
        state = states.get(fields[2])
        direction = direct(fields[0], local_port, fields[1], state) if direct else None
        if not inode:
            uid = None  # Such rows print uid 0 whoever owned them.
        yield (
            row,
            make((
                inode, proto, family, None, state, local_addr, local_port, remote_addr,
                remote_port, None, direction, recv_q, send_q, uid, netns, SOURCE, *_UNKNOWN,
            )),
        )  # fmt: skip


def _listeners(rows: Iterable[bytes]) -> tuple[set[bytes], set[int]]:
    """The endpoints listened on, and the ports listened on at every address."""
    listeners: set[bytes] = set()
    wild: set[int] = set()
    for row in rows:
        if b" 0A " not in row:
            continue
        fields = row.split(None, 3)
        if len(fields) > 2 and fields[2] == b"0A":
            listeners.add(fields[0])
            host, _, port = fields[0].partition(b":")
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


def _read_unix(lines: Iterable[bytes], netns: int | None, before: Table) -> Table:
    """Rows of unix. A path with newlines spreads over lines that are no rows: they are its rest."""
    known, is_row = before.rows, _UNIX_ROW.fullmatch
    rows: list[bytes] = []
    for line in lines:
        if line in known or is_row(line):
            rows.append(line)
        elif rows and (match := is_row(rows[-1])) and match[5]:
            rows[-1] += b"\n" + line
        else:
            rows.append(line)

    def decode(fresh: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        decoded = list(_unix(fresh, netns))
        listening = listening_paths(known.values())
        listening |= listening_paths(socket for _row, socket in decoded)
        for row, socket in decoded:
            yield row, mark_inbound(socket, listening)

    return update_table(rows, before, decode)


def _unix(rows: Iterable[bytes], netns: int | None) -> Iterator[tuple[bytes, Socket]]:
    make = Socket._make
    for row in rows:
        match = _UNIX_ROW.fullmatch(row)
        if match is None:
            continue
        flags, kind, code, inode, path = match.groups()
        state, direction = _UNIX_STATE_NAMES.get(code), None
        if int(flags, 16) & _ACCEPTS:
            state, direction = "LISTEN", "listen"
        yield (
            row,
            make((
                int(inode), "unix", "unix", _UNIX_TYPES.get(kind), state, None, None, None, None,
                decode(path) if path else None, direction,
                None, None, None, netns, SOURCE, *_UNKNOWN,
            )),
        )  # fmt: skip


def _plain(
    read: Callable[[list[bytes], int | None], Socket], netns: int | None, rows: Iterable[bytes]
) -> Iterator[tuple[bytes, Socket]]:
    """Rows of blank-separated columns, each read by ``read``."""
    for row in rows:
        try:
            socket = read(row.split(), netns)
        except (IndexError, ValueError):
            continue
        queues = (socket.recv_q or 0) | (socket.send_q or 0)
        small = (socket.local_port or 0) | (socket.uid or 0)
        if not (socket.inode | queues | small << 31) >> 63:  # As above.
            yield row, socket


def _netlink_row(fields: list[bytes], netns: int | None) -> Socket:
    """``local_addr`` is the netlink protocol, ``local_port`` the port id."""
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
        source=SOURCE,
    )


def _packet_row(fields: list[bytes], netns: int | None) -> Socket:
    """``local_addr`` is ``*`` or the EtherType, ``local_port`` the interface's index."""
    return Socket(
        inode=int(fields[8]),
        proto="packet",
        family="packet",
        type=None,
        state="UNCONNECTED",
        local_addr=packet_protocol(int(fields[3], 16) & 0xFFFF),
        local_port=int(fields[4]) or None,
        recv_q=int(fields[6]),
        uid=int(fields[7]),
        netns=netns,
        source=SOURCE,
    )


_PLAIN = {"netlink": _netlink_row, "packet": _packet_row}


# The tables that tell of a namespace's interfaces, those with an IPv4 and an IPv6 address.
INTERFACE_TABLES = ("igmp", "if_inet6")


def parse_interfaces(texts: Iterable[bytes]) -> dict[int, str]:
    """Names of interfaces by index, from the tables named in INTERFACE_TABLES."""
    names: dict[int, str] = {}
    for line in b"\n".join(texts).split(b"\n"):
        fields = line.split()
        with suppress(ValueError):
            if len(fields) == 6 and len(fields[0]) == 32:  # if_inet6: address, index, ..., name
                names[int(fields[1], 16)] = decode(fields[5])
            elif len(fields) > 2 and line[:1].isdigit():  # igmp: index, name, ":", ...
                names[int(fields[0])] = decode(fields[1])
    return names
