"""Addresses to listen on: ``HOST:PORT``, ``[V6]:PORT``, ``unix:PATH`` or ``systemd:NAME``."""

from __future__ import annotations

import os
from typing import NamedTuple

from .errors import UsageError

_LONGEST_PATH = 107  # Bytes; unix(7).


class ListenAddress(NamedTuple):
    """An address to listen on: of TCP, the ``path`` of a unix socket, or the ``name`` of sockets
    that systemd hands over."""

    host: str
    port: int
    path: str | None = None
    name: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine reaches it; a name other than localhost may be any.

        Of what systemd hands over it is not known yet.
        """
        if self.path is not None or self.name is not None or self.host == "localhost":
            return True
        from ipaddress import ip_address

        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix:{self.path}"
        if self.name is not None:
            return f"systemd:{self.name}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def parse_address(address: str) -> ListenAddress:
    """The address in this text. Raises UsageError."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path or len(os.fsencode(path)) > _LONGEST_PATH or "\0" in path:
            raise UsageError("listen", f"{address!r} is no path of 1 to {_LONGEST_PATH} bytes")
        return ListenAddress("", 0, path)
    if address.startswith("systemd:") and len(address) > len("systemd:"):
        return ListenAddress("", 0, name=address.removeprefix("systemd:"))
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise UsageError("listen", f"{address!r} is none of HOST:PORT, [V6]:PORT and unix:PATH")
    if int(port) > 65_535:
        raise UsageError("listen", f"there is no port {port}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError("listen", f"an IPv6 address is written [{host}]:{port}")
    return ListenAddress("0.0.0.0" if host == "*" else host, int(port))  # noqa: S104 (as it was asked for)
