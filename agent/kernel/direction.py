"""Which side began a TCP connection, told from the listeners of its namespace. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Hashable

# Linux's default of net.ipv4.ip_local_port_range.
EPHEMERAL = range(32768, 61000)

# (local endpoint, local port, remote endpoint, state) → direction
Direct = Callable[[Hashable, int, Hashable, str | None], str | None]


def directions(
    listeners: Container[Hashable], wild: Container[int], ephemeral: Container[int]
) -> Direct:
    """What tells directions in one table.

    ``listeners`` are the endpoints listened on, in whatever form the table has them, ``wild`` the
    ports listened on at every address. ``ephemeral`` are the ports that the kernel chooses from by
    itself: with no listener in sight, a socket on one of them is taken for the side that connected.
    """

    def direction(local: Hashable, port: int, remote: Hashable, state: str | None) -> str | None:
        if local in listeners or port in wild:
            if state == "LISTEN":
                return "listen"
            if state != "SYN_SENT" and state != "CLOSE":  # noqa: PLR1714 (as fast as it gets)
                return "inbound"
        if state == "SYN_SENT":
            return "outbound"
        if state == "SYN_RECV":
            return "inbound"
        if state is None or state == "CLOSE":
            return None
        return "outbound" if remote in listeners or port in ephemeral else None

    return direction
