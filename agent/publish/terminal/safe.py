"""Text that is safe on a terminal, and its width there.

Names of processes, files and units may have any character but NUL. Controls, characters that
reorder text, invisible ones and lone surrogates are escaped.
"""

from __future__ import annotations

import re
from functools import lru_cache
from unicodedata import category, combining, east_asian_width

# Characters without a picture that str.isprintable() accepts, because they count as letters or
# marks: combining grapheme joiner, Hangul fillers, Khmer vowels, variation selectors; and the
# blank of Braille.
_INVISIBLE = (
    "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef"
)
_SUSPECT = re.compile(rf"[^\x20-\x7e\xa1-\u024f]|[\xad{_INVISIBLE}]")
_INVISIBLE_ONE = re.compile(f"[{_INVISIBLE}]")
_NOT_ASCII = re.compile(r"[^\x20-\x7e]")


def safe(text: str, *, ascii: bool = False) -> str:
    r"""Return text in which unsafe characters are written as ``\x1b`` or ``\x{202e}``; with
    ``ascii`` all others that are not ASCII too."""
    if text.isascii() and text.isprintable():
        return text
    return (_NOT_ASCII if ascii else _SUSPECT).sub(_escape_all if ascii else _escape, text)


def _escape(match: re.Match[str]) -> str:
    char = match.group()
    if char.isprintable() and not _INVISIBLE_ONE.match(char):
        return char
    return _escape_all(match)


def _escape_all(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\x{{{code:x}}}"


@lru_cache(maxsize=1024)
def _char_width(char: str) -> int:
    if combining(char) or category(char) in ("Mn", "Me"):
        return 0
    return 2 if east_asian_width(char) in "WF" else 1


def width(text: str) -> int:
    """Return how many columns safe text takes on a terminal."""
    return len(text) if text.isascii() else sum(map(_char_width, text))


def pad(text: str, columns: int, *, right: bool = False) -> str:
    """Return safe text filled with spaces, at its left if ``right``; longer text as it is."""
    if text.isascii():
        return text.rjust(columns) if right else text.ljust(columns)
    spaces = " " * (columns - width(text))
    return spaces + text if right else text + spaces


def shorten(text: str, columns: int, ellipsis: str) -> str:
    """Return safe text with its middle left out, so that it takes at most ``columns``, which is at
    least the length of the ellipsis."""
    if width(text) <= columns:
        return text
    room = columns - len(ellipsis)
    tail = _prefix(text[::-1], room // 2)[::-1]
    head = _prefix(text, room - width(tail))
    return head + ellipsis + tail


def _prefix(text: str, columns: int) -> str:
    """Return as many characters from the start as fit."""
    if text.isascii():
        return text[:columns]
    used = 0
    for index, char in enumerate(text):
        used += _char_width(char)
        if used > columns:
            return text[:index]
    return text
