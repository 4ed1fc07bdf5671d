"""What comes over the screen: the list of the keys, and the question before a signal."""

from __future__ import annotations

from datetime import UTC, datetime
from textwrap import wrap
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.events import Key
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ..terminal.safe import safe
from .signal import SIGNALS, NotSent, Target, send

KEYS = (
    ("Enter", "open a group, then a socket with all its fields and newest events"),
    ("Esc", "go back; clear a filter that no socket passes"),
    ("\u2191 \u2193", "move the cursor, also PgUp, PgDn, Home and End; the order waits for 2 s"),
    ("/", "filter: port=443, addr!=10.0.0.0/8, nginx, :8080, several in one line; ^U empties it"),
    ("g", "group by process, unit, container, user, service, remote address, namespace, host"),
    ("s  S", "sort by the next column; in the other direction"),
    ("space", "pause: the screen holds still while the counting goes on"),
    ("e", "events of what the cursor is on; of everything, where it is on nothing"),
    ("p", "peers of what the cursor is on: the other ends of its connections of the last minute"),
    ("d", "host names and names of services, or numbers"),
    ("k", "send TERM or KILL to the process that the cursor is on (this machine only)"),
    ("w", "write the sockets into a file, which sockagent --read shows"),
    ("\u2190 \u2192", "in a recording: 1 s back, forward; with Shift: 1 minute"),
    ("q  ^C", "quit"),
)
# Of the keys in the list, and of the frame with its margins and the scroll bar.
_KEY_COLUMNS, _FRAME_COLUMNS = 12, 10
_ASCII = {"\u2191 \u2193": "up, down", "\u2190 \u2192": "left, right"}


class Help(ModalScreen[None]):
    """The keys."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,question_mark,q,enter,space", "dismiss", show=False),
        Binding("ctrl+c", "app.quit", show=False, priority=True),
    ]

    def __init__(self, *, ascii: bool) -> None:
        super().__init__()
        self._ascii = ascii

    def compose(self) -> ComposeResult:
        """Make the list."""
        with VerticalScroll(id="dialog"):
            yield Static(self._text(self.app.size.width - _FRAME_COLUMNS), markup=False)

    def on_mount(self) -> None:
        """Let the arrow keys scroll the list."""
        self.query_one(VerticalScroll).focus()

    def on_resize(self) -> None:
        """Make the lines for another width."""
        self.query_one(Static).update(self._text(self.app.size.width - _FRAME_COLUMNS))

    def _text(self, width: int) -> str:
        names = _ASCII if self._ascii else {}
        lines = []
        for key, text in KEYS:
            start = f"{names.get(key, key):<{_KEY_COLUMNS}}"
            indent = " " * _KEY_COLUMNS
            lines += wrap(text, max(width, 2 * _KEY_COLUMNS), initial_indent=start,
                          subsequent_indent=indent)  # fmt: skip
        return "\n".join([*lines, "", "Esc closes this. man sockagent has the options."])


class _SignalInput(Input):
    """Where the signal is typed."""

    def __init__(self) -> None:
        super().__init__(compact=True, id="signal")
        self.cursor_blink = False  # It would repaint for nothing.


class SignalDialog(ModalScreen[str | None]):
    """Asks for the signal to a process, typed out, and sends it. Returns what was done; None:
    nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", show=False),
        Binding("ctrl+c", "app.quit", show=False, priority=True),
    ]

    def __init__(self, target: Target, *, utc: bool, ascii: bool) -> None:
        super().__init__()
        self._target = target
        self._input = _SignalInput()
        self._utc = utc
        self._ascii = ascii

    def compose(self) -> ComposeResult:
        """Make the question."""
        target = self._target
        with VerticalScroll(id="dialog"):
            yield Static(
                f"Send a signal to {self._label()}\n\n"
                f"pid      {target.pid}\n"
                f"started  {self._started()}\n"
                f"unit     {self._safe(target.unit or '-')}\n\n"
                f"Type {' or '.join(SIGNALS)}, then Enter. Esc sends nothing.",
                markup=False,
            )
            yield self._input
            yield Static("", id="problem", markup=False)

    def _safe(self, text: str) -> str:
        return safe(text, ascii=self._ascii)

    def _label(self) -> str:
        return f"{self._safe(self._target.comm)}[{self._target.pid}]"

    def _started(self) -> str:
        time = datetime.fromtimestamp(self._target.start_time, UTC)
        return f"{time if self._utc else time.astimezone():%Y-%m-%d %H:%M:%S}"

    def on_mount(self) -> None:
        """Let the keyboard write into the input."""
        self._input.focus()

    def on_key(self, event: Key) -> None:
        """Take what was typed before the input had the keyboard; it keeps its keys afterwards."""
        if event.key == "enter":
            self._send(self._input.value)
        elif event.character is not None and event.is_printable:
            self._input.insert_text_at_cursor(event.character)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Send the signal that was typed."""
        event.stop()
        self._send(event.value)

    def _send(self, name: str) -> None:
        number = SIGNALS.get(name)
        if number is None:
            words = " or ".join(SIGNALS)
            self.query_one("#problem", Static).update(f"expected {words}, in capitals")
            return
        try:
            send(self._target, number)
        except NotSent as error:
            self.dismiss(f"nothing was sent: {self._safe(str(error))}")
        else:
            self.dismiss(f"{name} was sent to {self._label()}")
