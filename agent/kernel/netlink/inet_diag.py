"""The sock_diag dumps of TCP, UDP and UDP-Lite sockets. Pure.

Format: ``include/uapi/linux/inet_diag.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache, partial
from socket import AF_INET, AF_INET6, htons, inet_ntop, ntohs
from struct import Struct
from typing import NamedTuple

from ...model import DATAGRAM_STATES, TCP_STATES, Socket
from ..direction import DirectionFinder, make_direction_finder
from ..rows import Scope, Table, update_table
from .messages import (
    MALFORMED,
    NO_COOKIE,
    SOURCE,
    Dump,
    make_lookup,
    make_request,
    parse_attributes,
)

_TCPDIAG_GETSOCK = 18  # The older request: AF_UNSPEC dumps IPv4 and IPv6 in one walk.
_TIME_WAIT, LISTEN, _NEW_SYN_RECV = 6, 10, 12
_ALL_STATES = (1 << 13) - 2
# Rows in the other states have no inode: no process holds the connection yet, or any longer.
_HELD_STATES = _ALL_STATES & ~(1 << _TIME_WAIT) & ~(1 << _NEW_SYN_RECV)
_PROTOCOL_NUMBERS = {"udp": 17, "udplite": 136}
_TCP_STATES = dict(enumerate(TCP_STATES, 1))
_DATAGRAM_STATES = dict(zip((1, 7), DATAGRAM_STATES, strict=True))
_ANY_ADDRESS = bytes(16)
_FAMILIES = {int(AF_INET): "inet", int(AF_INET6): "inet6"}
# Family, lengths of two prefixes, extensions; socket id; states, tables (unused).
_OLD_REQUEST = Struct("=BBBB48xII")
# Family, protocol, extensions, padding; states; socket id.
_REQUEST = Struct("=BBBBI48x")
# Family, protocol, extensions, padding; states; both ports (network order), both addresses,
# interface, cookie.
_REQUEST_ONE = Struct("=BBBxIHH16s16sI8s")
_TCP = 6  # IPPROTO_TCP
# Family, state, timer, retransmits; both ports (network order), both addresses, interface, cookie;
# expiry, receive and send queue, uid, inode.
_ROW = Struct("=BB2xHH16s16sIQ4xIIII")
ROW_BYTES = _ROW.size
_STATE = slice(1, 2)
_LISTENING = bytes([LISTEN])
_INET_DIAG_CGROUP_ID = 21
_U64 = Struct("=Q")

# An address and a port as a row has them: 16 bytes, and the port in network order.
RawEndpoint = tuple[bytes, int]


class Endpoints(NamedTuple):
    """The family and the endpoints of a row; address and port of an absent peer are None. The raw
    endpoints are for comparison with those of ``find_listeners``."""

    family: str
    local_addr: str
    local_port: int
    remote_addr: str | None
    remote_port: int | None
    raw_local: RawEndpoint
    raw_remote: RawEndpoint


def inet_dump(proto: str, *, include_unowned: bool = False, include_cgroups: bool = False) -> Dump:
    """Return the dump of tcp, udp or udplite, both IPv4 and IPv6. ``include_unowned`` adds the rows
    without an inode, ``include_cgroups`` the cgroup of each socket, which takes longer to
    decode."""
    states = _ALL_STATES if include_unowned else _HELD_STATES
    requests: tuple[bytes, ...]
    if proto == "tcp":
        requests = (make_request(_OLD_REQUEST.pack(0, 0, 0, 0, states, 0), _TCPDIAG_GETSOCK),)
    else:
        number = _PROTOCOL_NUMBERS[proto]
        requests = tuple(
            make_request(_REQUEST.pack(family, number, 0, 0, states))
            for family in (AF_INET, AF_INET6)
        )
    return Dump((proto, proto + "6"), requests, partial(_read, proto, include_cgroups))


def _read(
    proto: str, include_cgroups: bool, rows: Sequence[bytes], scope: Scope, before: Table
) -> Table:
    def decode(new: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        find_direction = None
        if proto == "tcp":
            # The directions of listeners do not depend on other listeners.
            new = list(new)
            among = new if all(map(_is_listener, new)) else rows
            find_direction = make_direction_finder(*find_listeners(among), scope.ephemeral_ports)
        decoded = _decode(new, proto, scope, find_direction)
        return _add_cgroups(decoded) if include_cgroups else decoded

    return update_table(rows, before, decode)


def _decode(
    rows: Iterable[bytes], proto: str, scope: Scope, find_direction: DirectionFinder | None
) -> Iterator[tuple[bytes, Socket]]:
    states = _TCP_STATES if proto == "tcp" else _DATAGRAM_STATES
    netns = scope.netns
    # Half the cost of Socket(), which counts with 20,000 rows.
    make = tuple.__new__
    address, unpack, size = _format_address, _ROW.unpack_from, _ROW.size
    for row in rows:
        if len(row) < size:
            continue
        (
            family, code, port, peer_port, local, remote, interface, cookie, recv_q, send_q, uid,
            inode,
        ) = unpack(row)  # fmt: skip
        name = _FAMILIES.get(family)
        if name is None:
            continue
        state = states.get(code)
        local_port = ntohs(port)
        remote_port: int | None = ntohs(peer_port)
        if remote_port or remote != _ANY_ADDRESS:
            remote_addr: str | None = address(family, remote)
        else:
            remote_addr = remote_port = None
        direction = None
        if find_direction:
            direction = find_direction((local, port), local_port, (remote, peer_port), state)
        yield (
            row,
            make(Socket, (
                inode, proto, name, None, state, address(family, local), local_port,
                remote_addr, remote_port, None, direction, recv_q,
                # The kernel reports a listener's backlog as its send queue.
                0 if code == LISTEN else send_q,
                uid if inode else None, netns, SOURCE, None,
                send_q if code == LISTEN else None,
                scope.interface_name(interface) if interface else None, None, cookie,
            )),
        )  # fmt: skip


def _add_cgroups(decoded: Iterator[tuple[bytes, Socket]]) -> Iterator[tuple[bytes, Socket]]:
    for row, socket in decoded:
        try:
            value = parse_attributes(row, ROW_BYTES).get(_INET_DIAG_CGROUP_ID)
            cgroup_id = None if value is None else _U64.unpack_from(value)[0]
        except MALFORMED:
            continue
        yield row, socket if cgroup_id is None else socket._replace(cgroup_id=cgroup_id)


@lru_cache(maxsize=65_536)
def _format_address(family: int, raw: bytes) -> str:
    return inet_ntop(AF_INET, raw[:4]) if family == AF_INET else inet_ntop(AF_INET6, raw)


def tcp_lookup(
    family: int, local: bytes, local_port: int, remote: bytes, remote_port: int
) -> bytes:
    """Return a request for the TCP socket with these ends. Addresses have 16 bytes; those of
    AF_INET begin with the four bytes of the address."""
    return make_lookup(
        _REQUEST_ONE.pack(
            family, _TCP, 0, _ALL_STATES, htons(local_port), htons(remote_port), local, remote, 0,
            NO_COOKIE,
        )
    )  # fmt: skip


def read_tcp_row(row: bytes, scope: Scope, direction: str | None) -> Socket | None:
    """Return the TCP socket of a row; None if it is malformed."""
    socket = next((found for _row, found in _decode([row], "tcp", scope, None)), None)
    return None if socket is None else socket._replace(direction=direction)


def is_inet(row: bytes) -> bool:
    """Return whether ``parse_endpoints`` can read this row."""
    return len(row) >= ROW_BYTES and row[0] in _FAMILIES


def parse_endpoints(row: bytes) -> Endpoints:
    """Return the endpoints of a row for which ``is_inet`` is true."""
    family, _state, port, peer_port, local, remote, *_rest = _ROW.unpack_from(row)
    remote_addr = remote_port = None
    if peer_port or remote != _ANY_ADDRESS:
        remote_addr = _format_address(family, remote)
        remote_port = ntohs(peer_port) or None  # 0 after a reset, which clears the peer's port.
    return Endpoints(
        _FAMILIES[family],
        _format_address(family, local),
        ntohs(port),
        remote_addr,
        remote_port,
        (local, port),
        (remote, peer_port),
    )


def find_listeners(rows: Iterable[bytes]) -> tuple[set[RawEndpoint], set[int]]:
    """Return the endpoints of the listeners, and the ports with a listener at every address."""
    endpoints, wildcard_ports = set(), set()
    # Few rows are listeners: comparing one byte of each costs little.
    for row in [row for row in rows if row[_STATE] == _LISTENING]:
        if len(row) >= ROW_BYTES:
            _family, _state, port, _peer_port, local, *_rest = _ROW.unpack_from(row)
            endpoints.add((local, port))
            if local == _ANY_ADDRESS:
                wildcard_ports.add(ntohs(port))
    return endpoints, wildcard_ports


def _is_listener(row: bytes) -> bool:
    return row[_STATE] == _LISTENING
