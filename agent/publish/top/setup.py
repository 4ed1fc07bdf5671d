"""How the screen looks, what its keys are called, and where it is drawn."""

from __future__ import annotations

import sys

from textual.app import App
from textual.binding import Binding, BindingType
from textual.drivers.linux_driver import LinuxDriver

# What the arrow keys move in a recording, alone and with Shift.
STEP_SECONDS, LONG_STEP_SECONDS = 1.0, 60.0

CSS = """
Bar { height: 1; width: 100%; }
#titles { text-style: bold; }
#grid { height: 1fr; overflow-x: hidden; scrollbar-size-vertical: 1; }
#input { height: 1; width: 100%; display: none; padding: 0; border: none; }
ModalScreen { align: center middle; }
#dialog {
    width: auto; max-width: 96%; height: auto; max-height: 96%; padding: 0 1;
    border: round ansi_default; background: ansi_default;
}
#dialog Static { width: auto; max-width: 100%; }
.-ascii #grid { scrollbar-size-vertical: 0; }
.-ascii #dialog { border: ascii ansi_default; scrollbar-size-vertical: 0; }
#problem { color: ansi_red; }
"""
BINDINGS: list[BindingType] = [
    Binding("ctrl+c", "quit", show=False, priority=True),
    Binding("q", "quit", show=False),
    Binding("ctrl+z", "suspend_process", show=False),
    Binding("enter", "open", show=False),
    Binding("escape", "leave", show=False),
    Binding("slash", "filter", show=False),
    Binding("g", "group", show=False),
    Binding("s", "sort(False)", show=False),
    Binding("S", "sort(True)", show=False),
    Binding("space", "pause", show=False),
    Binding("e", "look('events')", show=False),
    Binding("p", "look('peers')", show=False),
    Binding("d", "names", show=False),
    Binding("k", "signal", show=False),
    Binding("w", "save", show=False),
    Binding("question_mark", "help", show=False),
    Binding("up", "move(-1)", show=False),
    Binding("down", "move(1)", show=False),
    Binding("pageup", "page(-1)", show=False),
    Binding("pagedown", "page(1)", show=False),
    Binding("home", "edge(False)", show=False),
    Binding("end", "edge(True)", show=False),
    Binding("left", f"time(-{STEP_SECONDS})", show=False),
    Binding("right", f"time({STEP_SECONDS})", show=False),
    Binding("shift+left", f"time(-{LONG_STEP_SECONDS})", show=False),
    Binding("shift+right", f"time({LONG_STEP_SECONDS})", show=False),
]


class Driver(LinuxDriver):
    """Draws on standard output: standard error may be a file."""

    def __init__(
        self,
        app: App[object],
        *,
        debug: bool = False,
        mouse: bool = True,
        size: tuple[int, int] | None = None,
    ) -> None:
        super().__init__(app, debug=debug, mouse=mouse, size=size)
        if sys.__stdout__ is not None:
            self._file = sys.__stdout__
