"""Addresses of trace events as tables show them."""

from __future__ import annotations

from functools import lru_cache
from socket import AF_INET, AF_INET6, inet_ntop


@lru_cache(maxsize=65_536)
def format_address(family: int, raw: bytes) -> str:
    """Return an address of a trace event as tables show it; ``raw`` has 16 bytes."""
    return inet_ntop(AF_INET, raw[12:]) if family == AF_INET else inet_ntop(AF_INET6, raw)
