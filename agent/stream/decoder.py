"""NDJSON records to values: the inverse of ``encoder.py``. Pure.

What a record does not say is unknown in the value: the user id of a socket or process apart from
that of its owner, the inode of a cgroup, the cookie of a socket. ``start_ticks`` of a process is
counted from the Unix epoch: with the pid it identifies the process among decoded ones.
"""

# No deferred annotations: typing.NamedTuple would compile each of them at import.
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NamedTuple

from orjson import JSONDecodeError, loads

from ..model import (
    INET_FAMILIES,
    CgroupInfo,
    Closed,
    Coverage,
    Holding,
    Opened,
    Owner,
    Process,
    Socket,
    TcpFigures,
    Updated,
)
from ..snapshot.stats import PollSummary
from .fields import (
    AMOUNT,
    AMOUNT_OR_NULL,
    FLAG,
    LIST,
    NUMBER,
    NUMBER_OR_NULL,
    OBJECT,
    TEXT,
    TEXT_OR_NULL,
    DecodeError,
    Fields,
    Json,
    list_of,
    typed,
    wrong,
)


class Present(NamedTuple):
    """A process holds a socket: one record of a snapshot."""

    holding: Holding


class SnapshotEnd(NamedTuple):
    """The snapshot of so many records is complete."""

    records: int


class Began(NamedTuple):
    """A stream began. ``interval`` is in seconds; ``resumed``: it continues an earlier one, and no
    snapshot follows. ``oldest`` is the smallest number after which it can be resumed, None if the
    agent does not say."""

    coverage: Coverage
    epoch: str
    resumed: bool
    version: str
    boot_id: str | None
    interval: float
    oldest: int | None = None


class Dropped(NamedTuple):
    """The changes ``first`` to ``last`` are missing; ``last`` is None where it is unknown, because
    the agent was restarted."""

    first: int
    last: int | None


class Alive(NamedTuple):
    """Nothing happened for a while; ``stats`` is what the agent's polls cost, None if unknown."""

    stats: PollSummary | None


class Other(NamedTuple):
    """A record of an event that this version does not know."""

    event: str


Value = (
    Present | SnapshotEnd | Opened | Updated | Closed | Coverage | Began | Dropped | Alive | Other
)


class Decoded(NamedTuple):
    """One record. ``time`` is in seconds since the Unix epoch; ``seq`` numbers the change."""

    host: str
    seq: int
    time: float
    value: Value


def decode(line: bytes) -> Decoded:
    """Return the value of one line. Raises DecodeError.

    Unknown fields are ignored. A field that is missing or of another type is an error.
    """
    try:
        record = loads(line)
    except JSONDecodeError:
        raise DecodeError("it is not JSON") from None
    if type(record) is not dict:
        raise DecodeError("it is not a JSON object")
    event, seq, at, host = typed(_HEAD, record)
    time = _seconds("time", at)
    decode_value = _DECODERS.get(event)
    value = Other(event) if decode_value is None else decode_value(record, time)
    return Decoded(host, seq, time, value)


# Fields of the records and their types.


# A day from the ends of the calendar: such times are dates in every time zone, also when rounded.
_FIRST = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
_LAST = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)


@lru_cache(maxsize=512)  # All records of a poll have one time, all of a process one more.
def _seconds(name: str, text: str) -> float:
    """Return RFC 3339 text as seconds since the Unix epoch. Raises DecodeError."""
    try:
        time = datetime.fromisoformat(text)
        if time.tzinfo is not None and _FIRST <= time <= _LAST:
            return time.timestamp()
    except (ValueError, OverflowError):
        pass
    raise wrong(name, "a time such as 2026-11-28T03:12:04Z")


