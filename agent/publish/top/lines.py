"""Rows and values to lines of styled text that fit a width. All text is made safe. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ...model import Closed, Opened, Updated
from ..terminal.cells import age_text, as_text
from ..terminal.columns import COLUMNS
from ..terminal.eventlog import Dropped, clock_text, log_line
from ..terminal.options import Options
from ..terminal.rows import Row as TerminalRow
from ..terminal.safe import pad, safe, shorten, width
from .columns import MARGIN, Layout, Placed
from .model import (
    Alarm,
    Event,
    GroupRow,
    Header,
    Line,
    PeerRow,
    Segment,
    Severity,
    SocketRow,
    Style,
)

_BARS, _ASCII_BARS = "▁▂▃▄▅▆▇█", "_.-=*#"
# Numbers of bars, of which the sixty seconds are multiples.
_SPARKS = (60, 30, 20, 12, 10, 6, 5)
# No address is longer with its port and the name of an interface, which may be escaped; other text
# of a remote agent may be.
MAX_WHOLE = 256
_NAME_WIDTH = 13  # Of the fields of a socket.


def line_width(line: Line) -> int:
    """Return how many columns a line takes."""
    return sum(width(segment.text) for segment in line)


def spark(counts: Sequence[int], bars: int, options: Options) -> str:
    """Return counts as so many bars, each the sum of equally many."""
    size = len(counts) // bars
    sums = [sum(counts[at : at + size]) for at in range(0, size * bars, size)]
    levels = _ASCII_BARS if options.ascii else _BARS
    most = max(sums, default=0) or 1
    return "".join(levels[-(-one * (len(levels) - 1) // most)] for one in sums)


def header_line(header: Header, limit: int, options: Options) -> Line:
    """Return the first line; what matters least goes first where it is too long."""
    host = safe(header.host, ascii=options.ascii)
    time = "" if header.time is None else clock_text(header.time, utc=options.utc)
    sockets = f"{header.sockets:,} sockets"
    counts = f": {header.inbound:,} in {header.outbound:,} out {header.listening:,} listen"
    mark = "*" if options.ascii else "●"
    is_live = header.state == "live"
    state = Segment(
        f"{mark} {safe(header.state, ascii=options.ascii)}",
        Style.GOOD if is_live else Style.WARNING,
    )
    opens, closes = _rate(header.opens_per_s), _rate(header.closes_per_s)

    def parts(has: int, bars: int) -> list[Line]:
        """Return the parts of a line that has so many of them."""
        sparks = [
            spark(one, bars, options) + " " if bars else ""
            for one in (header.open_spark, header.close_spark)
        ]
        line: list[Line] = []
        if has >= 5:
            line.append((Segment("sockagent top", Style.TITLE),))
        line.append((Segment(f"{host} {time}".rstrip() if has >= 2 else host, Style.BOLD),))
        if has >= 1:
            line.append((Segment(f"{sparks[0]}{opens} open/s"),))
        if has >= 3:
            line.append((Segment(f"{sparks[1]}{closes} close/s"),))
        if has >= 4:
            line.append((Segment(sockets + (counts if has >= 6 else "")),))
        return [*line, (state,)]

    tries = [(6, bars) for bars in _SPARKS]
    tries += [(has, bars) for has in (6, 5, 4, 3, 2, 1, 0) for bars in (5, 0)]
    for has, bars in tries:
        line = _joined(parts(has, bars), 2)
        if line_width(line) <= limit:
            return line
    return fitted(line, limit, options)


def _rate(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"


def _joined(parts: Iterable[Line], gap: int) -> Line:
    line: list[Segment] = []
    for part in parts:
        if line:
            line.append(Segment(" " * gap))
        line += part
    return tuple(line)


def fitted(line: Line, limit: int, options: Options) -> Line:
    """Return a line cut at a width."""
    if line_width(line) <= limit:
        return line
    cut: list[Segment] = []
    for segment in line:
        room = limit - line_width(tuple(cut))
        if width(segment.text) > room:
            ellipsis = options.ellipsis[: max(0, room)]
            kept = segment.text
            while kept and width(kept) + len(ellipsis) > room:
                kept = kept[:-1]
            cut.append(Segment(kept + ellipsis, segment.style))
            break
        cut.append(segment)
    return tuple(cut)


def alarm_line(alarms: Sequence[Alarm], limit: int, options: Options) -> Line:
    """Return the alarms that fit, and how many more there are."""
    if not alarms:
        return fitted((Segment("no alarms", Style.DIM),), limit, options)
    parts: list[Line] = []
    for number, alarm in enumerate(alarms):
        style = Style.ALARM if alarm.severity is Severity.ALARM else Style.WARNING
        text = _alarm_text(alarm, options)
        more = len(alarms) - number - 1
        rest: list[Line] = [(Segment(f"+{more} more", style),)] if more else []
        if line_width(_joined([*parts, (Segment(text),), *rest], 3)) > limit:
            break
        parts.append((Segment(text, style),))
    left = len(alarms) - len(parts)
    if not parts:
        style = Style.ALARM if alarms[0].severity is Severity.ALARM else Style.WARNING
        more_text = f" +{left - 1} more" if left > 1 else ""
        first = fitted(
            (Segment(_alarm_text(alarms[0], options), style),), limit - len(more_text), options
        )
        return fitted((*first, Segment(more_text, style)), limit, options)
    if left:
        parts.append((Segment(f"+{left} more", Style.ALARM),))
    return _joined(parts, 3)


def _alarm_text(alarm: Alarm, options: Options) -> str:
    text = alarm.text
    if options.ascii:
        text = text.replace("≥", ">").replace("\u2013", "-")
    return safe(f"{alarm.severity} {text}", ascii=options.ascii)


def two_sides(left: str, right: str, limit: int, options: Options) -> Line:
    """Return a line with text at both sides; the right one goes where there is no room."""
    left, right = safe(left, ascii=options.ascii), safe(right, ascii=options.ascii)
    spaces = limit - width(left) - width(right)
    if spaces < 2:
        return fitted((Segment(left),), limit, options)
    return (Segment(left), Segment(" " * spaces), Segment(right, Style.DIM))


def footer_line(keys: Sequence[tuple[str, str]], limit: int, options: Options) -> Line:
    """Return keys with what they do: as many as fit, from the first on, and always the last."""
    parts = [
        (
            Segment(safe(key, ascii=options.ascii), Style.BOLD),
            Segment(f" {safe(word, ascii=options.ascii)}"),
        )
        for key, word in keys
    ]
    while len(parts) > 1 and line_width(_joined(parts, 2)) > limit:
        del parts[-2]
    return fitted(_joined(parts, 2), limit, options)


# Rows.


def titles_line(layout: Layout, sort: str, options: Options, *, descending: bool) -> Line:
    """Return the titles of the columns; an arrow marks the one that is sorted by."""
    down, up = ("v", "^") if options.ascii else ("▼", "▲")
    cells = []
    for placed in layout.columns:
        mark = (down if descending else up) if placed.name == sort else ""
        cells.append(Segment(placed.column.title + mark, Style.TITLE))
    return _row("  ", layout, cells)


def row_line(
    layout: Layout, row: GroupRow | SocketRow, options: Options, *, marked: bool = False
) -> Line:
    """Return the line of a row; ``marked``: the cursor is on it."""
    has_ended = row.ended_ago is not None and (isinstance(row, SocketRow) or row.has_exited)
    ended, cursor = ("x", ">") if options.ascii else ("✗", "›")  # noqa: RUF001 (a mark)
    mark = f"{cursor if marked else ''}{ended if has_ended else ''}"
    cells = []
    for placed in layout.columns:
        style = placed.column.style(row)
        if row.ended_ago is not None:
            style = Style.ENDED if has_ended else Style.DIM
        cells.append(Segment(_cell(placed, row, options), style))
    line = _row(f"{mark:<{MARGIN}}", layout, cells)
    if row.ended_ago is not None:
        age = age_text(row.ended_ago)
        text = f"ended, {age} ago" if has_ended else f"no sockets for {age}"
        if isinstance(row, SocketRow) and row.ending:
            text = f"{safe(row.ending, ascii=options.ascii)}, {age} ago"
        room = (options.width or 0) - line_width(line) - 2
        if options.width is None or width(text) <= room:
            line = (*line, Segment(f"  {text}", Style.DIM))
    return line


def _cell(placed: Placed, row: GroupRow | SocketRow, options: Options) -> str:
    column = placed.column
    text = safe(column.text(row, options), ascii=options.ascii)
    is_whole = column.floor is None or (column.whole is not None and column.whole(row))
    limit = max(placed.width, MAX_WHOLE) if is_whole else placed.width
    return shorten(text, limit, options.ellipsis)


def _row(mark: str, layout: Layout, cells: Sequence[Segment]) -> Line:
    """Return cells in columns. One that is wider than its column takes the spaces after it."""
    line = [Segment(mark)]
    taken = 0  # Columns that cells took beyond their own.
    for number, (placed, cell) in enumerate(zip(layout.columns, cells, strict=True)):
        if number:
            gap = max(1, layout.gap - taken)
            taken -= layout.gap - gap
            line.append(Segment(" " * gap))
        room = max(0, placed.width - taken)
        is_last = number == len(cells) - 1
        text = cell.text
        if not is_last or placed.column.right:
            text = pad(text, room, right=placed.column.right)
        taken = max(0, width(text) - room)
        line.append(Segment(text, cell.style))
    return tuple(line)


def peer_line(row: PeerRow, options: Options) -> Line:
    """Return the line of an other end: whether it calls or is called, and who it is."""
    peer = "-" if row.peer is None else row.peer.label
    address = "-" if row.address is None else options.names.get(row.address, row.address)
    texts = [
        safe(text, ascii=options.ascii) for text in (row.direction, row.service, peer, address)
    ]
    cells = [pad(text, columns) for text, columns in zip(texts, (3, 12, 24, 15), strict=True)]
    return (Segment(f"  {row.connections:>7,} "), Segment(" ".join(cells).rstrip()))


def event_line(event: Event, options: Options) -> Line:
    """Return the line of a change, as in the event log, but that its colour is a style."""
    plain = replace(options, color=False)
    return (Segment(log_line(event.host, event.time, event.value, plain), _event_style(event)),)


def _event_style(event: Event) -> Style:
    match event.value:
        case Dropped():
            return Style.ALARM
        case Opened():
            return Style.GOOD
        case Closed():
            return Style.DIM
        case Updated(holding) if holding.socket.state == "CLOSE_WAIT":
            return Style.ALARM
    return Style.PLAIN


def socket_lines(row: SocketRow, options: Options) -> list[Line]:
    """Return all fields of a socket that are known, a line for each."""
    holding = row.holding
    shown = TerminalRow(
        row.key.host, holding, None, row.others, row.peer, holding.socket, holding.process
    )
    texts = {name: as_text(one.value(shown), options) for name, one in COLUMNS.items()}
    for name in ("process", "local", "remote", "peer", "user"):
        texts[name] = COLUMNS[name].cells([shown], options)[0]
    texts["age"] = "-" if row.age is None else age_text(row.age)
    texts["recv_q"] = "-" if row.recv_q is None else str(row.recv_q)
    for name in ("recvq", "sendq", "dir", "comm"):
        del texts[name]
    return [
        (Segment(f"  {pad(name, _NAME_WIDTH)} ", Style.DIM), Segment(text))
        for name, text in texts.items()
        if text != "-"
    ]
