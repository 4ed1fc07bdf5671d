"""Bytes from the kernel to text. It knows nothing else."""

from __future__ import annotations


def text(raw: bytes) -> str:
    r"""Text of bytes that are usually UTF-8; those that are not show as ``\xNN``."""
    return raw.decode("utf-8", "backslashreplace")
