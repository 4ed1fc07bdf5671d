"""What draws lines on the screen: a few fixed ones, and a grid of many, of which only those that
are visible are made."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

from rich.segment import Segment as RichSegment
from rich.style import Style as RichStyle
from textual import events
from textual.geometry import Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widget import Widget
from textual.widgets import Input
from textual.widgets.input import Selection

from .model import Line, Style

# The sixteen colours of ANSI, so that the theme of the user's terminal holds.
STYLES = {
    Style.PLAIN: RichStyle(),
    Style.BOLD: RichStyle(bold=True),
    Style.DIM: RichStyle(dim=True),
    Style.GOOD: RichStyle(color="green"),
    Style.WARNING: RichStyle(color="yellow"),
    Style.ALARM: RichStyle(color="red", bold=True),
    Style.ENDED: RichStyle(dim=True, strike=True),
    Style.TITLE: RichStyle(bold=True),
}
_CURSOR = RichStyle(reverse=True)


def strip_of(line: Line, width: int, style: RichStyle | None = None) -> Strip:
    """Return a line as Textual draws it, filled or cut to a width."""
    strip = Strip([RichSegment(text, STYLES[name]) for text, name in line])
    strip = strip.adjust_cell_length(width, RichStyle())
    return strip if style is None else strip.apply_style(style)


class Bar(Widget):
    """Lines at a fixed place. It is drawn again only if they change."""

    def __init__(self, id: str) -> None:
        super().__init__(id=id)
        self._lines: Sequence[Line] = ()

    def show(self, lines: Sequence[Line]) -> None:
        """Show these lines; without any the bar takes no room."""
        if lines == self._lines:
            return
        if len(lines) != len(self._lines):
            self.styles.height = len(lines)
            self.display = bool(lines)
        self._lines = lines
        self.refresh()

    def set_visible(self, *, visible: bool) -> None:
        """Show the bar, or give its room to another widget."""
        self.display = visible

    @property
    def lines(self) -> Sequence[Line]:
        """The lines that are shown."""
        return self._lines

    def render_line(self, y: int) -> Strip:
        """Return a line as Textual draws it."""
        line = self._lines[y] if y < len(self._lines) else ()
        return strip_of(line, self.size.width)


class FilterInput(Input):
    """The line in which the filter is edited; it is not there otherwise."""

    def __init__(self) -> None:
        super().__init__(compact=True, id="input", select_on_focus=False)
        self.cursor_blink = False  # It would repaint for nothing.

    def begin(self, text: str) -> None:
        """Edit a text. It is selected: what is typed replaces it."""
        self.value = text
        self.selection = Selection(0, len(text))
        self.display = True
        # At once, unlike focus(): the next keys may have been pressed already.
        self.screen.set_focus(self)

    def end(self) -> None:
        """Go away."""
        self.display = False


class Grid(ScrollView, can_focus=True, inherit_bindings=False):
    """Many lines, each with an identity. The cursor is on the first line until it is moved, then on
    an identity."""

    class Selected(Message):
        """Another line was clicked: it has the cursor now."""

    class Chosen(Message):
        """The line with the cursor was clicked."""

    def __init__(self) -> None:
        super().__init__(id="grid")
        self._keys: Sequence[Hashable] = ()
        self._line: Callable[[int, bool], Line] = lambda _index, _is_cursor: ()
        self._lines: dict[int, tuple[bool, Line]] = {}  # Made since the rows were set.
        self._empty: Line = ()  # What is shown without rows.
        self._index = 0
        self._was_moved = False
        self._wanted: Hashable | None = None  # The identity that the cursor is to be on.

    # What is shown.

    def show(
        self,
        keys: Sequence[Hashable],
        line: Callable[[int, bool], Line],
        *,
        follows_end: bool = False,
        empty: Line = (),
    ) -> None:
        """Show lines: their identities, and what makes the line of an index, with the cursor or
        without. A cursor that was moved stays on its identity; if that is not there, it stays on
        its line. ``follows_end``: it begins on the last line, and if it is there it stays there.
        ``empty`` is shown if there are none."""
        before, top, old_index = self._lines, self.scroll_offset.y, self._index
        is_end = follows_end and (not self._keys or old_index >= len(self._keys) - 1)
        wanted = self._wanted
        if wanted is None and (self._was_moved or follows_end):
            wanted = self.cursor_key
        longest = max(len(keys), len(self._keys))
        is_resized = len(keys) != len(self._keys)
        self._keys, self._line, self._lines, self._wanted = keys, line, {}, None
        if empty != self._empty:
            self._empty = empty
            self.refresh_line(0)
        last = max(0, len(keys) - 1)
        self._index = last if is_end else self._index_of(wanted, min(old_index, last))
        if is_resized:
            self.virtual_size = Size(0, len(keys))
            self.call_after_refresh(self._scroll_to_cursor)
        if self._index != old_index:
            self._scroll_to_cursor()
        for index in range(top, min(top + self.size.height, longest)):
            if index not in before or before[index] != self._made(index):
                self.refresh_line(index)

    def _index_of(self, key: Hashable | None, otherwise: int) -> int:
        keys = self._keys
        if key is None or (otherwise < len(keys) and keys[otherwise] == key):
            return otherwise
        return keys.index(key) if key in keys else otherwise

    def _made(self, index: int) -> tuple[bool, Line]:
        """Return whether the cursor is on a line, and the line."""
        is_cursor = index == self._index
        known = self._lines.get(index)
        if known is not None and known[0] == is_cursor:
            return known
        line = self._line(index, is_cursor) if index < len(self._keys) else ()
        self._lines[index] = made = (is_cursor, line)
        return made

    @property
    def visible_rows(self) -> range:
        """The indexes of the lines that are visible."""
        top = self.scroll_offset.y
        return range(top, min(top + self.size.height, len(self._keys)))

    def render_line(self, y: int) -> Strip:
        """Return a line as Textual draws it."""
        index, width = self.scroll_offset.y + y, self.scrollable_content_region.width
        if index >= len(self._keys):
            return strip_of(() if index or self._keys else self._empty, width)
        is_cursor, line = self._made(index)
        return strip_of(line, width, _CURSOR if is_cursor else None)

    # The cursor.

    def reset(self, cursor: Hashable | None = None) -> None:
        """Prepare for other rows: the cursor will be on ``cursor``, if it is there, or on the first
        line."""
        self._keys, self._lines, self._index = (), {}, 0
        self._wanted, self._was_moved = cursor, cursor is not None
        self.scroll_to(y=0, animate=False)

    @property
    def has_rows(self) -> bool:
        """Whether there are lines."""
        return bool(self._keys)

    @property
    def cursor_key(self) -> Hashable | None:
        """The identity of the line with the cursor; None if there is none."""
        return self._keys[self._index] if self._index < len(self._keys) else None

    @property
    def cursor_index(self) -> int:
        """The line with the cursor."""
        return self._index

    def move(self, lines: int) -> None:
        """Move the cursor by so many lines."""
        self._go(self._index + lines)

    def move_page(self, pages: int) -> None:
        """Move the cursor by so many pages."""
        self.move(pages * max(1, self.size.height - 1))

    def move_to_edge(self, *, last: bool) -> None:
        """Move the cursor to the first or the last line."""
        self._go(len(self._keys) - 1 if last else 0)

    def _go(self, index: int) -> None:
        index = min(max(0, index), max(0, len(self._keys) - 1))
        self._was_moved = True
        if index != self._index:
            before, self._index = self._index, index
            self.refresh_line(before)
            self.refresh_line(index)
            self._scroll_to_cursor()

    def _scroll_to_cursor(self) -> None:
        top, height = self.scroll_offset.y, self.size.height
        if self._index < top:
            self.scroll_to(y=self._index, animate=False)
        elif height and self._index >= top + height:
            self.scroll_to(y=self._index - height + 1, animate=False)

    def on_click(self, event: events.Click) -> None:
        """Put the cursor on the line that was clicked; choose it if it is there already."""
        offset = event.get_content_offset(self)
        index = None if offset is None else self.scroll_offset.y + offset.y
        if index is None or index >= len(self._keys):
            return
        if index == self._index:
            self.post_message(self.Chosen())
        else:
            self._go(index)
            self.post_message(self.Selected())

    def on_resize(self) -> None:
        """Keep the cursor visible."""
        self.call_after_refresh(self._scroll_to_cursor)
