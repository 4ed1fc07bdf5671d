"""Which side opened a connection, derived from the listeners of its namespace. Pure.

A TCP connection is inbound if its local endpoint is that of a listener. A connected unix socket is
inbound if it has the path of a listener; its peer is outbound.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable, Iterable
from collections.abc import Set as AbstractSet

from ..model import Socket

# Linux's default of net.ipv4.ip_local_port_range.
DEFAULT_EPHEMERAL_PORTS = range(32768, 61000)

# (local endpoint, local port, remote endpoint, state) → direction
DirectionFinder = Callable[[Hashable, int, Hashable, str | None], str | None]


def make_direction_finder(
    listeners: Container[Hashable], wildcard_ports: Container[int], ephemeral_ports: Container[int]
) -> DirectionFinder:
    """Return a function that finds the direction of each TCP socket of one table.

    ``listeners`` are the endpoints with a listener, in whatever form the table has them,
    ``wildcard_ports`` the ports with a listener at every address. ``ephemeral_ports`` are those
    that the kernel chooses from: where neither endpoint has a listener, a socket on such a port
    counts as outbound.
    """

    def find(local: Hashable, port: int, remote: Hashable, state: str | None) -> str | None:
        if local in listeners or port in wildcard_ports:
            if state == "LISTEN":
                return "listen"
            if state != "SYN_SENT" and state != "CLOSE":  # noqa: PLR1714 (faster than ``in``)
                return "inbound"
        if state == "SYN_SENT":
            return "outbound"
        if state == "SYN_RECV":
            return "inbound"
        if state is None or state == "CLOSE":
            return None
        return "outbound" if remote in listeners or port in ephemeral_ports else None

    return find


def listening_paths(sockets: Iterable[Socket]) -> set[str]:
    """Return the paths on which unix sockets listen."""
    return {row.path for row in sockets if row.path is not None and row.state == "LISTEN"}


def mark_inbound(socket: Socket, listening: AbstractSet[str]) -> Socket:
    """Return the unix socket, as inbound if it is connected and has the path of a listener."""
    if socket.path in listening and socket.state == "CONNECTED":
        return socket._replace(direction="inbound")
    return socket


def inbound_inodes(sockets: Iterable[Socket]) -> set[int]:
    """Return the inodes of the inbound sockets."""
    return {socket.inode for socket in sockets if socket.direction == "inbound"}


def mark_outbound(socket: Socket, inbound: AbstractSet[int]) -> Socket:
    """Return the unix socket, outbound if its peer is one of the ``inbound`` inodes."""
    if socket.peer_inode in inbound and socket.direction is None:
        return socket._replace(direction="outbound")
    return socket
