"""Who is at the other end of a connection."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

# The part of an IPv6 address that tells networks apart; the rest anyone there chooses.
_PREFIX = 64


class Peer(NamedTuple):
    """Who connects. ``origin`` is what they have in common whose number is limited: an address,
    or a user. ``uid`` is known over unix sockets only."""

    name: str
    origin: str
    uid: int | None = None


def tcp_peer(transport: asyncio.BaseTransport) -> Peer:
    """An address and a port."""
    name = transport.get_extra_info("peername")
    if not name:  # It is gone already.
        return Peer("a client", "")
    host, port = name[:2]
    return Peer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", _origin(host))


def _origin(host: str) -> str:
    """What is somebody's as a whole: the loopback addresses, of IPv6 a /64."""
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None and not address.is_loopback:
            return str(ip_network((int(address), 128)).supernet(new_prefix=_PREFIX))
        address = address.ipv4_mapped or address
    return "loopback" if address.is_loopback else str(address)


# struct ucred of socket(7): pid, uid, gid.
_UCRED = struct.Struct("=iII")


def unix_peer(transport: asyncio.BaseTransport) -> Peer:
    """A process and its user, who may have ended by now."""
    connection = transport.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(credentials)
    return Peer(f"process {pid} of user {uid}", f"user {uid}", uid)
