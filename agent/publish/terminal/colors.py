"""Colours: the sixteen of ANSI, so that the theme of the user's terminal holds. They only repeat
what words say."""

from __future__ import annotations

BOLD, DIM, RED, GREEN, YELLOW = "1", "2", "31", "32", "33"


def paint(text: str, code: str) -> str:
    """Return text in a colour; without a code, the text."""
    return f"\x1b[{code}m{text}\x1b[0m" if code else text
