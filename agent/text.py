"""Text from the kernel's bytes, and text that is safe on a terminal."""

from __future__ import annotations


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
