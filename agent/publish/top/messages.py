"""Messages for the last line of the screen, each shown for a while. Pure."""

from __future__ import annotations

from collections import deque

# How long a message stays.
MESSAGE_SECONDS = 6.0
# Messages that wait to be shown, such as warnings at the start.
_MAX_MESSAGES = 20


class Messages:
    """The message that is shown, and those that wait. Times are in seconds, of any clock."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque(maxlen=_MAX_MESSAGES)
        self._shown = ""
        self._until = float("-inf")

    def add(self, text: str) -> None:
        """Show a message when those before it were shown. May be called in any thread."""
        self._waiting.append(text)

    def show(self, text: str, now: float) -> None:
        """Show a message at once."""
        self._shown, self._until = text, now + MESSAGE_SECONDS

    def end(self) -> None:
        """Show the message no longer."""
        self._until = float("-inf")

    def current(self, now: float) -> str | None:
        """Return the message to show; None if there is none."""
        if now >= self._until and self._waiting:
            self.show(self._waiting.popleft(), now)
        return self._shown if now < self._until else None
