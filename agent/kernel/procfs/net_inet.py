"""Parse the tables of the inet families in ``/proc/net``: tcp, udp, udplite, raw, icmp and their
IPv6 twins. Pure.

Formats: ``Documentation/networking/proc_net_tcp.rst``, ``net/ipv4/tcp_ipv4.c`` (tcp4_seq_show),
``net/ipv4/udp.c``, ``raw.c`` and ``ping.c``, and the files of the same purpose in ``net/ipv6``.
"""

from __future__ import annotations

import sys
from binascii import unhexlify
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop

from ...model import DATAGRAM_STATES, TCP_STATES, Socket
from ..direction import DirectionFinder, make_direction_finder
from ..rows import Table, update_table

_TCP_STATES = {b"%02X" % code: name for code, name in enumerate(TCP_STATES, 1)}
# Datagram sockets have two of the codes of TCP: 01 with a peer, 07 (CLOSE) without.
_DATAGRAM_STATES = dict(zip((b"01", b"07"), DATAGRAM_STATES, strict=True))
_ANY_ADDRESSES = (b"0" * 8, b"0" * 32)
_EMPTY_QUEUES = b"00000000:00000000"
# The last fields of Socket: the source, and what the text does not show (peer_inode, backlog,
# interface, cgroup_id, cookie).
LAST_FIELDS = ("procfs", *(None,) * 5)


@lru_cache(maxsize=65_536)  # Most addresses occur in many rows; an entry takes about 150 bytes.
def decode_address(digits: bytes) -> str:
    """Return the canonical text of an address, from 8 or 32 hexadecimal digits: 32-bit words in
    host byte order. Raises ValueError."""
    raw = unhexlify(digits)
    if len(raw) not in (4, 16):
        raise ValueError(f"not an address: {digits!r}")
    if sys.byteorder == "little":
        raw = b"".join(raw[i : i + 4][::-1] for i in range(0, len(raw), 4))
    return inet_ntop(AF_INET if len(raw) == 4 else AF_INET6, raw)


def update_inet_table(
    name: str, lines: Iterable[bytes], netns: int | None, ephemeral_ports: range, before: Table
) -> Table:
    """Return the table ``name`` with these lines; ``before`` is the reading before."""
    proto, family = name.removesuffix("6"), "inet6" if name.endswith("6") else "inet"
    # A line begins with the row's number and a colon; the number changes when other rows do.
    rows = [line.partition(b":")[2] or line for line in lines]

    def decode_rows(new: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        find = make_direction_finder(*_listeners(rows), ephemeral_ports) if proto == "tcp" else None
        return _decode(new, proto, family, netns, find)

    return update_table(rows, before, decode_rows)


def _decode(
    rows: Iterable[bytes],
    proto: str,
    family: str,
    netns: int | None,
    find_direction: DirectionFinder | None,
) -> Iterator[tuple[bytes, Socket]]:
    states = _TCP_STATES if proto == "tcp" else _DATAGRAM_STATES
    any_address = _ANY_ADDRESSES[family == "inet6"]
    make = tuple.__new__  # At half the cost of Socket(), for tables of 20,000 rows.
    for row in rows:
        fields = row.split(None, 9)
        try:
            inode = int(fields[8])
            fields[9]  # The inode of a row that ends with it may be cut off.
            uid: int | None = (owner := int(fields[6]))
            local, _, port = fields[0].partition(b":")
            local_port = int(port, 16)
            local_addr = decode_address(local)
            remote, _, port = fields[1].partition(b":")
            remote_port: int | None = (peer_port := int(port, 16))
            if remote_port or remote != any_address:
                remote_addr: str | None = decode_address(remote)
            else:
                remote_addr = remote_port = None
            queues = fields[3]
            if queues == _EMPTY_QUEUES:
                send_q = recv_q = 0
            else:
                send, _, recv = queues.partition(b":")
                send_q, recv_q = int(send, 16), int(recv, 16)
            # Malformed: below 0, or more than 63 bits, for the uid 32 and for the ports 16.
            if (inode | send_q | recv_q | owner << 31 | (local_port | peer_port) << 47) >> 63:
                continue
        except (IndexError, ValueError):
            continue
        state = states.get(fields[2])
        direction = None
        if find_direction:
            direction = find_direction(fields[0], local_port, fields[1], state)
        if not inode:
            uid = None  # The kernel prints uid 0 for these, whoever owned them.
        yield (
            row,
            make(Socket, (
                inode, proto, family, None, state, local_addr, local_port, remote_addr,
                remote_port, None, direction, recv_q, send_q, uid, netns, *LAST_FIELDS,
            )),
        )  # fmt: skip


def _listeners(rows: Iterable[bytes]) -> tuple[set[bytes], set[int]]:
    """Return the endpoints with a listener, and the ports with a listener at every address."""
    endpoints: set[bytes] = set()
    wildcard_ports: set[int] = set()
    for row in rows:
        if b" 0A " not in row:
            continue
        fields = row.split(None, 3)
        if len(fields) > 2 and fields[2] == b"0A":
            endpoint = fields[0]
            endpoints.add(endpoint)
            address, _, port = endpoint.partition(b":")
            if address in _ANY_ADDRESSES:
                with suppress(ValueError):
                    wildcard_ports.add(int(port, 16))
    return endpoints, wildcard_ports
