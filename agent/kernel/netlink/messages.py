"""Netlink messages: requests for dumps, answers, attributes, and datagrams from the kernel.

Formats: netlink(7), sock_diag(7), ``include/uapi/linux/{netlink,sock_diag}.h``.

The kernel answers a dump with one message a socket and then NLMSG_DONE, which carries an errno: a
family that the kernel cannot dump is answered with -ENOENT and no rows, which does not mean that
there are no sockets.

A row is the body of a message, without the header: the sequence number and the port id in the
header differ in every answer.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from errno import EBADMSG
from struct import Struct
from struct import error as struct_error
from sys import byteorder
from typing import NamedTuple

from ..rows import Scope, Table

SOURCE = "netlink"  # ``Socket.source`` of every socket that is read here.

# linux/netlink.h: length, type, flags, sequence, port id.
_HEADER = Struct("=IHHII")
HEADER_BYTES = _HEADER.size
LENGTH_AND_TYPE = Struct("=IH")  # The header's start.
_TYPE = slice(4, 6)
_SEQUENCE = slice(8, 12)
_ATTRIBUTE = Struct("=HH")  # Length, type.
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_NLMSG_MIN_TYPE = 0x10  # Lower types are netlink's own messages.
_ERROR_TYPE = _NLMSG_ERROR.to_bytes(2, byteorder)
# DONE is a header and an errno: its length and type, and their place in the last buffer.
_DONE_START = _HEADER.pack(20, _NLMSG_DONE, 0, 0, 0)[:6]
_LAST_START = slice(-20, -14)
_ERRNO_BYTES = 4
_NLM_F_REQUEST, _NLM_F_REQUEST_DUMP = 0x1, 0x301
SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h
NO_COOKIE = b"\xff" * 8  # INET_DIAG_NOCOOKIE: sockets with any cookie.

KERNEL = (0, 0)  # An address: the kernel's port id, and no group.
# The kernel fills 32 KiB at a time; twice that leaves room.
_MAX_DATAGRAM_BYTES = 64 * 1024
_MSG_TRUNC = int(socket.MSG_TRUNC)  # `&` of the enumeration takes 0.9 µs a datagram.


class DumpError(Exception):
    """The kernel did not dump, or not all of it; ``errno`` is the reason."""

    def __init__(self, errno: int) -> None:
        super().__init__(errno)
        self.errno = errno


class MalformedRow(ValueError):
    """A row with an attribute that does not fit into it."""


# Raised for an attribute that does not fit, and for a value that is shorter than its type.
MALFORMED = (MalformedRow, struct_error)


# (rows, the namespace, the table as it was read before) → the table
Read = Callable[[Sequence[bytes], Scope, Table], Table]


class Dump(NamedTuple):
    """A dump: the requests to send, one after the other, and a reader of the rows of the answers.
    ``tables`` are the tables of ``/proc/net`` that the dump replaces."""

    tables: tuple[str, ...]
    requests: tuple[bytes, ...]
    read: Read


def make_request(body: bytes, kind: int = SOCK_DIAG_BY_FAMILY) -> bytes:
    """Return a request for a dump, with sequence number 0."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, kind, _NLM_F_REQUEST_DUMP, 0, 0) + body


def make_lookup(body: bytes) -> bytes:
    """Return a request for one socket, with sequence number 0."""
    length = _HEADER.size + len(body)
    return _HEADER.pack(length, SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0) + body


def read_answer(buffer: bytes) -> bytes | None:
    """Return the row in the answer to a request for one socket; None if there is no such socket."""
    if len(buffer) < HEADER_BYTES:
        return None
    length, kind = LENGTH_AND_TYPE.unpack_from(buffer)
    return buffer[HEADER_BYTES:length] if kind == SOCK_DIAG_BY_FAMILY else None


def number_request(request: bytes, sequence: int) -> bytes:
    """Return the request with this sequence number, which all messages of the answer repeat."""
    number = sequence.to_bytes(4, byteorder)
    return request[: _SEQUENCE.start] + number + request[_SEQUENCE.stop :]


def read_sequence(buffer: bytes) -> int:
    """Return the sequence number of a datagram, all of whose messages answer one request."""
    return int.from_bytes(buffer[_SEQUENCE], byteorder)


def is_last(buffer: bytes) -> bool:
    """Return whether an answer ends with this buffer: with DONE, or an error in place of rows."""
    return buffer[_LAST_START] == _DONE_START or buffer[_TYPE] == _ERROR_TYPE


def split_rows(buffers: Iterable[bytes]) -> list[bytes]:
    """Return the rows of an answer. Raises DumpError if the answer is an error or incomplete."""
    rows: list[bytes] = []
    is_complete = True
    unpack = LENGTH_AND_TYPE.unpack_from
    try:
        for buffer in buffers:
            at, size, is_complete = 0, len(buffer), False
            while at < size:
                length, kind = unpack(buffer, at)
                end = at + length
                if length < HEADER_BYTES or end > size:
                    raise DumpError(EBADMSG)
                if kind >= _NLMSG_MIN_TYPE:
                    rows.append(buffer[at + HEADER_BYTES : end])
                elif kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    _check_errno(buffer[at + HEADER_BYTES : end])
                    is_complete = True
                at = (end + 3) & ~3
    except struct_error:
        raise DumpError(EBADMSG) from None
    if not is_complete:
        raise DumpError(EBADMSG)
    return rows


def _check_errno(body: bytes) -> None:
    """Raise DumpError unless the body of DONE or of an acknowledgement reports success."""
    if len(body) < _ERRNO_BYTES:
        raise DumpError(EBADMSG)
    if code := int.from_bytes(body[:_ERRNO_BYTES], byteorder, signed=True):
        raise DumpError(-code)


def parse_attributes(row: bytes, at: int) -> dict[int, bytes]:
    """Return the attributes of a row, from ``at`` to its end, by type. Raises MALFORMED if an
    attribute does not fit into the row."""
    found = {}
    end = len(row)
    unpack, header_bytes = _ATTRIBUTE.unpack_from, _ATTRIBUTE.size
    while at < end:
        length, kind = unpack(row, at)
        if length < header_bytes or at + length > end:
            raise MalformedRow
        found[kind] = row[at + header_bytes : at + length]
        at += (length + 3) & ~3
    return found


class Datagram(NamedTuple):
    """A datagram. It must not be parsed if it is ``truncated`` or not ``from_kernel``.

    Any process in the network namespace of a socket may send to the socket's port id, and to its
    multicast groups, as far as CAP_NET_ADMIN over the namespace allows it: the owner of a user
    namespace has that capability in the network namespaces that belong to it.
    """

    data: bytes
    from_kernel: bool
    truncated: bool


def receive(link: socket.socket) -> Datagram:
    """Return the next datagram. Raises OSError as recvmsg(2) does."""
    data, _ancillary, flags, (sender, _groups) = link.recvmsg(_MAX_DATAGRAM_BYTES)
    return Datagram(data, sender == KERNEL[0], bool(flags & _MSG_TRUNC))
