"""Text from the kernel's bytes, and text that is safe on a terminal."""

from __future__ import annotations

from collections.abc import Iterable


def decode(raw: bytes) -> str:
    r"""Decode bytes that are usually UTF-8; bytes that are not become ``\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


# DEL and the C1 controls.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def escape_controls(encoded: str) -> str:
    """Escape DEL and the C1 controls in JSON: JSON permits them, but terminals interpret them. JSON
    escapes the other control characters itself."""
    if encoded.isascii() and "\x7f" not in encoded:
        return encoded
    return encoded.translate(_CONTROLS)


def safe_lines(lines: bytes) -> bytes:
    """Return lines of JSON that another program wrote without raw control characters, and with an
    end."""
    if not lines.endswith(b"\n"):
        lines += b"\n"
    if b"\r" in lines:
        lines = lines.replace(b"\r", b"")  # White space: strings have it escaped.
    if lines.isascii() and b"\x7f" not in lines:
        return lines
    return escape_controls(lines.decode()).encode()


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that is most like a mistyped one, None if none is."""
    from difflib import get_close_matches

    # Several words may differ in their case only.
    words = {one.lower(): one for one in sorted(known)}
    found = get_close_matches(word.lower(), words, n=1)
    return words[found[0]] if found else None
