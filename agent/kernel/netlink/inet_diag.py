"""sock_diag(7) dumps: requests to bytes, and the bytes of answers to tables. Pure.

It knows no descriptors, no asyncio and no processes. Formats: sock_diag(7);
``include/uapi/linux/{netlink,sock_diag,inet_diag,unix_diag,netlink_diag,packet_diag}.h``.

What the kernel answers to a dump is a run of messages: one a socket, then NLMSG_DONE. DONE carries
an errno: a family that the kernel cannot dump answers DONE with -ENOENT and no rows, which must
not be read as "there are none".

A row is the body of such a message, without its header: the header has the number of the request
and the port id of the socket that asked, which are others in each answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from errno import EBADMSG
from functools import lru_cache, partial
from socket import AF_INET, AF_INET6, inet_ntop, ntohs
from struct import Struct
from struct import error as struct_error
from sys import byteorder
from typing import NamedTuple

from ...model import DATAGRAM_STATES, TCP_STATES, Socket
from ..direction import Direct, directions
from ..rows import Scope, Table, reread

SOURCE = "netlink"

# linux/netlink.h: length, type, flags, sequence, port id.
_HEADER = Struct("=IHHII")
LENGTH_AND_KIND = Struct("=IH")
HEADER_BYTES = _HEADER.size
_SEQUENCE = slice(8, 12)  # Where it is in the header.
_ATTRIBUTE = Struct("=HH")  # length, type
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_ERRNO_BYTES = 4
_NLMSG_MIN_TYPE = 0x10  # Below are messages of netlink itself.
_ENDS = (_NLMSG_ERROR, _NLMSG_DONE)
_ERROR_KIND = _NLMSG_ERROR.to_bytes(2, byteorder)
_DONE_START = _HEADER.pack(20, _NLMSG_DONE, 0, 0, 0)[:6]
_NLM_F_REQUEST_DUMP = 0x301

# Fewer messages are unpacked one by one.
_FEW = 8

# linux/sock_diag.h, linux/inet_diag.h
SOCK_DIAG_BY_FAMILY = 20
_TCPDIAG_GETSOCK = 18  # The older request: AF_UNSPEC dumps IPv4 and IPv6 in one walk.
_TIME_WAIT, LISTEN, _NEW_SYN_RECV = 6, 10, 12
_ALL_STATES = (1 << 13) - 2
# Rows of the states left out have no inode: connections that no process holds yet, or any more.
_HELD_STATES = _ALL_STATES & ~(1 << _TIME_WAIT) & ~(1 << _NEW_SYN_RECV)
_UDP, _UDPLITE = 17, 136
_TCP_STATES = dict(enumerate(TCP_STATES, 1))
_DATAGRAM_STATES = dict(zip((1, 7), DATAGRAM_STATES, strict=True))
_NO_ADDRESS = bytes(16)
_FAMILIES = {int(AF_INET): "inet", int(AF_INET6): "inet6"}
# family, lengths of two prefixes, extensions; socket id; states, a cookie of its own.
_OLD_INET_REQUEST = Struct("=BBBB48xII")
# family, protocol, extensions, padding; states; socket id.
_INET_REQUEST = Struct("=BBBBI48x")
# Family, state, timer, retransmits; both ports (network order), both addresses, interface, cookie;
# expiry, receive and send queue, uid, inode.
_INET = Struct("=BB2xHH16s16sIQ4xIIII")
INET_BYTES = _INET.size
_INET_CGROUP = 21
_INET_STATE = 1
_LISTENING = bytes([LISTEN])
_U64 = Struct("=Q")

Endpoint = tuple[str | None, int | None]


class DumpError(Exception):
    """The kernel did not dump, or not all of it; ``errno`` says why."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


class MalformedRow(ValueError):
    """An attribute of a row that is cut off."""


# What is raised where an attribute is cut off, and where a value is shorter than its type.
MALFORMED = (MalformedRow, struct_error)


# (rows, the namespace they are of, the table as it was last) → the table
Read = Callable[[Sequence[bytes], Scope, Table], Table]


class Dump(NamedTuple):
    """A dump: the requests to send, one after the other, and what reads the rows of the answers.

    ``tables`` are the tables of ``/proc/net`` that it stands for.
    """

    tables: tuple[str, ...]
    requests: tuple[bytes, ...]
    read: Read


