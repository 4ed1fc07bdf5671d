"""Events as lines of a width: on a narrow screen without what the rows above them name. Pure."""

from __future__ import annotations

from dataclasses import replace

from ...model import Closed, Opened, Updated
from ..terminal.eventlog import clock_text, detail_text, ends_text
from ..terminal.options import Options
from ..terminal.safe import safe
from .lines import event_line, fitted
from .model import Event, Line, Segment

# From this width on the lines of the event log fit with their details.
WIDE = 110
_WORDS: dict[type, str] = {Opened: "open", Updated: "update", Closed: "close"}
_WORD_COLUMNS = 6


def narrow_line(event: Event, options: Options, *, has_process: bool, has_ends: bool) -> Line:
    """Return the line of an event, with room for the mark of the cursor before it. The process and
    the ends of the socket may be known from elsewhere: a narrow line has only what it needs."""
    limit = max(1, (options.width or 0) - len(MARGIN))
    whole = event_line(event, replace(options, width=limit))
    value = event.value
    if limit >= WIDE or not isinstance(value, (Opened, Updated, Closed)):
        return (Segment(MARGIN), *fitted(whole, limit, options))
    holding = value.holding
    parts = [clock_text(event.time, utc=options.utc), f"{_WORDS[type(value)]:<{_WORD_COLUMNS}}"]
    if has_process:
        process = holding.process
        parts.append("?" if process is None else f"{process.comm}[{process.pid}]")
    if has_ends:
        parts.append(ends_text(holding, options))
    parts.append(detail_text(value, options))
    text = safe(" ".join(parts), ascii=options.ascii)
    return (Segment(MARGIN), *fitted((Segment(text, whole[0].style),), limit, options))


# Before each line, where the mark of the cursor is on one of them.
MARGIN = "  "
