"""Addresses to listen on: ``HOST:PORT``, ``[V6]:PORT``, ``unix:PATH`` or ``systemd:NAME``."""

from __future__ import annotations

import os
from typing import NamedTuple

from .errors import UsageError

_MAX_PATH_BYTES = 107  # See unix(7).
_MAX_PORT = 65_535


class ListenAddress(NamedTuple):
    """A TCP address, the ``path`` of a unix socket, or the ``name`` of sockets passed by systemd
    (FileDescriptorName= in systemd.socket(5))."""

    host: str
    port: int
    path: str | None = None
    name: str | None = None

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect. False for a host name other than localhost, which
        may resolve to anything; True for sockets passed by systemd, which are checked later."""
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
    """Parse an address to listen on. Raises UsageError."""
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        if not path or len(os.fsencode(path)) > _MAX_PATH_BYTES or "\0" in path:
            raise UsageError(
                "listen", f"invalid address {address!r}; a path has 1 to {_MAX_PATH_BYTES} bytes"
            )
        return ListenAddress("", 0, path)
    if address.startswith("systemd:") and len(address) > len("systemd:"):
        return ListenAddress("", 0, name=address.removeprefix("systemd:"))
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit() and len(port) <= 5):
        raise UsageError(
            "listen", f"invalid address {address!r}; expected HOST:PORT, [V6]:PORT or unix:PATH"
        )
    if int(port) > _MAX_PORT:
        raise UsageError("listen", f"invalid port {port}; expected 0 to {_MAX_PORT}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise UsageError("listen", f"invalid address {address!r}; write IPv6 as [{host}]:{port}")
    return ListenAddress("0.0.0.0" if host == "*" else host, int(port))  # noqa: S104 (requested)
