"""The lines above and below the grid. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from ..terminal.options import Options
from ..terminal.safe import safe, shorten, width
from .columns import MARGIN
from .lines import alarm_line, fitted, footer_line, header_line, line_width, two_sides
from .model import Alarm, Header, Line, Segment, Style
from .places import View

_PAUSE = ("space", "pause")
_GROUPS = (
    ("g", "group"), ("s", "sort"), _PAUSE, ("e", "events"), ("p", "peers"), ("d", "names"),
)  # fmt: skip
# What the keys do in each view, after Enter, Esc and /.
_KEYS = {
    View.GROUPS: _GROUPS,
    View.SOCKETS: _GROUPS[1:],
    View.SOCKET: _GROUPS[2:],
    View.EVENTS: (_PAUSE, ("p", "peers"), ("d", "names")),
    View.PEERS: (_PAUSE, ("e", "events"), ("d", "names")),
}
_ROWS = {View.EVENTS: "event", View.PEERS: "peer"}
_NOTHING = {
    View.SOCKETS: "No socket is open now",
    View.EVENTS: "No event yet",
    View.PEERS: "No peer is known",
}
_LEAST_FILTER = 8  # Columns that a long filter has in a sentence.
_OPENS = {View.GROUPS: "sockets", View.SOCKETS: "details"}


def top_line(header: Header, notice: str | None, options: Options) -> Line:
    """Return the first line; ``notice`` is what is to be known of the source, None: nothing."""
    limit = options.width or 0
    if notice is not None and header.time is None:  # There are no numbers yet.
        text = Segment(safe(notice, ascii=options.ascii), Style.WARNING)
        line = (Segment("sockagent top", Style.TITLE), Segment("  "), text)
        return fitted(line if line_width(line) <= limit else line[2:], limit, options)
    if notice is not None:
        header = header._replace(state=notice)
    return header_line(header, limit, options)


def alarms_line(alarms: Sequence[Alarm], options: Options) -> Line:
    """Return the line of alarms."""
    return alarm_line(alarms, options.width or 0, options)


def filter_line(
    text: str, order: str, behind: int | None, options: Options, *, at_record_time: bool
) -> Line:
    """Return the filter, what is shown, and by how many events it is ``behind``; None: it is not
    paused. ``at_record_time``: queues are as old as the records."""
    limit = options.width or 0
    left = f"filter: {text}" if text else "no filter"
    if behind is not None:
        paused = f"paused, {behind:,} event{'' if behind == 1 else 's'} behind"
        pause = Segment(paused, Style.WARNING)
        rest = two_sides(f"  {left}", order, max(0, limit - width(paused)), options)
        return fitted((pause, *rest), limit, options)
    queues = "queues at record time  " if at_record_time else ""
    for right in (f"{queues}{order}", order):
        if width(left) + width(right) + 2 <= limit:
            return two_sides(left, right, limit, options)
    return two_sides(left if text else order, "", limit, options)


def empty_line(view: View, text: str, options: Options, *, is_edited: bool, is_first: bool) -> Line:
    """Return why there are no rows: of the filter ``text``, if there is one. ``is_edited``: it is
    being typed; ``is_first``: there is no way back."""
    limit = (options.width or 0) - MARGIN
    if text:
        start = f"No {_ROWS.get(view, 'socket')} matches "
        end = f"; Esc {'clears the filter' if is_first else 'goes back'}"
        if is_edited or len(start) + len(end) + _LEAST_FILTER > limit:
            end = ""
        shown = safe(text, ascii=options.ascii)
        shown = shorten(shown, max(_LEAST_FILTER, limit - len(start) - len(end)), options.ellipsis)
        why = f"{start}{shown}{end}"
    else:
        why = _NOTHING.get(view, "Nothing yet")
    return fitted((Segment(" " * MARGIN), Segment(why, Style.DIM)), limit + MARGIN, options)


def keys_line(view: View, options: Options, *, signals: bool, moves: bool) -> Line:
    """Return the keys, as many as fit. ``signals``: processes may get signals; ``moves``: the
    arrow keys move in time, which does not go on by itself."""
    enter = "Enter" if options.ascii else "\u23ce"
    arrows = "left/right" if options.ascii else "\u2190\u2192"
    keys = [(enter, _OPENS[view])] if view in _OPENS else []
    keys += [] if view is View.GROUPS else [("Esc", "back")]
    keys += [(arrows, "time")] if moves else []
    keys += [("/", "filter"), ("?", "help")]
    keys += [key for key in _KEYS[view] if not (moves and key == _PAUSE)]
    keys += [("k", "signal")] if signals else []
    keys += [("w", "save"), ("q", "quit")]
    return footer_line(keys, options.width or 0, options)


def message_line(text: str, options: Options) -> Line:
    """Return a message."""
    return fitted((Segment(safe(text, ascii=options.ascii), Style.WARNING),), options.width or 0,
                  options)  # fmt: skip
