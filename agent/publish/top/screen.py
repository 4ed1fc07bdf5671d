"""The screen of ``sockagent top``, with Textual: the lines at the edges, the grid, and the keys."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

from textual.app import App, ComposeResult
from textual.binding import BindingType
from textual.timer import Timer
from textual.widgets import Input

from ...errors import UsageError
from ...stream.filters import Filter
from ..terminal.names import Resolver
from ..terminal.options import Options
from ..terminal.summary import counted
from .contents import Contents, Moment
from .dialogs import Help, SignalDialog
from .edges import alarms_line, empty_line, filter_line, keys_line, message_line, top_line
from .grid import Bar, FilterInput, Grid
from .messages import Messages
from .order import HOLD_SECONDS
from .places import Place, View, Way
from .saving import save
from .setup import BINDINGS, CSS, Driver
from .signal import target_of
from .sources import Source

# At most four repaints a second.
TICK_SECONDS = 0.25
# How often the screen looks for the first records.
FIRST_SECONDS = 0.02
_BARS = ("header", "alarms", "filter", "titles", "footer")
_SCROLL_BAR = 1  # Columns.


@dataclass(frozen=True, slots=True)
class Settings:
    """What the user asked for. ``no_signals`` is why processes get no signals; None: they may.
    ``names``: names are shown from the start. ``parse`` makes a filter of a line; it raises
    UsageError."""

    options: Options
    no_signals: str | None
    names: bool
    services: Mapping[tuple[str, int], str]
    parse: Callable[[str], Filter]


class TopApp(App[None]):
    """The screen. ``failure`` is the error of the code that ended it, if one did."""

    ENABLE_COMMAND_PALETTE = False
    ALLOW_SELECT = False  # A drag would select text instead of rows.
    CSS = CSS
    BINDINGS: ClassVar[list[BindingType]] = BINDINGS

    def __init__(self, source: Source, filter_text: str, settings: Settings) -> None:
        super().__init__(driver_class=Driver, ansi_color=True)
        self.failure: Exception | None = None
        self._bars = {name: Bar(name) for name in _BARS}
        self._input = FilterInput()
        self._grid = Grid()
        self._source = source
        self._settings = settings
        self._names = settings.names
        self._resolver = Resolver()
        self._way = Way()
        self._contents = Contents()
        self._filter_text = filter_text
        self._filter = settings.parse(filter_text)
        self._edited: str | None = None  # The filter before it was edited; None: it is not.
        self._paused_at: int | None = None  # Events that a paused screen shows; None: not paused.
        self._messages = Messages()
        self._is_stale = True
        self._seen: object = None
        self._first: Timer | None = None

    # The lines.

    def compose(self) -> ComposeResult:
        """Make the widgets."""
        bars = self._bars
        yield from (bars["header"], bars["alarms"], bars["filter"])
        yield self._input
        yield from (bars["titles"], self._grid, bars["footer"])

    def on_mount(self) -> None:
        """Begin to show."""
        self.theme = "ansi-dark"
        self.animation_level = "none"
        self.set_class(self._ascii, "-ascii")
        self._grid.focus()
        self.set_interval(TICK_SECONDS, self._tick)
        self._first = self.set_interval(FIRST_SECONDS, self._show_first)
        self.app_resume_signal.subscribe(self, self._redraw)
        self.call_after_refresh(self._tick)

    def _redraw(self, _app: App[object]) -> None:
        """Draw everything again after the process was stopped: the terminal is blank."""
        for widget in self.screen.walk_children(with_self=True):
            widget.refresh()

    def _show_first(self) -> None:
        """Show the first records as soon as they are there."""
        if self._source.watch.changes:
            self._tick()
            if self._first is not None:
                self._first.stop()

    @property
    def _ascii(self) -> bool:
        return self._settings.options.ascii

    def on_resize(self) -> None:
        """Make the lines for another width."""
        self._is_stale = True
        self.call_after_refresh(self._tick)

    def _tick(self) -> None:
        """Show what has changed."""
        source = self._source
        seen = (id(source.watch), source.watch.changes, int(source.now()), source.notice())
        if not self._is_stale and (self._paused_at is not None or seen == self._seen):
            self._show_edges()
            return
        self._seen, self._is_stale = seen, False
        self._show()

    def _show(self) -> None:
        source, options = self._source, self._options()
        now, watch = source.now(), source.watch
        if self._paused_at is not None:
            self._paused_at = watch.event_count
        self._bars["header"].show([top_line(watch.header(now), source.notice(), options)])
        self._bars["alarms"].show([alarms_line(watch.alarms(now), options)])
        # Without the column of the scroll bar, whether it is there or not: columns hold still.
        narrower = replace(options, width=max(1, self.size.width - _SCROLL_BAR))
        moment = Moment(watch, now, self._order_time(), self._filter, narrower)
        content = self._contents.make(self._way.place, moment)
        self._bars["titles"].show([content.titles] if content.titles else [])
        empty = empty_line(
            self._way.place.view, self._filter_text, narrower,
            is_edited=self._edited is not None, is_first=self._way.is_first,
        )  # fmt: skip
        self._grid.show(content.keys, content.line, follows_end=content.follows_end, empty=empty)
        if self._names:
            rows = self._grid.visible_rows
            self._resolver.request_addresses(chain.from_iterable(map(content.addresses, rows)))
        self._show_edges()

    def _show_edges(self) -> None:
        options, source = self._options(), self._source
        behind = None
        if self._paused_at is not None:
            behind = source.watch.event_count - self._paused_at
        line = filter_line(
            self._filter_text, self._contents.order_text(self._way.place), behind, options,
            at_record_time=not source.is_local,
        )  # fmt: skip
        self._bars["filter"].show([line])
        message = self._messages.current(time.monotonic())
        if message is not None:
            self._bars["footer"].show([message_line(message, options)])
            return
        signals, moves = self._settings.no_signals is None, not source.is_live
        line = keys_line(self._way.place.view, options, signals=signals, moves=moves)
        self._bars["footer"].show([line])

    def _options(self) -> Options:
        has_hosts = self._source.watch.host_count > 1
        options = replace(self._settings.options, width=self.size.width, hosts=has_hosts)
        if not self._names:
            return options
        return replace(options, names=self._resolver.names, services=self._settings.services)

    def _refresh_soon(self) -> None:
        """Show the answer to a key at once."""
        self._messages.end()
        self._is_stale = True
        self._tick()

    # Messages.

    def add_message(self, text: str) -> None:
        """Show a message in the last line when those before it were shown. May be called in any
        thread."""
        self._messages.add(text)

    def _show_message(self, text: str) -> None:
        """Show a message in the last line now."""
        self._messages.show(text, time.monotonic())
        self._show_edges()

    # Where the user is.

    def action_open(self) -> None:
        """Open the group or the socket that the cursor is on."""
        place, key = self._way.place, self._grid.cursor_key
        following = self._contents.opened(place, key)
        if following is not None:
            self._go(following)

    def action_look(self, name: str) -> None:
        """Show the events, or the peers, of what the cursor is on."""
        view, place = View(name), self._way.place
        if place.view == view:
            return
        following = self._contents.look(place, self._grid.cursor_key, view)
        if following is not None:
            self._go(following)

    def _go(self, place: Place) -> None:
        self._way.go(place, self._grid.cursor_key)
        self._grid.reset()
        self._refresh_soon()

    def action_leave(self) -> None:
        """Go back; while the filter is edited, restore it; clear one that nothing passes."""
        if self._edited is not None:
            self._end_filter(self._edited)
            return
        if not self._way.is_first:
            self._grid.reset(self._way.back())
        elif not self._grid.has_rows:
            self._apply_filter("")
        self._refresh_soon()

    def action_group(self) -> None:
        """Group by the next kind."""
        self._way.regroup()
        self._grid.reset()
        self._refresh_soon()

    def action_sort(self, reverse: bool) -> None:
        """Sort by the next column, or in the other direction."""
        self._contents.sort(self._way.place.view, reverse=reverse)
        self._refresh_soon()

    def action_move(self, lines: int) -> None:
        """Move the cursor by lines."""
        self._touch()
        self._grid.move(lines)

    def action_page(self, pages: int) -> None:
        """Move the cursor by pages."""
        self._touch()
        self._grid.move_page(pages)

    def action_edge(self, last: bool) -> None:
        """Move the cursor to the first or the last line."""
        self._touch()
        self._grid.move_to_edge(last=last)

    def _touch(self) -> None:
        """Hold the order for a while: the user looks at a row."""
        self._messages.end()
        self._contents.touch(self._order_time())

    def _order_time(self) -> float:
        """Return the time by which the order is held. In a recording each moment has its own order:
        the next one, a second later, is beyond the hold."""
        return time.monotonic() if self._source.is_live else self._source.now() * 2 * HOLD_SECONDS

    def on_grid_selected(self) -> None:
        """Hold the order: the cursor was moved by a click."""
        self._touch()

    def on_grid_chosen(self) -> None:
        """Open the line that was clicked."""
        self.action_open()

    def action_time(self, seconds: float) -> None:
        """Show another moment of a recording."""
        self._source.move(seconds)
        self._is_stale = True

    def action_names(self) -> None:
        """Show names, or numbers."""
        self._names = not self._names
        self._touch()
        self._refresh_soon()

    def action_pause(self) -> None:
        """Hold the screen still, or go on. A recording stands still anyway."""
        if not self._source.is_live:
            self._show_message("only the arrow keys move a recording")
            return
        self._touch()
        is_paused = self._paused_at is not None
        self._paused_at = None if is_paused else self._source.watch.event_count
        if is_paused:
            self._is_stale = True
        self._tick()

    # The filter.

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:  # noqa: ARG002
        """Return whether a key acts here: while the filter is edited, most keys are text, and a
        dialog has keys of its own."""
        if len(self.screen_stack) > 1:
            return action == "quit"
        return self._edited is None or action in ("quit", "leave")

    def action_filter(self) -> None:
        """Edit the filter."""
        self._edited = self._filter_text
        self._bars["filter"].set_visible(visible=False)
        self._input.begin(self._filter_text)

    def on_input_changed(self, event: Input.Changed) -> None:
        """Apply the filter while it is typed, if it is one."""
        if self._edited is not None and self._apply_filter(event.value):
            self._messages.end()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter, if it is one."""
        if self._apply_filter(event.value):
            self._end_filter(event.value)

    def _apply_filter(self, text: str) -> bool:
        try:
            chosen = self._settings.parse(text)
        except UsageError as error:
            self._show_message(f"{error.argument}: {error}")
            return False
        if chosen != self._filter:
            self._filter = chosen
            self._is_stale = True
        self._filter_text = text
        return True

    def _end_filter(self, text: str) -> None:
        self._edited = None
        self._apply_filter(text)
        self._input.end()
        self._bars["filter"].set_visible(visible=True)
        self._grid.focus()
        self._messages.end()
        self._refresh_soon()

    # The rest.

    def action_end(self) -> None:
        """End; unlike ^C, the key is text where text is typed."""
        self.exit()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help(ascii=self._ascii))

    def action_signal(self) -> None:
        """Ask for a signal to the process that the cursor is on."""
        self._touch()
        if self._settings.no_signals is not None:
            self._show_message(f"signals are off: {self._settings.no_signals}")
            return
        source, key = self._source, self._grid.cursor_key
        process = self._contents.process(self._way.place, key, source.watch, source.now())
        if process is None:
            self._show_message("the cursor is on no single process")
            return
        dialog = SignalDialog(target_of(process), utc=self._settings.options.utc, ascii=self._ascii)
        self.push_screen(dialog, self._report)

    def _report(self, outcome: str | None) -> None:
        if outcome is not None:
            self._show_message(outcome)

    def action_save(self) -> None:
        """Write the sockets that pass the filter into a new file of the working directory."""
        self._touch()
        source = self._source
        try:
            path, count = save(source.watch.holdings(), self._filter, source.now(), os.getcwd())
        except OSError as error:
            self._show_message(f"nothing was written: {error.strerror}")
        else:
            self._show_message(f"{counted(count, 'socket')} written to {path}")

    def _handle_exception(self, error: Exception) -> None:
        # Textual would print a traceback with the values of all variables.
        self.failure = self.failure or error
        super()._handle_exception(error)
        self._exit_renderables.clear()
