"""The sock_diag dump of unix sockets. Pure.

Format: ``include/uapi/linux/unix_diag.h``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from socket import AF_UNIX
from struct import Struct

from ...model import Socket
from ...text import decode
from ..direction import mark_unix_directions
from ..rows import Scope, Table, update_table
from .messages import MALFORMED, NO_COOKIE, SOURCE, Dump, make_request, parse_attributes

# Family, protocol, padding; states; inode; attributes to show; cookie.
_REQUEST = Struct("=BBHIII8s")
_ALL_STATES = 0xFFFF_FFFF
_SHOW_NAME, _SHOW_PEER, _SHOW_QUEUES, _SHOW_UID = 1, 4, 0x10, 0x40
# Family, type, state, padding; inode, cookie.
_ROW = Struct("=xBBxIQ")
_NAME, _PEER, _QUEUES, _SHUTDOWN, _UID = 0, 2, 4, 6, 7
_QUEUE_BYTES = Struct("=II")  # Receive, send.
_U32 = Struct("=I")
_TYPES = {1: "stream", 2: "dgram", 5: "seqpacket"}
# A row with these attributes and no others: a socket without a name, as most are. Unpacking it at
# once takes half the time.
_UNNAMED_ROW = Struct("=xBBxIQ 2xHI 2xHII 2xH4x 2xHI")
_UNNAMED_ATTRIBUTES = (_PEER, _QUEUES, _SHUTDOWN, _UID)
# Unix sockets use TCP's numbers for their states.
_STATES = {1: "CONNECTED", 2: "CONNECTING", 7: "UNCONNECTED", 10: "LISTEN"}


def unix_dump() -> Dump:
    """Return the dump of unix sockets."""
    show = _SHOW_NAME | _SHOW_PEER | _SHOW_QUEUES | _SHOW_UID
    body = _REQUEST.pack(AF_UNIX, 0, 0, _ALL_STATES, 0, show, NO_COOKIE)
    return Dump(("unix",), (make_request(body),), _read)


def _read(rows: Sequence[bytes], scope: Scope, before: Table) -> Table:
    def decode(new: Iterable[bytes]) -> Iterator[tuple[bytes, Socket]]:
        return mark_unix_directions(_decode(new, scope.netns), before.rows.values())

    return update_table(rows, before, decode)


def _decode(rows: Iterable[bytes], netns: int | None) -> Iterator[tuple[bytes, Socket]]:
    make = tuple.__new__  # Half the cost of Socket(), which counts with 20,000 rows.
    unpack_unnamed, unnamed_bytes = _UNNAMED_ROW.unpack, _UNNAMED_ROW.size
    for row in rows:
        path = direction = backlog = found = None
        if len(row) == unnamed_bytes:
            (
                kind, code, inode, cookie, first, peer, second, recv_q, send_q, third, fourth, uid,
            ) = unpack_unnamed(row)  # fmt: skip
            found = (first, second, third, fourth)
        if found != _UNNAMED_ATTRIBUTES:
            try:
                kind, code, inode, cookie = _ROW.unpack_from(row)
                path, peer, recv_q, send_q, uid = _parse(row)
            except MALFORMED:
                continue
        state = _STATES.get(code)
        if state == "LISTEN":  # The kernel reports a listener's backlog as its send queue.
            direction, backlog, send_q = "listen", send_q, 0
        yield (
            row,
            make(Socket, (
                inode, "unix", "unix", _TYPES.get(kind), state, None, None, None, None, path,
                direction, recv_q, send_q, uid, netns, SOURCE, peer or None, backlog, None, None,
                cookie,
            )),
        )  # fmt: skip


def _parse(row: bytes) -> tuple[str | None, int | None, int | None, int | None, int | None]:
    """Return path, peer, receive queue, send queue and uid. Raises MALFORMED."""
    attributes = parse_attributes(row, _ROW.size)
    name = attributes.get(_NAME)
    peer, uid = (
        _U32.unpack_from(attributes[kind])[0] if kind in attributes else None
        for kind in (_PEER, _UID)
    )
    recv_q = send_q = None
    if _QUEUES in attributes:
        recv_q, send_q = _QUEUE_BYTES.unpack_from(attributes[_QUEUES])
    return _format_path(name) if name else None, peer, recv_q, send_q, uid


def _format_path(raw: bytes) -> str:
    """Return the path as ``/proc/net/unix`` shows it: ``@`` for the NULs of an abstract name."""
    if raw[0]:
        return decode(raw.split(b"\0", 1)[0])
    return decode(raw.replace(b"\0", b"@"))
