"""The columns of sockets. Pure."""

from __future__ import annotations

from ...model import INET_FAMILIES, Process
from ..terminal.cells import age_text, place_of, user_name
from ..terminal.columns import address_key
from ..terminal.endpoints import is_loopback, listens, local_end, remote_end
from ..terminal.options import Options
from .columns import NONE, UNKNOWN, Column, waited
from .model import Queue, SocketRow, Style

# An address and a port: an IPv6 address has 39 characters, and brackets here.
_V4_END, _V6_END = 21, 47


def _process(row: SocketRow) -> Process | None:
    return row.holding.process


def _process_text(row: SocketRow, _options: Options) -> str:
    process = _process(row)
    name = UNKNOWN if process is None else process.comm
    return f"{name} +{row.others}" if row.others else name


def _direction(row: SocketRow, options: Options) -> str:
    if listens(row.holding.socket):
        return "." if options.ascii else "·"
    return {"inbound": "in", "outbound": "out"}.get(row.holding.socket.direction or "", NONE)


def _is_address(row: SocketRow) -> bool:
    return row.holding.socket.family in INET_FAMILIES


def _end_value(address: str | None, port: int | None) -> object:
    return None if address is None else (address_key(address), port or 0)


def _local_value(row: SocketRow) -> object:
    socket = row.holding.socket
    return _end_value(socket.local_addr if socket.path is None else socket.path, socket.local_port)


def _remote_value(row: SocketRow) -> object:
    return _end_value(row.holding.socket.remote_addr, row.holding.socket.remote_port)


def _remote_text(row: SocketRow, options: Options) -> str:
    if row.holding.socket.family == "unix" and row.peer is not None and row.peer.path is not None:
        return row.peer.path
    return remote_end(row.holding.socket, options)


def _state_text(row: SocketRow, options: Options) -> str:
    if row.ended_ago is not None and row.ending:
        return row.ending.partition(" ")[0]
    state = row.holding.socket.state or UNKNOWN
    if row.close_wait_age is None:
        return state
    age = waited(row.close_wait_age, before=row.close_wait_since_before)
    return f"{state} {age.replace('≥', '>') if options.ascii else age}"


def _state_style(row: SocketRow) -> Style:
    return Style.ALARM if row.holding.socket.state == "CLOSE_WAIT" else Style.PLAIN


def _accept_queue(row: SocketRow) -> Queue | None:
    if row.holding.socket.state != "LISTEN" or row.recv_q is None or row.backlog is None:
        return None
    return Queue(row.recv_q, row.backlog, "")


def _socket_queue(row: SocketRow, _options: Options) -> str:
    queue = _accept_queue(row)
    if queue is not None:
        return queue.text
    return NONE if row.recv_q is None else str(row.recv_q)


def _queue_style(row: SocketRow) -> Style:
    queue = _accept_queue(row)
    return Style.ALARM if queue is not None and queue.is_full else Style.PLAIN


def _send_queue(row: SocketRow, _options: Options) -> str:
    queued = row.holding.socket.send_q
    return NONE if queued is None else str(queued)


def _end_style(address: str | None) -> Style:
    return Style.DIM if is_loopback(address) else Style.PLAIN


_COLUMNS: dict[str, Column[SocketRow]] = {
    "process": Column("PROCESS", lambda row: (by := _process(row)) and by.comm, _process_text, 16,
                      floor=12, most=24, hide=8),
    "pid": Column("PID", lambda row: (by := _process(row)) and by.pid,
                  lambda row, _: NONE if (by := _process(row)) is None else str(by.pid), 7,
                  right=True, hide=6),
    "user": Column("USER", lambda row: user_name(row.holding),
                   lambda row, _: user_name(row.holding) or NONE, 9, floor=8, most=16, hide=1),
    "proto": Column("PROTO", lambda row: row.holding.socket.proto,
                    lambda row, _: row.holding.socket.proto or UNKNOWN, 5, floor=5, hide=4),
    "dir": Column("DIR", lambda row: row.holding.socket.direction, _direction, 3, hide=9),
    "state": Column("STATE", lambda row: row.holding.socket.state, _state_text, 11, most=16,
                    style=_state_style),
    "local": Column("LOCAL", _local_value, lambda row, options:
                    local_end(row.holding.socket, options), _V4_END, floor=_V4_END,
                    most=_V6_END, hide=10, whole=_is_address,
                    style=lambda row: _end_style(row.holding.socket.local_addr)),
    "remote": Column("REMOTE", _remote_value, _remote_text, _V4_END, floor=_V4_END,
                     most=_V6_END, whole=_is_address,
                     style=lambda row: _end_style(row.holding.socket.remote_addr)),
    "peer": Column("PEER", lambda row: row.peer and (row.peer.comm, row.peer.pid),
                   lambda row, _: NONE if row.peer is None else row.peer.label, 18, floor=14,
                   most=28, hide=3),
    "recvq": Column("RECVQ", lambda row: row.recv_q, _socket_queue, 9, right=True, hide=2,
                    style=_queue_style, descending=True),
    "sendq": Column("SENDQ", lambda row: row.holding.socket.send_q, _send_queue, 6, right=True,
                    hide=2, descending=True),
    "age": Column("AGE", lambda row: row.age,
                  lambda row, _: NONE if row.age is None else age_text(row.age), 4, right=True,
                  hide=7),
    "unit": Column("UNIT", lambda row: place_of(row.holding, "unit"),
                   lambda row, _: place_of(row.holding, "unit") or NONE, 20, floor=12, most=40,
                   hide=0),
}  # fmt: skip


def socket_columns() -> dict[str, Column[SocketRow]]:
    """Return the columns of the sockets of a group, which are of one host."""
    return _COLUMNS
