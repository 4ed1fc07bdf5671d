"""The debugging protocol of Chromium: a connection, and the values that tests use."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from websockets.sync.client import connect

Values = dict[str, Any]  # Parameters, results and events of the protocol, which are JSON.

REPLY_SECONDS = 60.0  # A machine under load answers slowly.
# The virtual key code of a key, and the text that it types.
KEYS = {
    "Enter": (13, "\r"), "Tab": (9, ""), "Escape": (27, ""), " ": (32, " "), "PageUp": (33, ""),
    "PageDown": (34, ""), "End": (35, ""), "Home": (36, ""), "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""), "ArrowRight": (39, ""), "ArrowDown": (40, ""), "Backspace": (8, ""),
}  # fmt: skip
SHIFT = 8  # Bit of a modifier key in Input.dispatchKeyEvent; Ctrl is 2.
CTRL = 2


class BrowserError(Exception):
    """The browser does not start or answer, or a script in it failed."""


class Request(NamedTuple):
    """A request that a page made."""

    method: str
    url: str
    headers: dict[str, str]


class Session:
    """One connection to the browser; messages other than replies go to ``on_event``."""

    def __init__(self, url: str, on_event: Callable[[str, Values], None]) -> None:
        self._stack = ExitStack()
        self._socket = self._stack.enter_context(
            connect(url, max_size=None, max_queue=None, compression=None)
        )
        self._on_event = on_event
        self._number = 0

    def call(self, method: str, seconds: float = REPLY_SECONDS, /, **parameters: object) -> Values:
        """Call a method of the protocol; return its result."""
        self._number += 1
        number = self._number
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        end = time.monotonic() + seconds
        while True:
            message = self._read(end - time.monotonic())
            if message is None:
                raise BrowserError(f"no answer to {method}")
            if message.get("id") == number:
                break
        if "error" in message:
            raise BrowserError(f"{method}: {message['error']}")
        result: Values = message["result"]
        return result

    def take_events(self, seconds: float = 0.0) -> None:
        """Handle the events that arrived, and those of the next ``seconds``."""
        end = time.monotonic() + seconds
        while self._read(max(0.0, end - time.monotonic())) is not None:
            pass

    def close(self) -> None:
        self._stack.close()

    def _read(self, seconds: float) -> Values | None:
        try:
            text = self._socket.recv(max(0.0, seconds))
        except TimeoutError:
            return None
        message: Values = json.loads(text)
        if "method" in message:
            self._on_event(message["method"], message["params"])
        return message


class Accessible(NamedTuple):
    """An element as assistive technology sees it."""

    role: str
    name: str
    properties: Values
    backend: int


def exception_text(details: Values) -> str:
    described = details.get("exception", {})
    return str(described.get("description") or described.get("value") or details["text"])
