"""The texts and colours of the columns of the table, for many rows at once.

Texts are not yet safe, see ``made_safe``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ...model import Holding, Socket
from ...stream.filter_values import is_bound
from .colors import DIM, RED, YELLOW
from .endpoints import ANY_ADDRESSES, is_loopback, local_end, remote_end
from .options import Options
from .rows import Row
from .safe import safe

_DIRECTIONS = {"inbound": "in", "outbound": "out", "listen": "·"}
_ASCII_DIRECTIONS = {**_DIRECTIONS, "listen": "."}
_UNKNOWN = "?"
_NONE = "-"


def made_safe(texts: list[str], options: Options) -> list[str]:
    """Return safe texts. One look at all of them costs less than one at each, and of those that
    are not plain ASCII few differ."""
    joined = "".join(texts)
    if joined.isascii() and joined.isprintable():
        return texts
    known = {text: safe(text, ascii=options.ascii) for text in set(texts)}
    return [known[text] for text in texts]


def as_text(value: object, options: Options) -> str:
    """Return a value of a record as safe text."""
    if value is None:
        return _NONE
    if isinstance(value, tuple):
        value = flat(value)
    return safe(str(value), ascii=options.ascii)


def flat(values: tuple[object, ...]) -> str:
    """Return a list of descriptors or the words of a command line as one text."""
    return shlex.join(map(str, values))


def process_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return the name of the oldest holder and how many more there are."""
    return [
        (_UNKNOWN if row.process is None else row.process.comm)
        + (f" +{row.others}" if row.others else "")
        for row in rows
    ]


def pid_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return pids."""
    return [_NONE if (process := row.process) is None else str(process.pid) for row in rows]


def user_name(holding: Holding) -> str | None:
    """Return the name of the owner of a socket, or else its user id."""
    owner = holding.owner
    if owner is None:
        return None
    return str(owner.uid) if owner.user is None else owner.user


def place_of(holding: Holding, field: str) -> str | None:
    """Return ``cgroup``, ``unit`` or ``container`` of the process, or else of the socket."""
    place = holding.cgroup if holding.process is None else holding.process
    value: str | None = None if place is None else getattr(place, field)
    return value


def proto_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return protocols."""
    return [row.socket.proto or _UNKNOWN for row in rows]


def state_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return states."""
    return [row.socket.state or _UNKNOWN for row in rows]


def user_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return names of the owners."""
    texts = []
    last, text = None, _NONE
    for row in rows:
        if row.holding.owner is not last:
            last, text = row.holding.owner, user_name(row.holding) or _NONE
        texts.append(text)
    return texts


def unit_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return systemd units."""
    return [
        (place_of(row.holding, "unit") if row.process is None else row.process.unit) or _NONE
        for row in rows
    ]


def direction_texts(rows: Sequence[Row], options: Options) -> list[str]:
    """Return directions in few letters."""
    words = _ASCII_DIRECTIONS if options.ascii else _DIRECTIONS
    listens = words["listen"]
    return [
        words.get(direction, _NONE)
        if (direction := row.socket.direction) is not None
        else listens
        if row.socket.proto != "tcp" and is_bound(row.socket)
        else _NONE
        for row in rows
    ]


def local_texts(rows: Sequence[Row], options: Options) -> list[str]:
    """Return local ends."""
    has_names = bool(options.names or options.services)
    return [
        local_end(row.socket, options)
        if has_names
        or (socket := row.socket).family != "inet"
        or socket.interface
        or not socket.local_port
        or socket.local_addr is None
        or socket.local_addr in ANY_ADDRESSES
        else f"{socket.local_addr}:{socket.local_port}"
        for row in rows
    ]


def remote_texts(rows: Sequence[Row], options: Options) -> list[str]:
    """Return remote ends."""
    has_names = bool(options.names or options.services)
    return [
        _remote_text(row, options)
        if has_names
        or (socket := row.socket).family != "inet"
        or not socket.remote_port
        or socket.remote_addr is None
        or socket.remote_addr in ANY_ADDRESSES
        else f"{socket.remote_addr}:{socket.remote_port}"
        for row in rows
    ]


def _remote_text(row: Row, options: Options) -> str:
    if row.socket.family == "unix" and row.peer is not None and row.peer.path is not None:
        return row.peer.path
    return remote_end(row.socket, options)


def peer_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return who holds the other end on this machine."""
    return [_NONE if row.peer is None else row.peer.label for row in rows]


def queue_text(socket: Socket) -> str:
    """Return the receive queue; of a listener the accept queue: ``129/128``."""
    if socket.recv_q is None:
        return _NONE
    if socket.state == "LISTEN" and socket.backlog is not None:
        return f"{socket.recv_q}/{socket.backlog}"
    return str(socket.recv_q)


def is_queue_full(socket: Socket) -> bool:
    """Return whether the accept queue of a listener takes no more connections: the kernel lets one
    more than the backlog in (sk_acceptq_is_full in include/net/sock.h)."""
    if socket.state != "LISTEN" or socket.recv_q is None or socket.backlog is None:
        return False
    return socket.recv_q > socket.backlog


def queue_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return receive queues, of listeners accept queues."""
    return [
        queue_text(socket)
        if (socket := row.socket).state == "LISTEN" or socket.recv_q is None
        else str(socket.recv_q)
        for row in rows
    ]


def send_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    """Return send queues."""
    return [_NONE if (queued := row.socket.send_q) is None else str(queued) for row in rows]


def age_text(seconds: float) -> str:
    """Return a duration as one number with its unit: ``12s``, ``4m``, ``3h``, ``2d``."""
    if seconds < 60:
        return f"{max(0, int(seconds))}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m"
    if seconds < 48 * 3600:
        return f"{int(seconds // 3600)}h"
    return f"{int(seconds // 86_400)}d"


def age_texts(rows: Sequence[Row], options: Options) -> list[str]:
    """Return how long sockets have been open."""
    now = options.now
    return [
        _NONE if now is None or row.since is None else age_text(now - row.since) for row in rows
    ]


# Colours.


def state_codes(rows: Sequence[Row]) -> list[str]:
    """Return red for CLOSE_WAIT."""
    return [RED if row.socket.state == "CLOSE_WAIT" else "" for row in rows]


def local_codes(rows: Sequence[Row]) -> list[str]:
    """Return yellow for listeners on all addresses, and dim for loopback."""
    codes = []
    for row in rows:
        socket = row.socket
        if socket.state == "LISTEN" and socket.local_addr in ANY_ADDRESSES:
            codes.append(YELLOW)
        else:
            codes.append(DIM if is_loopback(socket.local_addr) else "")
    return codes


def remote_codes(rows: Sequence[Row]) -> list[str]:
    """Return dim for loopback."""
    return [DIM if is_loopback(row.socket.remote_addr) else "" for row in rows]


def queue_codes(rows: Sequence[Row]) -> list[str]:
    """Return red for full accept queues."""
    return [RED if is_queue_full(row.socket) else "" for row in rows]
