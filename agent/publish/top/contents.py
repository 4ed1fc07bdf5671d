"""What the grid shows at a place: rows in their order as lines, and what the cursor leads to.
Pure."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from ...model import Closed, Opened, Process, Updated
from ...stream.filters import Filter
from ..terminal.names import addresses_of
from ..terminal.options import Options
from .columns import Column, Layout, lay_out
from .eventlines import MARGIN, narrow_line
from .group_columns import group_columns, without
from .lines import peer_line, row_line, socket_lines, titles_line
from .model import (
    Event,
    Grouping,
    GroupKey,
    GroupRow,
    Line,
    PeerRow,
    Segment,
    SocketKey,
    SocketRow,
    Style,
)
from .order import Order
from .places import Place, View
from .socket_columns import socket_columns
from .watch import Watch

Row = TypeVar("Row", GroupRow, SocketRow)
# The line of an index; with the mark of the cursor, or without.
LineOf = Callable[[int, bool], Line]

# So many of the newest events of a socket are shown above its fields.
MAX_SOCKET_EVENTS = 6
_PEER_TITLES = "    CONNS DIR SERVICE      PEER                     ADDRESS"
# By which columns rows are sorted first.
_FIRST_SORT = {View.GROUPS: "opens", View.SOCKETS: "state"}


def _none(_index: int) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Content:
    """What the grid shows: the identities of the rows, and what makes their lines.

    ``follows_end``: new rows come at the end, where the cursor begins. ``addresses`` returns those
    of the row of an index, which are shown by their names.
    """

    titles: Line
    keys: Sequence[Hashable]
    line: LineOf
    follows_end: bool = False
    addresses: Callable[[int], Iterable[str]] = _none


class _Sorting(NamedTuple):
    """By which column the rows of a view are sorted, and their order."""

    name: str
    descending: bool
    order: Order


class Moment(NamedTuple):
    """What is shown when: a watch at the time ``now``, as far as it passes a filter, in the width
    of the options. ``tick`` is the time by which the order is held, in seconds."""

    watch: Watch
    now: float
    tick: float
    chosen: Filter
    options: Options


class Contents:
    """Makes what the grid shows."""

    def __init__(self) -> None:
        self._sortings: dict[View, _Sorting] = {}
        self._layout = Layout((), 1)
        self._titles_of: Mapping[str, str] = {}  # Of all columns, the first one first.
        self._groups: Mapping[Hashable, GroupRow] = {}
        self._sockets: Mapping[Hashable, SocketRow] = {}
        # What was shown last, and whether there were rows.
        self._place: Place | None = None
        self._chosen: Filter | None = None
        self._has_rows = False

    def make(self, place: Place, moment: Moment) -> Content:
        """Return what the grid shows at a place."""
        watch, now, _, chosen, options = moment
        if (place, chosen) != (self._place, self._chosen) or not self._has_rows:
            self._place, self._chosen = place, chosen
            self._sorting(place.view).order.renew()
        group = place.group
        if place.view is View.GROUPS:
            return self._of_groups(place, moment)
        if group is None or place.view is View.EVENTS:
            return _of_events(place, watch.events(group, chosen), options)
        if place.view is View.PEERS:
            return _of_peers(watch.peers(group, now, chosen), options)
        if place.view is View.SOCKET and place.socket is not None:
            self._sockets = {row.key: row for row in watch.sockets(group, now)} or self._sockets
            return self._of_socket(place.socket, watch.events(group), options)
        return self._of_sockets(place, group, moment)

    # Lists with columns.

    def _of_groups(self, place: Place, moment: Moment) -> Content:
        watch, now, _, chosen, options = moment
        rows = watch.groups(place.grouping, now, chosen)
        columns = group_columns(place.grouping, hosts=options.hosts)
        self._layout = lay_out(columns, options.width or 0)
        self._titles_of = {name: one.title for name, one in columns.items()}
        value = self._value(
            place.view, columns, lambda row: row.listen + row.inbound + row.outbound
        )
        arranged = self._arrange(place.view, rows, value, moment.tick)
        self._groups = {row.key: row for row in arranged}
        titles = self._titles(place.view, options)
        line = _lines(self._layout, arranged, options)
        if place.grouping is not Grouping.REMOTE:
            return Content(titles, list(self._groups), line)
        named = [() if row.title is None else (row.title,) for row in arranged]
        return Content(titles, list(self._groups), line, addresses=named.__getitem__)

    def _of_sockets(self, place: Place, group: GroupKey, moment: Moment) -> Content:
        watch, now, _, chosen, options = moment
        rows = watch.sockets(group, now, chosen)
        columns = socket_columns()
        self._layout = lay_out(columns, options.width or 0)
        self._titles_of = {name: one.title for name, one in columns.items()}
        value = self._value(place.view, columns, lambda row: row.key.inode)
        arranged = self._arrange(place.view, rows, value, moment.tick)
        self._sockets = {row.key: row for row in arranged}
        titles = self._titles(place.view, options)
        line = _lines(self._layout, arranged, options)
        return Content(
            titles,
            list(self._sockets),
            line,
            addresses=lambda index: addresses_of(arranged[index].holding),
        )

    def _value(
        self, view: View, columns: Mapping[str, Column[Row]], more: Callable[[Row], int]
    ) -> Callable[[Row], object]:
        """Return what rows are sorted by; ``more`` decides among equal ones."""
        value = columns[self._sorted_by(view)].value

        def found(row: Row) -> object:
            main = value(row)
            return None if main is None else (main, more(row))

        return found

    def _arrange(
        self, view: View, rows: list[Row], value: Callable[[Row], object], tick: float
    ) -> list[Row]:
        sorting = self._sorting(view)
        self._has_rows = bool(rows)
        return sorting.order.arrange(rows, value, tick, descending=sorting.descending)

    def _titles(self, view: View, options: Options) -> Line:
        sorting = self._sorting(view)
        name = self._sorted_by(view)
        return titles_line(self._layout, name, options, descending=sorting.descending)

    def _sorted_by(self, view: View) -> str:
        """Return the column that rows are sorted by: the first one, if the chosen one is of rows of
        another kind."""
        name = self._sorting(view).name
        return name if name in self._titles_of else next(iter(self._titles_of), name)

    # One socket.

    def _of_socket(self, key: SocketKey, events: Sequence[Event], options: Options) -> Content:
        row = self._sockets.get(key)
        newest = [event for event in events if _is_of(event, key)][-MAX_SOCKET_EVENTS:]
        lines: list[Line] = [(Segment("  newest events", Style.TITLE),)]
        lines += [
            narrow_line(event, options, has_process=False, has_ends=False)
            for event in reversed(newest)
        ]
        if not newest:
            lines.append((Segment("  none since the screen began", Style.DIM),))
        gone: Line = (Segment("  this socket is gone", Style.DIM),)
        lines += [(), *([gone] if row is None else socket_lines(row, options))]
        line = _marking(lines.__getitem__, options)
        if row is None:
            return Content((), range(len(lines)), line)
        found = addresses_of(row.holding)
        return Content((), range(len(lines)), line, addresses=lambda _index: found)

    # What the cursor leads to.

    def opened(self, place: Place, key: Hashable | None) -> Place | None:
        """Return the place that a row leads to; None if it leads to none."""
        if isinstance(key, GroupKey) and place.view is View.GROUPS:
            return Place(View.SOCKETS, place.grouping, key, None, self._label(key))
        if isinstance(key, SocketKey) and place.view is View.SOCKETS:
            return place._replace(view=View.SOCKET, socket=key)
        return None

    def look(self, place: Place, key: Hashable | None, view: View) -> Place | None:
        """Return the place with the events or peers of a row, or of the group that is shown; None
        if there are none."""
        if place.group is not None:
            return place._replace(view=view, socket=None)
        if isinstance(key, GroupKey):
            return Place(view, place.grouping, key, None, self._label(key))
        return Place(view, place.grouping, title="of all") if view is View.EVENTS else None

    def process(
        self, place: Place, key: Hashable | None, watch: Watch, now: float
    ) -> Process | None:
        """Return the process of a row; None if it is none, or of several."""
        if place.view is View.SOCKET:
            key = place.socket
        if isinstance(key, SocketKey) and key in self._sockets:
            return self._sockets[key].holding.process
        if not isinstance(key, GroupKey) or key.grouping is not Grouping.PROCESS:
            return None
        held = (row.holding.process for row in watch.sockets(key, now))
        return next((one for one in held if one is not None), None)

    def _label(self, key: GroupKey) -> str:
        row = self._groups.get(key)
        if row is None or row.title is None:
            return without(key.grouping)
        return f"of {row.title}" if row.pid is None else f"of {row.title}[{row.pid}]"

    # The order.

    def touch(self, tick: float) -> None:
        """Note that a key was pressed: the order is held."""
        if self._place is not None:
            self._sorting(self._place.view).order.touch(tick)

    def sort(self, view: View, *, reverse: bool) -> None:
        """Sort by the next of the columns that are shown, or in the other direction."""
        if view not in _FIRST_SORT:
            return
        sorting = self._sorting(view)
        sorting.order.renew()
        if reverse:
            self._sortings[view] = sorting._replace(descending=not sorting.descending)
            return
        names = [placed.name for placed in self._layout.columns]
        by = self._sorted_by(view)
        at = names.index(by) if by in names else -1
        name, column, _ = self._layout.columns[(at + 1) % len(names)]
        self._sortings[view] = sorting._replace(name=name, descending=column.descending)

    def order_text(self, place: Place) -> str:
        """Return what is shown, and what it is sorted by."""
        what = {
            View.GROUPS: f"by {place.grouping.value}",
            View.SOCKETS: f"sockets {place.title}",
            View.SOCKET: f"a socket {place.title}",
            View.EVENTS: f"events {place.title}",
            View.PEERS: f"peers {place.title}",
        }[place.view]
        if place.view not in _FIRST_SORT:
            return what
        by = self._sorted_by(place.view)
        return f"{what}, sorted by {self._titles_of.get(by, by)}"

    def _sorting(self, view: View) -> _Sorting:
        if view not in self._sortings:
            name = _FIRST_SORT.get(view, "")
            self._sortings[view] = _Sorting(name, view is View.GROUPS, Order())
        return self._sortings[view]


def _lines(layout: Layout, rows: Sequence[GroupRow | SocketRow], options: Options) -> LineOf:
    return lambda index, marked: row_line(layout, rows[index], options, marked=marked)


def _of_events(place: Place, events: Sequence[Event], options: Options) -> Content:
    is_process = place.group is not None and place.grouping is Grouping.PROCESS

    def line(index: int) -> Line:
        return narrow_line(events[index], options, has_process=not is_process, has_ends=True)

    def addresses(index: int) -> Iterable[str]:
        value = events[index].value
        return addresses_of(value.holding) if isinstance(value, (Opened, Updated, Closed)) else ()

    return Content(
        (),
        # The values of a ring of events are the same objects as long as they are in it.
        [(event.time, id(event.value)) for event in events],
        _marking(line, options),
        follows_end=True,
        addresses=addresses,
    )


def _of_peers(peers: Sequence[PeerRow], options: Options) -> Content:
    return Content(
        (Segment(_PEER_TITLES, Style.TITLE),),
        [(one.direction, one.service, one.peer, one.address) for one in peers],
        _marking(lambda index: peer_line(peers[index], options), options),
        addresses=lambda index: filter(None, (peers[index].address,)),
    )


def _is_of(event: Event, key: SocketKey) -> bool:
    """Return whether an event is of this socket, of whichever holder."""
    value = event.value
    if event.host != key.host or not isinstance(value, (Opened, Updated, Closed)):
        return False
    return value.holding.socket.inode == key.inode


def _marked(line: Line, mark: str) -> Line:
    """Return a line, which begins with two spaces or is empty, with a mark in their place."""
    first, *rest = line or (Segment(MARGIN),)
    return (Segment(mark + first.text[len(MARGIN) :], first.style), *rest)


def _marking(lines: Callable[[int], Line], options: Options) -> LineOf:
    """Return what makes the line of an index of lines that have no mark of their own."""
    mark = "> " if options.ascii else "\u203a "
    return lambda index, is_cursor: _marked(lines(index), mark if is_cursor else MARGIN)
