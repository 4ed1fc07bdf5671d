"""The event log: one line for each change. Columns have fixed widths and overflow rather than
move."""

# No deferred annotations, as in model.py: typing.NamedTuple would compile them at import.
from datetime import UTC, datetime
from functools import lru_cache
from typing import NamedTuple

from ...model import Closed, Coverage, Holding, Opened, Socket, TcpFigures, Updated
from .cells import as_text, flat, place_of
from .colors import DIM, GREEN, RED, YELLOW, paint
from .endpoints import local_end, remote_end
from .options import Options
from .safe import pad, safe, width
from .summary import counted

_WORD, _PROCESS, _DIRECTION, _ENDS, _DETAIL, _HOST = 8, 16, 3, 34, 27, 12
_GAP = "  "
_SYN_SENT = "SYN_SENT"
# States in which the end of the peer's stream has arrived.
_PEER_ENDED = frozenset({"CLOSE_WAIT", "LAST_ACK", "CLOSING", "TIME_WAIT"})
_DIRECTIONS = {"inbound": "in", "outbound": "out"}
_MAX_UNITS = (("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


class Started(NamedTuple):
    """A snapshot is complete: the following lines are changes of it. ``hint`` is how to end."""

    sockets: int
    processes: int
    hint: str = ""


class Dropped(NamedTuple):
    """The reader was too slow: changes ``first`` to ``last`` are lost; ``last`` is None if unknown.
    ``sockets`` are those of the new snapshot, None before it is complete."""

    first: int
    last: int | None
    sockets: int | None = None


LogValue = Opened | Updated | Closed | Coverage | Started | Dropped


def log_line(host: str, time: float, value: LogValue, options: Options) -> str:
    """Return the line of a change of ``host`` at ``time``, in seconds since the Unix epoch."""
    match value:
        case Opened(holding):
            text = _change("open", GREEN, holding, detail_text(value, options), options)
        case Updated(holding):
            code = RED if holding.socket.state == "CLOSE_WAIT" else ""
            text = _change("update", code, holding, detail_text(value, options), options)
        case Closed(holding):
            text = _change("close", DIM, holding, detail_text(value, options), options)
        case Coverage():
            text = _notice("coverage", YELLOW, _coverage(value), options)
        case Started(sockets, processes, hint):
            name = safe(host, ascii=options.ascii)
            text = f"{name}: {counted(sockets, 'socket')} of {counted(processes, 'process')}"
            return text + (f"; {safe(hint, ascii=options.ascii)}" if hint else "")
        case Dropped(first, last, sockets):
            text = _notice("LOST", RED, _dropped(first, last, sockets, options), options)
    where = ""
    if options.hosts:
        where = pad(safe(host, ascii=options.ascii), _HOST) + _GAP
    return f"{clock_text(time, utc=options.utc)}{_GAP}{where}{text}".rstrip()


def detail_text(change: Opened | Updated | Closed, options: Options) -> str:
    """Return what there is to say of a change besides whose it is; it is not yet safe."""
    match change:
        case Opened(holding):
            return _opened(holding)
        case Updated(holding, before):
            return _updated(holding, before, options)
        case Closed():
            return _closed(change)


def clock_text(time: float, *, utc: bool) -> str:
    """Return seconds since the Unix epoch as the time of the day, local or in UTC."""
    return _clock_text(int(time), utc)


@lru_cache(maxsize=64)  # Many changes have the time of one poll.
def _clock_text(time: int, utc: bool) -> str:
    if utc:
        return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%SZ")
    return datetime.fromtimestamp(time).strftime("%H:%M:%S")


def _notice(word: str, code: str, text: str, options: Options) -> str:
    word = pad(word, _WORD)
    text = safe(text, ascii=options.ascii)
    return f"{paint(word, code) if options.color else word}{_GAP}{text}"


def _change(word: str, code: str, holding: Holding, detail: str, options: Options) -> str:
    process = holding.process
    who = "?" if process is None else f"{process.comm}[{process.pid}]"
    word = pad(word, _WORD)
    start = f"{paint(word, code) if options.color else word}{_GAP}"
    cells = [
        pad(safe(who, ascii=options.ascii), _PROCESS),
        pad(_direction(holding), _DIRECTION),
        pad(ends_text(holding, options), _ENDS),
    ]
    unit = place_of(holding, "unit")
    detail = safe(detail, ascii=options.ascii)
    line = _GAP.join(cells)
    if unit is None:
        return f"{start}{line}{_GAP}{detail}"
    with_unit = f"{line}{_GAP}{pad(detail, _DETAIL)}{_GAP}{safe(unit, ascii=options.ascii)}"
    clock = len("00:00:00") + len(_GAP) + (_HOST + len(_GAP) if options.hosts else 0)
    room = None if options.width is None else options.width - clock - _WORD - len(_GAP)
    if room is not None and width(with_unit) > room:
        return f"{start}{line}{_GAP}{detail}"
    return start + with_unit


def _direction(holding: Holding) -> str:
    return _DIRECTIONS.get(holding.socket.direction or "", "-")


def ends_text(holding: Holding, options: Options) -> str:
    """Return both ends of a socket with an arrow from who called to who was called; without a peer
    the local end only. Of a unix socket the other end is a process."""
    socket = holding.socket
    local = local_end(socket, options)
    if socket.family == "unix":
        local = "unnamed" if socket.path is None else local
        if holding.peer_pid is None:
            return local
        remote = f"pid {holding.peer_pid}"
    elif socket.remote_addr is None:
        return local
    else:
        remote = remote_end(socket, options)
    if socket.direction == "inbound":
        return f"{remote} {options.arrow} {local}"
    if socket.direction == "outbound":
        return f"{local} {options.arrow} {remote}"
    return f"{local} - {remote}"


def _opened(holding: Holding) -> str:
    if holding.attribution == "listener":
        return "holder guessed from the listener"
    state = holding.socket.state
    return "" if state in (None, "ESTABLISHED", "CONNECTED", "UNCONNECTED") else str(state)


def _updated(holding: Holding, before: Holding, options: Options) -> str:
    """Return what changed, the most important first."""
    changes = []
    socket, was = holding.socket, before.socket

    def change(name: str, old: object, new: object) -> None:
        if old != new:
            texts = (as_text(old, options), as_text(new, options))
            changes.append(f"{name}{texts[0]} {options.arrow} {texts[1]}")

    change("", was.state, socket.state)
    if ends_text(before, options) != ends_text(holding, options):
        changes.append(f"was {ends_text(before, options)}")
    change("fds ", flat(before.fds), flat(holding.fds))
    if before.process is not None and holding.process is not None:
        for name in ("comm", "exe", "ppid", "unit"):
            change(f"{name} ", getattr(before.process, name), getattr(holding.process, name))
    change("owner ", before.owner and before.owner.uid, holding.owner and holding.owner.uid)
    return "; ".join(changes)


def _closed(closed: Closed) -> str:
    """Return how a socket ended, and what it transferred."""
    how, figures, socket = _ended(closed), closed.figures, closed.holding.socket
    if figures is not None:
        how += f"; {_figures(figures, socket)}"
    elif socket.state == _SYN_SENT and closed.reason in ("closed", "exited"):
        how += f"; last seen in {_SYN_SENT}"
    return how


def _ended(closed: Closed) -> str:
    holding, reason, seconds = closed.holding, closed.reason, closed.seconds
    if reason == "attributed":
        return "holder found"
    if reason == "filtered":
        return "no longer matches"
    if seconds is None:
        if not holding.socket.inode:
            seen = "" if holding.process is not None else ": holder not seen"
            return f"over before a poll{seen}"
        return reason
    return f"{reason} after {seconds_text(seconds)}"


def seconds_text(seconds: float) -> str:
    """Return a duration: ``1.0 s``, ``4 m 12 s``, ``3 h 5 m``, ``2 d 4 h``."""
    seconds = max(0.0, seconds)
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < 3600:
        return f"{whole // 60} m {whole % 60} s"
    if whole < 86_400:
        return f"{whole // 3600} h {whole % 3600 // 60} m"
    return f"{whole // 86_400} d {whole % 86_400 // 3600} h"


def bytes_text(count: int) -> str:
    """Return a number of bytes in decimal units: ``512 B``, ``3.4 kB``."""
    for unit, size in _MAX_UNITS:
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"


def _figures(figures: TcpFigures, socket: Socket) -> str:
    if _never_established(figures, socket):
        text = "not established" if figures.segments_in else "not established: no answer"
    else:
        text = f"{bytes_text(figures.bytes_sent)} sent, {_received(figures, socket)} received"
    if figures.retransmits:
        text += f", {counted(figures.retransmits, 'retransmit')}"
    return text


def _never_established(figures: TcpFigures, socket: Socket) -> bool:
    """Return whether the figures prove it: of a connection that was begun here, only the first
    segment was sent, perhaps several times. One that is established sends at least another one, and
    its round-trip time is known if the first segment was sent once."""
    return (
        socket.direction == "outbound"
        and figures.segments_out == 1 + figures.retransmits
        and figures.rtt_ms is None
        and not (figures.bytes_sent or figures.bytes_received)
    )


def _received(figures: TcpFigures, socket: Socket) -> str:
    """Return what was received. The kernel counts the end of the stream as a byte; of a single one
    only the state may show that it is this one."""
    if figures.bytes_received == 1:
        return "nothing" if socket.state in _PEER_ENDED else "at most 1 B"
    return bytes_text(figures.bytes_received)


def _coverage(coverage: Coverage) -> str:
    parts = [counted(coverage.processes, "process")]
    parts += coverage.missing
    if coverage.unreadable and not coverage.missing:
        parts.append(f"{coverage.unreadable:,} could not be read")
    if coverage.complete:
        parts.append("everything could be read")
    return "; ".join(parts)


def _dropped(first: int, last: int | None, sockets: int | None, options: Options) -> str:
    dash = "-" if options.ascii else "\u2013"
    numbers = f"{first} on" if last is None else f"{first}{dash}{last}"
    text = f"{numbers}: the reader was too slow"
    return text if sockets is None else f"{text}; {counted(sockets, 'socket')} now"
