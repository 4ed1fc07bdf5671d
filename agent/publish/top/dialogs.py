"""What comes over the screen: the list of the keys, and the question before a signal."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Input, Static

from ..terminal.safe import safe
from .signal import SIGNALS, NotSent, Target, send

KEYS = (
    ("Enter", "open a group, then a socket with all its fields and newest events"),
    ("Esc", "go back"),
    ("/", "filter: port=443, addr!=10.0.0.0/8, nginx, :8080, several in one line"),
    ("g", "group by process, unit, container, user, service, remote address, namespace, host"),
    ("s  S", "sort by the next column; in the other direction"),
    ("space", "pause: the screen holds still while the counting goes on"),
    ("e", "events of what the cursor is on; of everything, where it is on nothing"),
    ("p", "peers of what the cursor is on: both ends of its connections"),
    ("d", "host names and names of services, or numbers"),
    ("k", "send TERM or KILL to the process that the cursor is on (this machine only)"),
    ("w", "write the sockets into a file, which sockagent --read shows"),
    ("\u2190 \u2192", "in a recording: 1 s back, forward; with Shift: 1 minute"),
    ("q  ^C", "quit"),
)
_ASCII = {"\u2190 \u2192": "left, right"}


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
        names = _ASCII if self._ascii else {}
        lines = [f"{names.get(key, key):<12}{text}" for key, text in KEYS]
        with VerticalScroll(id="dialog"):
            yield Static("\n".join(lines), markup=False)
            yield Static("\nsockagent(1) has the options. Esc closes this.", markup=False)


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

    def __init__(
        self, target: Target, *, utc: bool, ascii: bool, sender: Callable[..., None] = send
    ) -> None:
        super().__init__()
        self._target = target
        self._utc = utc
        self._ascii = ascii
        self._send = sender

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
            yield _SignalInput()
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
        self.query_one(_SignalInput).focus()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Send the signal that was typed."""
        event.stop()
        number = SIGNALS.get(event.value)
        if number is None:
            words = " or ".join(SIGNALS)
            self.query_one("#problem", Static).update(f"expected {words}, in capitals")
            return
        try:
            self._send(self._target, number)
        except NotSent as error:
            self.dismiss(f"nothing was sent: {self._safe(str(error))}")
        else:
            self.dismiss(f"{event.value} was sent to {self._label()}")
