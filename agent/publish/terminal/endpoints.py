"""Addresses and ports as people write them. They are never shortened."""

from __future__ import annotations

from ...model import INET_FAMILIES, Socket
from ...stream.filter_values import is_bound
from .options import Options
from .safe import safe

ANY_ADDRESSES = frozenset({"0.0.0.0", "::"})  # noqa: S104 (compared only)
_MAPPED = "::ffff:"


def unmapped(address: str) -> str:
    """Return an IPv4 address that is mapped into IPv6 as plain IPv4; others as they are."""
    if address.startswith(_MAPPED) and "." in address:
        return address.removeprefix(_MAPPED)
    return address


def is_loopback(address: str | None) -> bool:
    """Return whether an address is of the machine itself."""
    return address is not None and (address.startswith(("127.", "::ffff:127.")) or address == "::1")


def listens(socket: Socket) -> bool:
    """Return whether a socket waits for callers: it listens, or it is UDP without a peer."""
    if socket.state == "LISTEN" or socket.direction == "listen":
        return True
    return is_bound(socket)


def endpoint(
    proto: str | None, address: str | None, port: int | None, options: Options, *, zone: str = ""
) -> str:
    """Return ``ADDRESS:PORT`` of an internet address, ``-`` if both are unknown. ``zone`` is the
    interface that the socket is bound to. Any address and port 0 are ``*``."""
    if address is None and port is None:
        return "-"
    if not address:
        host = "*"
    elif address in options.names:
        host = safe(options.names[address], ascii=options.ascii) + zone
    elif ":" in address:
        host = f"[{'*' if address == '::' else address}{zone}]"
    else:
        host = ("*" if address in ANY_ADDRESSES else address) + zone
    if port and options.services and proto is not None:
        service = options.services.get((proto, port))
        if service is not None:
            return f"{host}:{safe(service, ascii=options.ascii)}"
    return f"{host}:{port or '*'}"


def local_end(socket: Socket, options: Options) -> str:
    """Return the local end of a socket: address and port, or the path of a unix socket."""
    if socket.family in INET_FAMILIES:
        zone = ""
        if socket.interface:
            zone = "%" + safe(socket.interface, ascii=options.ascii)
        address, port = socket.local_addr, socket.local_port
        return safe(endpoint(socket.proto, address, port, options, zone=zone), ascii=options.ascii)
    if socket.family == "unix":
        return "-" if socket.path is None else safe(socket.path, ascii=options.ascii)
    if socket.local_addr is None:
        return "-"
    port_text = "*" if socket.local_port is None else str(socket.local_port)
    return f"{safe(socket.local_addr, ascii=options.ascii)}:{port_text}"


def remote_end(socket: Socket, options: Options) -> str:
    """Return the remote end of a socket: ``*`` without a peer, ``-`` for a unix socket."""
    if socket.remote_addr is None:
        return "-" if socket.family == "unix" else "*"
    end = endpoint(socket.proto, socket.remote_addr, socket.remote_port, options)
    return safe(end, ascii=options.ascii)