_HEAD = Fields(event=TEXT, seq=NUMBER, time=TEXT, host=TEXT)
_OWN = {
    "proto": TEXT_OR_NULL, "family": TEXT_OR_NULL, "state": TEXT_OR_NULL,
    "direction": TEXT_OR_NULL, "recv_q": NUMBER_OR_NULL, "send_q": NUMBER_OR_NULL,
    "inode": NUMBER_OR_NULL, "netns": NUMBER_OR_NULL, "uid": NUMBER_OR_NULL,
    "user": TEXT_OR_NULL, "source": TEXT,
}  # fmt: skip
_UNIX = Fields(
    **_OWN, path=TEXT_OR_NULL, type=TEXT_OR_NULL, peer_inode=NUMBER_OR_NULL,
    peer_pid=NUMBER_OR_NULL,
)  # fmt: skip
_ENDPOINTS = {
    "local_addr": TEXT_OR_NULL, "local_port": NUMBER_OR_NULL, "remote_addr": TEXT_OR_NULL,
    "remote_port": NUMBER_OR_NULL,
}  # fmt: skip
_INET = Fields(**_OWN, **_ENDPOINTS, interface=TEXT_OR_NULL)
_OTHER = Fields(**_OWN, **_ENDPOINTS)
_BACKLOG = Fields(backlog=NUMBER_OR_NULL)
_PLACE = Fields(cgroup=TEXT_OR_NULL, unit=TEXT_OR_NULL, container=TEXT_OR_NULL)
_PROCESS = Fields(
    pid=NUMBER, fds=LIST, fd_count=NUMBER, comm=TEXT, exe=TEXT_OR_NULL, ppid=NUMBER,
    start_time=TEXT, cgroup=TEXT_OR_NULL, unit=TEXT_OR_NULL, container=TEXT_OR_NULL,
)  # fmt: skip
_SEEN = Fields(time_source=TEXT)
_PREVIOUS = Fields(previous=OBJECT)
_CLOSE = Fields(reason=TEXT, duration_ms=NUMBER_OR_NULL)
_TCP = Fields(
    **dict.fromkeys(TcpFigures._fields[:-1], NUMBER_OR_NULL), rtt_ms=AMOUNT_OR_NULL
)  # fmt: skip
_COVERAGE = Fields(
    processes=NUMBER, unreadable=NUMBER, netns=NUMBER, missing=LIST, events_off=TEXT_OR_NULL
)
_HELLO = Fields(epoch=TEXT, resumed=FLAG, version=TEXT, boot_id=TEXT_OR_NULL, interval=AMOUNT)
_END = Fields(count=NUMBER)
_LOST = Fields(**{"from": NUMBER, "to": NUMBER_OR_NULL})
_STATS = Fields(**{
    name: NUMBER_OR_NULL if kind is int else AMOUNT_OR_NULL
    for name, kind in PollSummary.__annotations__.items()
})  # fmt: skip


# Socket records.


def _holding(record: Json) -> Holding:
    """Return the holding of a socket record. Raises DecodeError."""
    family = record.get("family")
    local_addr = local_port = remote_addr = remote_port = path = kind = None
    peer_inode = peer_pid = interface = backlog = None
    if family == "unix":
        (
            proto, family, state, direction, recv_q, send_q, inode, netns, uid, user, source,
            path, kind, peer_inode, peer_pid,
        ) = typed(_UNIX, record)  # fmt: skip
    elif type(family) is str and family in INET_FAMILIES:
        (
            proto, family, state, direction, recv_q, send_q, inode, netns, uid, user, source,
            local_addr, local_port, remote_addr, remote_port, interface,
        ) = typed(_INET, record)  # fmt: skip
    else:
        (
            proto, family, state, direction, recv_q, send_q, inode, netns, uid, user, source,
            local_addr, local_port, remote_addr, remote_port,
        ) = typed(_OTHER, record)  # fmt: skip
    if state == "LISTEN":
        (backlog,) = typed(_BACKLOG, record)
    # A third faster than Socket(); the same holds for Holding below.
    socket = tuple.__new__(Socket, (
        inode or 0, proto, family, kind, state, local_addr, local_port, remote_addr, remote_port,
        path, direction, recv_q, send_q, None, netns, source, peer_inode, backlog, interface,
        None, None,
    ))  # fmt: skip
    owner = None if uid is None else _owner(uid, user)
    if record.get("pid") is not None:
        process, fds, omitted = _holder(record)
        attribution = record.get("attribution")
        if attribution is not None and type(attribution) is not str:
            raise wrong("attribution", "text or null")
        return tuple.__new__(
            Holding, (socket, process, fds, owner, peer_pid, None, omitted, attribution)
        )
    if "pid" not in record:
        raise DecodeError("the field 'pid' is missing")
    place = CgroupInfo(*typed(_PLACE, record)) if "cgroup" in record else None
    return Holding(socket, None, (), owner, peer_pid, place)


@lru_cache(maxsize=512)
def _owner(uid: int, user: str | None) -> Owner:
    return Owner(uid, user)


