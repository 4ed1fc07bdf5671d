"""Which side opened a connection, derived from the listeners of its namespace. Pure.

A TCP connection is inbound if its local endpoint is that of a listener. A connected unix socket is
inbound if it has the path of a listener; its peer is outbound.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Hashable, Iterable, Iterator
from itertools import chain

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


def mark_unix_directions(
    rows: Iterable[tuple[bytes, Socket]], known: Collection[Socket]
) -> Iterator[tuple[bytes, Socket]]:
    """Yield decoded rows of unix sockets, with the direction of those that are connected.
    ``known`` are the sockets of the table's reading before."""
    new = dict(rows)
    listening = {
        one.path
        for one in chain(known, new.values())
        if one.path is not None and one.state == "LISTEN"
    }
    for row, socket in new.items():
        if socket.path in listening and socket.state == "CONNECTED":
            new[row] = socket._replace(direction="inbound")
    if any(socket.peer_inode for socket in new.values()):  # The text does not show peers.
        accepted = {one.inode for one in chain(known, new.values()) if one.direction == "inbound"}
        for row, socket in new.items():
            if socket.peer_inode in accepted and socket.direction is None:
                new[row] = socket._replace(direction="outbound")
    yield from new.items()
