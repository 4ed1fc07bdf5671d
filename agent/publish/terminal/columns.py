"""The columns of the table by name: those of the screen, and every field of the records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from operator import attrgetter
from socket import AF_INET, AF_INET6, inet_pton

from ...errors import UsageError
from ...stream.times import timestamp
from . import cells
from .options import Options
from .rows import Row

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
            return cells.made_safe(self.texts(rows, options), options)
        return [cells.as_text(self.value(row), options) for row in rows]


def _process_value(row: Row) -> str | None:
    return row.process and row.process.comm


def _pid(row: Row) -> int | None:
    return row.process and row.process.pid


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
    socket = row.socket
    if socket.family == "unix":
        return (address_key(socket.path), 0) if socket.path is not None else None
    return (address_key(socket.local_addr), socket.local_port or 0)


def _remote_value(row: Row) -> object:
    socket = row.socket
    if socket.remote_addr is None:
        return None
    return (address_key(socket.remote_addr), socket.remote_port or 0)


def _is_address(row: Row) -> bool:
    """Return whether the ends are addresses, which are never shortened."""
    return row.socket.family != "unix"


def _peer_value(row: Row) -> object:
    return None if row.peer is None else (row.peer.comm, row.peer.pid)


def _socket_field(name: str) -> Callable[[Row], object]:
    return attrgetter(f"socket.{name}")


def _inode(row: Row) -> object:
    return row.socket.inode or None


def _of_process(name: str, row: Row) -> object:
    process = row.process
    return None if process is None else getattr(process, name)


def _of_owner(name: str, row: Row) -> object:
    owner = row.holding.owner
    return None if owner is None else getattr(owner, name)


def _of_place(name: str, row: Row) -> object:
    return cells.place_of(row.holding, name)


def _start_time(row: Row) -> object:
    process = row.process
    return None if process is None else timestamp(process.start_time)


def _fds(row: Row) -> object:
    return row.holding.fds if row.process is not None else None


def _fd_count(row: Row) -> object:
    holding = row.holding
    return None if holding.process is None else len(holding.fds) + holding.omitted_fds


def _direction(row: Row) -> object:
    return row.socket.direction


_NUMBERS = ("local_port", "remote_port", "backlog", "recv_q", "send_q", "netns", "peer_inode")
_WORDS = ("family", "state", "interface", "type", "direction", "source", "proto")

COLUMNS: dict[str, Column] = {
    "host": Column("HOST", attrgetter("host")),
    "process": Column("PROCESS", _process_value, cells.process_texts),
    "pid": Column("PID", _pid, cells.pid_texts, right=True),
    "user": Column(
        "USER", lambda row: cells.user_name(row.holding), cells.user_texts, floor=9, hide=4
    ),
    "proto": Column("PROTO", _socket_field("proto"), cells.proto_texts),
    "dir": Column("DIR", _direction, cells.direction_texts, hide=6),
    "state": Column("STATE", _socket_field("state"), cells.state_texts, codes=cells.state_codes),
    "local": Column(
        "LOCAL",
        _local_value,
        cells.local_texts,
        floor=16,
        whole=_is_address,
        codes=cells.local_codes,
    ),
    "remote": Column(
        "REMOTE",
        _remote_value,
        cells.remote_texts,
        floor=16,
        whole=_is_address,
        codes=cells.remote_codes,
    ),
    "peer": Column("PEER", _peer_value, cells.peer_texts, hide=5),
    "recvq": Column(
        "RECVQ",
        _socket_field("recv_q"),
        cells.queue_texts,
        right=True,
        hide=3,
        codes=cells.queue_codes,
    ),
    "sendq": Column("SENDQ", _socket_field("send_q"), cells.send_texts, right=True, hide=2),
    "unit": Column("UNIT", partial(_of_place, "unit"), cells.unit_texts, floor=16, hide=1),
    "age": Column("AGE", _age_value, cells.age_texts, right=True),
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


def check_columns(names: Iterable[str], argument: str = "columns") -> None:
    """Check the names of columns. Raises UsageError, which names the nearest column."""
    for name in names:
        if name.lower() in COLUMNS:
            continue
        near = get_close_matches(name.lower(), COLUMNS, n=1)
        expected = ", ".join(sorted(COLUMNS))
        hint = f"did you mean {near[0]}?" if near else f"expected one of {expected}"
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