def _holder(record: Json) -> tuple[Process, tuple[int, ...], int]:
    """Return the process of a socket record, its descriptors, and how many more it has."""
    pid, fds, fd_count, *rest = typed(_PROCESS, record)
    if pid < 1:  # For kill(1) such a number is not one process.
        raise wrong("pid", "at least 1")
    cmdline = record.get("cmdline")
    if cmdline is not None:
        if type(cmdline) is not list:
            raise wrong("cmdline", "a list of texts")
        cmdline = list_of(str, "cmdline", cmdline)
    descriptors = list_of(int, "fds", fds)
    if fd_count < len(fds):
        raise wrong("fd_count", "at least the length of 'fds'")
    return _process(pid, *rest, cmdline), descriptors, fd_count - len(fds)


# Command lines may have some MiB each.
_MAX_CACHED_CHARS = 65_536


@lru_cache(maxsize=4096)  # The sockets of a process share it, as they do in a snapshot.
def _process(  # noqa: PLR0913, PLR0917 (the fields of a record)
    pid: int,
    comm: str,
    exe: str | None,
    ppid: int,
    start_time: str,
    cgroup: str | None,
    unit: str | None,
    container: str | None,
    cmdline: tuple[str, ...] | None,
) -> Process:
    texts = (comm, exe, cgroup, unit, container, *(cmdline or ()))
    if sum(len(text) for text in texts if text) > _MAX_CACHED_CHARS:
        _process.cache_clear()  # At most one such process is kept.
    started = _seconds("start_time", start_time)
    # The kernel counts in hundredths of a second.
    ticks = round(started * 100)
    return Process(
        pid, ticks, comm, ppid, started, None, exe, cgroup, unit, container, cmdline
    )  # fmt: skip


def _present(record: Json, _time: float) -> Present:
    return Present(_holding(record))


def _event_time(record: Json, time: float) -> float | None:
    """Return the time of a change if an event showed it; None if only the poll is known."""
    (source,) = typed(_SEEN, record)
    return time if source == "event" else None


def _opened(record: Json, time: float) -> Opened:
    return Opened(_holding(record), _event_time(record, time))


def _updated(record: Json, time: float) -> Updated:
    """Return an update. ``before`` has the values of ``previous``; what that does not track, such
    as queues and command lines, is as it is now."""
    (previous,) = typed(_PREVIOUS, record)
    now = _holding(record)
    # The backlog is not known if the socket listened before and no longer does.
    before = {"backlog": None, **record, **previous, "pid": record["pid"]}
    return Updated(now, _holding(before), None, _event_time(record, time))


def _closed(record: Json, time: float) -> Closed:
    holding = _holding(record)
    reason, milliseconds = typed(_CLOSE, record)
    figures = None
    if holding.socket.proto == "tcp":
        values = typed(_TCP, record)
        if None not in values[:-1]:  # The round-trip time alone may be unknown.
            figures = TcpFigures(*values)
    seconds = None if milliseconds is None else milliseconds / 1000
    return Closed(holding, reason, seconds, _event_time(record, time), figures)


# Records of the stream itself.


def _coverage(record: Json, _time: float) -> Coverage:
    processes, unreadable, netns, missing, events_off = typed(_COVERAGE, record)
    return Coverage(processes, unreadable, netns, list_of(str, "missing", missing), events_off)


def _began(record: Json, time: float) -> Began:
    oldest = record.get("oldest")
    if oldest is not None and type(oldest) is not int:
        raise wrong("oldest", "a number")
    return Began(_coverage(record, time), *typed(_HELLO, record))._replace(oldest=oldest)


def _snapshot_end(record: Json, _time: float) -> SnapshotEnd:
    (count,) = typed(_END, record)
    return SnapshotEnd(count)


def _lost(record: Json, _time: float) -> Dropped:
    return Dropped(*typed(_LOST, record))


def _heartbeat(record: Json, _time: float) -> Alive:
    figures = typed(_STATS, record)
    return Alive(None if None in figures else PollSummary(*figures))


_DECODERS: dict[str, Callable[[Json, float], Value]] = {
    "hello": _began,
    "snapshot": _present,
    "snapshot_end": _snapshot_end,
    "open": _opened,
    "update": _updated,
    "close": _closed,
    "coverage": _coverage,
    "lost": _lost,
    "heartbeat": _heartbeat,
}
