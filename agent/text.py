"""Bytes from the kernel to text, and text to what a terminal may show. It knows nothing else."""

from __future__ import annotations


def decode(raw: bytes) -> str:
    r"""Text of bytes that are usually UTF-8; those that are not show as ``\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


# DEL and the C1 controls.
_CONTROLS = {code: f"\\u{code:04x}" for code in range(0x7F, 0xA0)}


def escape_controls(encoded: str) -> str:
    """Return JSON with DEL and the C1 controls escaped: JSON allows them as they are, but terminals
    obey them. The other control characters JSON itself escapes."""
    if encoded.isascii() and "\x7f" not in encoded:
        return encoded
    return encoded.translate(_CONTROLS)