def is_last(buffer: bytes) -> bool:
    """Whether an answer ends with this buffer: in DONE, or in an error instead of an answer."""
    return buffer[-20:-14] == _DONE_START or buffer[4:6] == _ERROR_KIND


def rows_of(buffers: Iterable[bytes]) -> list[bytes]:
    """Return the rows of a whole answer: the bodies of its messages, but for the last one.

    Raises DumpError when the answer is an error, or not whole.
    """
    rows: list[bytes] = []
    ended = True
    unpack = LENGTH_AND_KIND.unpack_from
    for buffer in buffers:
        at, size, ended = 0, len(buffer), False
        while at < size:
            if at + HEADER_BYTES > size:
                raise DumpError(EBADMSG)
            length, kind = unpack(buffer, at)
            if length < HEADER_BYTES or at + length > size:
                raise DumpError(EBADMSG)
            body = at + HEADER_BYTES
            if kind >= _NLMSG_MIN_TYPE and (count := _alike(buffer, at, length)) > 1:
                stride, row_bytes = (length + 3) & ~3, length - HEADER_BYTES
                at += count * stride
                begins = range(body, at + HEADER_BYTES, stride)
                rows += [buffer[begin : begin + row_bytes] for begin in begins]
                continue
            if kind in _ENDS:
                ended = _check_end(buffer[body : at + length])
            elif kind >= _NLMSG_MIN_TYPE:
                rows.append(buffer[body : at + length])
            at += (length + 3) & ~3
    if not ended:
        raise DumpError(EBADMSG)
    return rows


def _check_end(body: bytes) -> bool:
    """Return True for the body of DONE or of an acknowledgement; raises DumpError for a failure."""
    if len(body) < _ERRNO_BYTES:
        raise DumpError(EBADMSG)
    if code := int.from_bytes(body[:_ERRNO_BYTES], byteorder, signed=True):
        raise DumpError(-code)
    return True


def _alike(buffer: bytes, at: int, length: int) -> int:
    """How many messages in a row have the length and kind of the one at ``at``, or fewer.

    Most rows of a dump are alike. To compare a byte of all headers at once costs a tenth of
    unpacking each.
    """
    stride = (length + 3) & ~3
    count = (len(buffer) - at) // stride
    while count >= _FEW:
        end = at + count * stride
        if all(
            buffer[at + byte : end : stride].count(buffer[at + byte]) == count
            for byte in range(LENGTH_AND_KIND.size)
        ):
            return count
        count //= 2
    return 1


