"""Parse the tables of sockets and of interfaces in ``/proc/net``. Pure.

The formats of the inet families are in ``net_inet``; those of unix, netlink and packet are in
``net/unix/af_unix.c`` (unix_seq_show), ``net/netlink/af_netlink.c`` (netlink_native_seq_show) and
``net/packet/af_packet.c`` (packet_seq_show).

No input raises an exception: rows that cannot be decoded are kept in ``Table.malformed``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial

from ...model import UNIX_STATES, Socket
from ...text import decode
from ..direction import DEFAULT_EPHEMERAL_PORTS, mark_unix_directions
from ..rows import EMPTY, Table, netlink_protocol, packet_protocol, update_table
from .net_inet import LAST_FIELDS, update_inet_table


def parse(
    name: str,
    data: bytes,
    netns: int | None,
    ephemeral_ports: range = DEFAULT_EPHEMERAL_PORTS,
    before: Table = EMPTY,
) -> Table:
    """Parse the file ``name`` of ``/proc/net``; ``before`` is the reading before.
    ``ephemeral_ports`` are as in ``make_direction_finder``."""
    lines = data.split(b"\n")
    # Empty behind a complete table. The inode of a row that is cut off would be another socket's.
    cut_off = lines.pop()
    del lines[:1]  # The heading.
    if name == "unix":
        table = _update_unix_table(lines, netns, before)
    elif (decode_row := _ROW_DECODERS.get(name)) is not None:
        table = update_table(lines, before, partial(_decode_columns, decode_row, netns))
    else:
        table = update_inet_table(name, lines, netns, ephemeral_ports, before)
    if not cut_off:
        return table
    if table is before:  # Nothing was added and nothing removed.
        return Table(table.rows, table.malformed | {cut_off})
    return table._replace(malformed=table.malformed | {cut_off})


def table_of(socket: Socket) -> str:
    """Return the name of the table that lists such a socket, if there is one."""
    return f"{socket.proto}6" if socket.family == "inet6" else str(socket.proto)


# Num: RefCount Protocol Flags Type St Inode[ Path]; the path may hold spaces, and newlines too.
_UNIX_ROW = re.compile(
    rb"[0-9A-Fa-f]+: [0-9A-F]{8} [0-9A-F]{8} (?P<flags>[0-9A-F]{8}) (?P<type>[0-9A-F]{4})"
    rb" (?P<state>[0-9A-F]{2}) +(?P<inode>\d{1,10})(?: (?P<path>.*))?",
    re.DOTALL,
)
_ACCEPTS = 1 << 16  # __SO_ACCEPTCON in include/uapi/linux/net.h.
_UNIX_TYPES = {b"0001": "stream", b"0002": "dgram", b"0005": "seqpacket"}
_UNIX_STATES = {b"%02X" % code: name for code, name in enumerate(UNIX_STATES, 1)}


def _update_unix_table(lines: Iterable[bytes], netns: int | None, before: Table) -> Table:
    """Return the table with these lines; ``before`` is the reading before. A path with newlines
    takes several lines, of which only the first looks like a row."""
    known, match_row = before.rows, _UNIX_ROW.fullmatch
    rows: list[bytes] = []
    for line in lines:
        if line in known or match_row(line):
            rows.append(line)
        elif rows and (match := match_row(rows[-1])) and match["path"]:
            rows[-1] += b"\n" + line
        else:
            rows.append(line)

    def decode_rows(new: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        return mark_unix_directions(_decode_unix(new, netns), known.values())

    return update_table(rows, before, decode_rows)


def _decode_unix(rows: Iterable[bytes], netns: int | None) -> Iterator[tuple[bytes, Socket]]:
    make = tuple.__new__  # At half the cost of Socket(), for tables of 20,000 rows.
    for row in rows:
        match = _UNIX_ROW.fullmatch(row)
        if match is None:
            continue
        flags, kind, code, inode, path = match.groups()
        state, direction = _UNIX_STATES.get(code), None
        if int(flags, 16) & _ACCEPTS:
            state, direction = "LISTEN", "listen"
        yield (
            row,
            make(Socket, (
                int(inode), "unix", "unix", _UNIX_TYPES.get(kind), state, None, None, None, None,
                decode(path) if path else None, direction, None, None, None, netns, *LAST_FIELDS,
            )),
        )  # fmt: skip


def _decode_columns(
    decode_row: Callable[[list[bytes], int | None], Socket],
    netns: int | None,
    rows: Iterable[bytes],
) -> Iterator[tuple[bytes, Socket]]:
    """Decode rows that consist of columns separated by blanks."""
    for row in rows:
        try:
            socket = decode_row(row.split(), netns)
        except (IndexError, ValueError):
            continue
        queues = (socket.recv_q or 0) | (socket.send_q or 0)
        small = (socket.local_port or 0) | (socket.uid or 0)
        # Malformed: below 0, or more than 63 bits, for the port and the uid 32.
        if not (socket.inode | queues | small << 31) >> 63:
            yield row, socket


def _decode_netlink(columns: list[bytes], netns: int | None) -> Socket:
    """``local_addr`` is the netlink protocol, ``local_port`` the port id."""
    port = int(columns[2]) & 0xFFFF_FFFF  # Kernels before 5.x print it as a signed number.
    return Socket(
        # Port id 0 is the kernel's end, whose inode no process can hold.
        inode=int(columns[9]) if port else 0,
        proto="netlink",
        family="netlink",
        type=None,
        state="UNCONNECTED",
        local_addr=netlink_protocol(int(columns[1])),
        local_port=port,
        recv_q=int(columns[4]),
        send_q=int(columns[5]),
        netns=netns,
    )


def _decode_packet(columns: list[bytes], netns: int | None) -> Socket:
    """``local_addr`` is ``*`` or the EtherType, ``local_port`` the interface's index."""
    return Socket(
        inode=int(columns[8]),
        proto="packet",
        family="packet",
        type=None,
        state="UNCONNECTED",
        local_addr=packet_protocol(int(columns[3], 16) & 0xFFFF),
        local_port=int(columns[4]) or None,
        recv_q=int(columns[6]),
        uid=int(columns[7]),
        netns=netns,
    )


_ROW_DECODERS = {"netlink": _decode_netlink, "packet": _decode_packet}

# The tables that list interfaces: those with an IPv4 address (net/ipv4/igmp.c, igmp_mc_seq_show)
# and with an IPv6 address (net/ipv6/addrconf.c, if6_seq_show).
INTERFACE_TABLES = ("igmp", "if_inet6")


def parse_interfaces(texts: Iterable[bytes]) -> dict[int, str]:
    """Return the names of interfaces by index, from the text of INTERFACE_TABLES."""
    names: dict[int, str] = {}
    for line in b"\n".join(texts).split(b"\n"):
        fields = line.split()
        with suppress(ValueError):
            if len(fields) == 6 and len(fields[0]) == 32:  # if_inet6: address, index, ..., name
                names[int(fields[1], 16)] = decode(fields[5])
            elif len(fields) > 2 and line[:1].isdigit():  # igmp: index, name, ":", ...
                names[int(fields[0])] = decode(fields[1])
    return names
