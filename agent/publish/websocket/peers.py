"""The peer of a connection: its address, or its process and user."""

from __future__ import annotations

import asyncio
import socket
import struct
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

# The network part of an IPv6 address; a host may choose any of the addresses in its network.
_PREFIX_BITS = 64


class Peer(NamedTuple):
    """The peer of a connection. ``group`` is the address, IPv6 network or user whose connections
    are limited together. ``uid`` is known for unix sockets only."""

    name: str
    group: str
    uid: int | None = None


def tcp_peer(transport: asyncio.BaseTransport) -> Peer:
    """Return the peer of a TCP connection."""
    name = transport.get_extra_info("peername")
    if not name:  # It has disconnected already.
        return Peer("a client", "")
    host, port = name[:2]
    return Peer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", _group(host))


def _group(host: str) -> str:
    address = ip_address(host.partition("%")[0])
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is None and not address.is_loopback:
            return str(ip_network((int(address), 128)).supernet(new_prefix=_PREFIX_BITS))
        address = address.ipv4_mapped or address
    return "loopback" if address.is_loopback else str(address)


# struct ucred of unix(7): pid, uid, gid.
_UCRED = struct.Struct("=iII")


def unix_peer(transport: asyncio.BaseTransport) -> Peer:
    """Return the peer of a unix socket. Its process may have exited since it connected."""
    connection = transport.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(credentials)
    return Peer(f"process {pid} of user {uid}", f"user {uid}", uid)
