"""How the screen looks, what its keys are called, and where it is drawn."""

from __future__ import annotations

import sys

from textual.app import App
from textual.binding import Binding, BindingType
from textual.drivers.linux_driver import LinuxDriver
from textual.events import Key
from textual.message import Message

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
# The action of each key. They take precedence, so that a key acts before the next one is read:
# what is typed after / is the filter.
_ACTIONS = {
    "ctrl+c": "quit",
    "q": "end",
    "ctrl+z": "suspend_process",
    "enter": "open",
    "escape": "leave",
    "slash": "filter",
    "g": "group",
    "s": "sort(False)",
    "S": "sort(True)",
    "space": "pause",
    "e": "look('events')",
    "p": "look('peers')",
    "d": "names",
    "k": "signal",
    "w": "save",
    "question_mark": "help",
    "up": "move(-1)",
    "down": "move(1)",
    "pageup": "page(-1)",
    "pagedown": "page(1)",
    "home": "edge(False)",
    "end": "edge(True)",
    "left": f"time(-{STEP_SECONDS})",
    "right": f"time({STEP_SECONDS})",
    "shift+left": f"time(-{LONG_STEP_SECONDS})",
    "shift+right": f"time({LONG_STEP_SECONDS})",
}
BINDINGS: list[BindingType] = [
    Binding(key, action, show=False, priority=True) for key, action in _ACTIONS.items()
]


def keys_of(event: Key) -> tuple[Key, ...]:
    """Return the keys that were pressed. A key right after Esc comes as the same bytes as with Alt,
    with which no key acts."""
    name = event.key.removeprefix("alt+")
    if name == event.key:
        return (event,)
    typed = event.character if name.startswith("shift+") and event.character else name
    return (Key("escape", "\x1b"), Key(typed, event.character))


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

    def process_message(self, message: Message) -> None:
        """Hand over what was pressed."""
        for one in keys_of(message) if isinstance(message, Key) else (message,):
            super().process_message(one)
