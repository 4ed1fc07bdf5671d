"""The columns of the table by name: those of the screen, and every field of the records."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from socket import AF_INET, AF_INET6, inet_pton

from ...errors import UsageError
from ...model import Holding, Process, Socket
from ...stream.encoder import timestamp
from .colors import DIM, RED, YELLOW
from .endpoints import ANY_ADDRESSES, is_bound_udp, is_loopback, local_end, remote_end
from .options import Options
from .rows import Row
from .safe import safe

_DIRECTIONS = {"inbound": "in", "outbound": "out", "listen": "·"}
_ASCII_DIRECTIONS = {**_DIRECTIONS, "listen": "."}
_UNKNOWN = "?"
_NONE = "-"

Texts = Callable[[Sequence[Row], Options], list[str]]
Codes = Callable[[Sequence[Row]], list[str]]


@dataclass(frozen=True, slots=True)
class Column:
    """One column. ``value`` is what it is sorted by, and shown unless ``texts`` makes the cells.

    ``floor`` and ``hide`` are as in ``grid.GridColumn``; cells of rows that are ``whole`` are never
    shortened. ``codes`` are colours.
    """

    title: str
    value: Callable[[Row], object]
    texts: Texts | None = None
    right: bool = False
    floor: int | None = None
    hide: int | None = None
    whole: Callable[[Row], bool] | None = None
    codes: Codes | None = None

    def cells(self, rows: Sequence[Row], options: Options) -> list[str]:
        """Return the safe text of each row."""
        if self.texts is not None:
            return self.texts(rows, options)
        return [as_text(self.value(row), options) for row in rows]


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


# Columns of the screen.


def _process_value(row: Row) -> str | None:
    return row.holding.process and row.holding.process.comm


def _process_texts(rows: Sequence[Row], options: Options) -> list[str]:
    texts = []
    last: Process | None = None
    text = _UNKNOWN
    for row in rows:
        process = row.holding.process
        if process is not last:
            last = process
            text = _UNKNOWN if process is None else safe(process.comm, ascii=options.ascii)
        texts.append(f"{text} +{row.others}" if row.others else text)
    return texts


def _pid(row: Row) -> int | None:
    return row.holding.process and row.holding.process.pid


def _pid_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    return [_NONE if (process := row.holding.process) is None else str(process.pid) for row in rows]


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


def _strings(
    value: Callable[[Holding], str | None], rows: Sequence[Row], options: Options
) -> list[str]:
    """Return the cells of a column of texts, of which few differ."""
    known: dict[str | None, str] = {None: _NONE}
    texts = []
    for row in rows:
        text = value(row.holding)
        cell = known.get(text)
        if cell is None:
            cell = known[text] = as_text(text, options)
        texts.append(cell)
    return texts


def _protos(rows: Sequence[Row], options: Options) -> list[str]:
    return _strings(lambda holding: holding.socket.proto, rows, options)


def _states(rows: Sequence[Row], options: Options) -> list[str]:
    return _strings(lambda holding: holding.socket.state, rows, options)


def _users(rows: Sequence[Row], options: Options) -> list[str]:
    return _strings(user_name, rows, options)


def _units(rows: Sequence[Row], options: Options) -> list[str]:
    return _strings(lambda holding: place_of(holding, "unit"), rows, options)


def _direction_texts(rows: Sequence[Row], options: Options) -> list[str]:
    words = _ASCII_DIRECTIONS if options.ascii else _DIRECTIONS
    texts = []
    for row in rows:
        socket = row.holding.socket
        direction = "listen" if is_bound_udp(socket) else socket.direction
        texts.append(_NONE if direction is None else words.get(direction, _NONE))
    return texts


def _local_texts(rows: Sequence[Row], options: Options) -> list[str]:
    return [local_end(row.holding.socket, options) for row in rows]


def _remote_texts(rows: Sequence[Row], options: Options) -> list[str]:
    texts = []
    for row in rows:
        text = remote_end(row.holding.socket, options)
        if text == _NONE and row.peer is not None and row.peer.path is not None:
            text = safe(row.peer.path, ascii=options.ascii)
        texts.append(text)
    return texts


def _is_address(row: Row) -> bool:
    return row.holding.socket.family != "unix"


def _peer_texts(rows: Sequence[Row], options: Options) -> list[str]:
    return [
        _NONE if row.peer is None else safe(row.peer.label, ascii=options.ascii) for row in rows
    ]


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


def _queue_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    return [queue_text(row.holding.socket) for row in rows]


def _send_texts(rows: Sequence[Row], _options: Options) -> list[str]:
    return [_NONE if (queued := row.holding.socket.send_q) is None else str(queued) for row in rows]


def age_text(seconds: float) -> str:
    """Return a duration as one number with its unit: ``12s``, ``4m``, ``3h``, ``2d``."""
    if seconds < 60:
        return f"{max(0, int(seconds))}s"
    if seconds < 3600:
        return f"{int(seconds // 60)}m"
    if seconds < 48 * 3600:
        return f"{int(seconds // 3600)}h"
    return f"{int(seconds // 86_400)}d"


def _age_texts(rows: Sequence[Row], options: Options) -> list[str]:
    now = options.now
    return [
        _NONE if now is None or row.since is None else age_text(now - row.since) for row in rows
    ]


def _age_value(row: Row) -> float | None:
    return None if row.since is None else -row.since


def address_key(address: str | None) -> tuple[int, bytes, str]:
    """Return what sorts addresses: IPv4, IPv6, then other names."""
    if address is None:
        return (0, b"", "")
    try:
        if ":" in address:
            return (2, inet_pton(AF_INET6, address), "")
        return (1, inet_pton(AF_INET, address), "")
    except (OSError, ValueError):
        return (3, b"", address)


def _local_value(row: Row) -> object:
    socket = row.holding.socket
    if socket.family == "unix":
        return (address_key(socket.path), 0) if socket.path is not None else None
    return (address_key(socket.local_addr), socket.local_port or 0)


def _remote_value(row: Row) -> object:
    socket = row.holding.socket
    if socket.remote_addr is None:
        return None
    return (address_key(socket.remote_addr), socket.remote_port or 0)


def _peer_value(row: Row) -> object:
    return None if row.peer is None else (row.peer.comm, row.peer.pid)


# Colours.


def _state_codes(rows: Sequence[Row]) -> list[str]:
    return [RED if row.holding.socket.state == "CLOSE_WAIT" else "" for row in rows]


def _local_codes(rows: Sequence[Row]) -> list[str]:
    codes = []
    for row in rows:
        socket = row.holding.socket
        if socket.state == "LISTEN" and socket.local_addr in ANY_ADDRESSES:
            codes.append(YELLOW)
        else:
            codes.append(DIM if is_loopback(socket.local_addr) else "")
    return codes


def _remote_codes(rows: Sequence[Row]) -> list[str]:
    return [DIM if is_loopback(row.holding.socket.remote_addr) else "" for row in rows]


def _queue_codes(rows: Sequence[Row]) -> list[str]:
    return [RED if is_queue_full(row.holding.socket) else "" for row in rows]


# Fields of the records.


def _socket_field(name: str) -> Callable[[Row], object]:
    return attrgetter(f"holding.socket.{name}")


def _inode(row: Row) -> object:
    return row.holding.socket.inode or None


def _of_process(name: str, row: Row) -> object:
    process = row.holding.process
    return None if process is None else getattr(process, name)


def _of_owner(name: str, row: Row) -> object:
    owner = row.holding.owner
    return None if owner is None else getattr(owner, name)


def _of_place(name: str, row: Row) -> object:
    return place_of(row.holding, name)


def _start_time(row: Row) -> object:
    process = row.holding.process
    return None if process is None else timestamp(process.start_time)


def _fds(row: Row) -> object:
    return row.holding.fds if row.holding.process is not None else None


def _fd_count(row: Row) -> object:
    holding = row.holding
    return None if holding.process is None else len(holding.fds) + holding.omitted_fds


def _direction(row: Row) -> object:
    return row.holding.socket.direction


_NUMBERS = ("local_port", "remote_port", "backlog", "recv_q", "send_q", "netns", "peer_inode")
_WORDS = ("family", "state", "interface", "type", "direction", "source", "proto")

COLUMNS: dict[str, Column] = {
    "host": Column("HOST", attrgetter("host")),
    "process": Column("PROCESS", _process_value, _process_texts),
    "pid": Column("PID", _pid, _pid_texts, right=True),
    "user": Column("USER", lambda row: user_name(row.holding), _users, floor=9, hide=4),
    "proto": Column("PROTO", _socket_field("proto"), _protos),
    "dir": Column("DIR", _direction, _direction_texts, hide=6),
    "state": Column("STATE", _socket_field("state"), _states, codes=_state_codes),
    "local": Column(
        "LOCAL", _local_value, _local_texts, floor=16, whole=_is_address, codes=_local_codes
    ),
    "remote": Column(
        "REMOTE", _remote_value, _remote_texts, floor=16, whole=_is_address, codes=_remote_codes
    ),
    "peer": Column("PEER", _peer_value, _peer_texts, hide=5),
    "recvq": Column(
        "RECVQ", _socket_field("recv_q"), _queue_texts, right=True, hide=3, codes=_queue_codes
    ),
    "sendq": Column("SENDQ", _socket_field("send_q"), _send_texts, right=True, hide=2),
    "unit": Column("UNIT", partial(_of_place, "unit"), _units, floor=16, hide=1),
    "age": Column("AGE", _age_value, _age_texts, right=True),
    "comm": Column("COMM", partial(_of_process, "comm")),
    "exe": Column("EXE", partial(_of_process, "exe"), floor=16),
    "ppid": Column("PPID", partial(_of_process, "ppid"), right=True),
    "start_time": Column("START_TIME", _start_time),
    "cmdline": Column("CMDLINE", partial(_of_process, "cmdline"), floor=16),
    "cgroup": Column("CGROUP", partial(_of_place, "cgroup"), floor=16),
    "container": Column("CONTAINER", partial(_of_place, "container"), floor=12),
    "uid": Column("UID", partial(_of_owner, "uid"), right=True),
    "inode": Column("INODE", _inode, right=True),
    "fds": Column("FDS", _fds),
    "fd_count": Column("FD_COUNT", _fd_count, right=True),
    "path": Column("PATH", _socket_field("path"), floor=16),
    "local_addr": Column("LOCAL_ADDR", _socket_field("local_addr")),
    "remote_addr": Column("REMOTE_ADDR", _socket_field("remote_addr")),
    "peer_pid": Column("PEER_PID", attrgetter("holding.peer_pid"), right=True),
}
COLUMNS |= {
    name: Column(name.upper(), _socket_field(name), right=name in _NUMBERS)
    for name in (*_NUMBERS, *_WORDS)
    if name not in COLUMNS
}
TABLE = (
    "process", "pid", "user", "proto", "dir", "state", "local", "remote", "peer", "recvq", "sendq",
    "unit",
)  # fmt: skip
WIDE = (*TABLE, "age", "container", "inode", "netns", "exe", "cgroup")
_ADDRESSES = frozenset({"local_addr", "remote_addr"})


def check_columns(
    names: Iterable[str], argument: str = "columns", known: Collection[str] = COLUMNS
) -> None:
    """Check the names of columns. Raises UsageError, which names the nearest column."""
    for name in names:
        if name.lower() in known:
            continue
        near = get_close_matches(name.lower(), known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(sorted(known))}"
        raise UsageError(argument, f"no column {name!r}; {hint}")


def check_sort(name: str) -> None:
    """Check the value of ``--sort``. Raises UsageError."""
    check_columns([name.removeprefix("-")], "sort")


def sort_rows(rows: list[Row], name: str) -> list[Row]:
    """Return rows sorted by a column, descending after ``-``; those without a value at the end."""
    descending = name.startswith("-")
    name = name.removeprefix("-").lower()
    value = COLUMNS[name].value
    known = [row for row in rows if value(row) is not None]
    unknown = [row for row in rows if value(row) is None]
    if name in _ADDRESSES:
        known.sort(key=lambda row: address_key(str(value(row))), reverse=descending)
    else:
        known.sort(key=value, reverse=descending)  # type: ignore[arg-type]
    return known + unknown