def attributes(row: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of the attributes of a row, from ``at`` to its end.

    Raises MalformedRow for an attribute that does not fit into the row.
    """
    end = len(row)
    while at < end:
        if at + _ATTRIBUTE.size > end:
            raise MalformedRow
        length, kind = _ATTRIBUTE.unpack_from(row, at)
        if length < _ATTRIBUTE.size or at + length > end:
            raise MalformedRow
        yield kind, row[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


@lru_cache(maxsize=65_536)
def _address(family: int, raw: bytes) -> str:
    return inet_ntop(AF_INET, raw[:4]) if family == AF_INET else inet_ntop(AF_INET6, raw)


def inet(proto: str, *, unowned: bool = False, cgroups: bool = False) -> Dump:
    """The dump of tcp, udp or udplite, IPv4 and IPv6. ``unheld``: with rows without an inode;
    ``cgroups``: with the cgroup of each, which takes a while longer."""
    states = _ALL_STATES if unowned else _HELD_STATES
    if proto == "tcp":
        requests: tuple[bytes, ...] = (
            request(_TCPDIAG_GETSOCK, _OLD_INET_REQUEST.pack(0, 0, 0, 0, states, 0)),
        )
    else:
        number = _UDP if proto == "udp" else _UDPLITE
        requests = tuple(
            request(SOCK_DIAG_BY_FAMILY, _INET_REQUEST.pack(family, number, 0, 0, states))
            for family in (AF_INET, AF_INET6)
        )

    return Dump((proto, proto + "6"), requests, partial(_read_inet, (proto, cgroups)))


def _read_inet(what: tuple[str, bool], rows: Sequence[bytes], scope: Scope, before: Table) -> Table:
    def decode(fresh: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        proto, cgroups = what
        direct = None
        if proto == "tcp":
            # Of listeners themselves it takes no others to tell.
            fresh = list(fresh)
            among = fresh if all(map(_is_listener, fresh)) else rows
            direct = directions(*listeners(among), scope.ephemeral)
        decoded = _inet(fresh, proto, scope, direct)
        return _with_cgroups(decoded) if cgroups else decoded

    return reread(rows, before, decode)


def _inet(
    rows: Iterable[bytes], proto: str, scope: Scope, direct: Direct | None
) -> Iterator[tuple[bytes, Socket]]:
    states = _TCP_STATES if proto == "tcp" else _DATAGRAM_STATES
    netns = scope.netns
    make, address, unpack, size = Socket._make, _address, _INET.unpack_from, _INET.size
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
        if remote_port or remote != _NO_ADDRESS:
            remote_addr: str | None = address(family, remote)
        else:
            remote_addr = remote_port = None
        bound_to = scope.interface(interface) if interface else None
        direction = (
            direct((local, port), local_port, (remote, peer_port), state) if direct else None
        )
        yield (
            row,
            make((
                inode, proto, name, None, state, address(family, local), local_port,
                remote_addr, remote_port, None, direction, recv_q,
                # Of a listener it is the backlog that it asked for.
                0 if code == LISTEN else send_q,
                uid if inode else None, netns, SOURCE, None,
                send_q if code == LISTEN else None, bound_to, None, cookie,
            )),
        )  # fmt: skip


def is_inet(row: bytes) -> bool:
    """Return whether ``inet_fields`` can be read from this row."""
    return len(row) >= INET_BYTES and row[0] in _FAMILIES


def inet_fields(
    row: bytes,
) -> tuple[str, Endpoint, Endpoint, tuple[tuple[bytes, int], tuple[bytes, int]]] | None:
    """The family and both endpoints of a row: as they are told, and as ``listeners`` has them."""
    family, _code, port, peer_port, local, remote, *_rest = _INET.unpack_from(row)
    name = _FAMILIES.get(family)
    if name is None:
        return None
    here: Endpoint = (_address(family, local), ntohs(port))
    there: Endpoint = (None, None)
    if peer_port or remote != _NO_ADDRESS:
        # A socket that was reset has forgotten its peer's port.
        there = (_address(family, remote), ntohs(peer_port) or None)
    return name, here, there, ((local, port), (remote, peer_port))


def _with_cgroups(decoded: Iterator[tuple[bytes, Socket]]) -> Iterator[tuple[bytes, Socket]]:
    for row, socket in decoded:
        cgroup_id = None
        try:
            for attribute, value in attributes(row, INET_BYTES):
                if attribute == _INET_CGROUP:
                    (cgroup_id,) = _U64.unpack_from(value)
        except MALFORMED:
            continue
        yield row, socket if cgroup_id is None else socket._replace(cgroup_id=cgroup_id)


def listeners(rows: Iterable[bytes]) -> tuple[set[tuple[bytes, int]], set[int]]:
    """The endpoints listened on, and the ports listened on at every address."""
    found, wild = set(), set()
    # Most are none: to look for them costs little.
    for row in [row for row in rows if row[_INET_STATE : _INET_STATE + 1] == _LISTENING]:
        if len(row) >= _INET.size:
            _family, _code, port, _peer, local, *_rest = _INET.unpack_from(row)
            found.add((local, port))
            if local == _NO_ADDRESS:
                wild.add(ntohs(port))
    return found, wild


def _is_listener(row: bytes) -> bool:
    return row[_INET_STATE : _INET_STATE + 1] == _LISTENING


def request(kind: int, body: bytes) -> bytes:
    """A request for a dump, not numbered yet."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, _NLM_F_REQUEST_DUMP, 0, 0) + body


def numbered(request: bytes, sequence: int) -> bytes:
    """Return the request with this sequence number, which each message of the answer repeats."""
    number = sequence.to_bytes(4, byteorder)
    return request[: _SEQUENCE.start] + number + request[_SEQUENCE.stop :]


def sequence_of(buffer: bytes) -> int:
    """Return the sequence number of the first message of a datagram.

    All messages of one datagram answer the same request.
    """
    return int.from_bytes(buffer[_SEQUENCE], byteorder)
