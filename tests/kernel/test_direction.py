import pytest

from agent.kernel.direction import (
    DEFAULT_EPHEMERAL_PORTS,
    make_direction_finder,
    mark_unix_directions,
)
from agent.model import Socket

# A listener on port 80 at one address, and one on port 443 at every address.
find_direction = make_direction_finder({"here:80", "any:443"}, {443}, range(32768, 61000))


@pytest.mark.parametrize(
    ("local", "port", "remote", "state", "direction"),
    [
        ("here:80", 80, "far:50000", "ESTABLISHED", "inbound"),
        ("here:80", 80, "far:50000", "TIME_WAIT", "inbound"),
        ("here:80", 80, "any:0", "LISTEN", "listen"),
        ("any:443", 443, "any:0", "LISTEN", "listen"),
        ("other:443", 443, "far:50000", "CLOSE_WAIT", "inbound"),
        ("other:40000", 40000, "here:80", "ESTABLISHED", "outbound"),
        ("other:5", 5, "here:80", "ESTABLISHED", "outbound"),
        # Connecting from a port that has a listener too.
        ("here:80", 80, "far:7", "SYN_SENT", "outbound"),
        ("far:80", 80, "far:7", "SYN_SENT", "outbound"),
        ("far:80", 80, "far:7", "SYN_RECV", "inbound"),
        # Neither endpoint has a known listener.
        ("far:80", 80, "far:50000", "ESTABLISHED", None),
        ("far:40000", 40000, "far:50000", "ESTABLISHED", "outbound"),
        # Not connected.
        ("far:40000", 40000, "any:0", "CLOSE", None),
        ("here:80", 80, "any:0", "CLOSE", None),
        ("far:40000", 40000, "far:7", None, None),
    ],
)
def test_the_direction_of_a_tcp_socket(
    local: str, port: int, remote: str, state: str | None, direction: str | None
) -> None:
    assert find_direction(local, port, remote, state) == direction


def test_the_ephemeral_ports_are_an_argument() -> None:
    for ports, direction in ((range(1000, 2000), "outbound"), (DEFAULT_EPHEMERAL_PORTS, None)):
        find = make_direction_finder(set(), set(), ports)
        assert find("far:1500", 1500, "far:80", "ESTABLISHED") == direction


def test_a_listener_on_an_ephemeral_port_makes_its_connections_inbound() -> None:
    find = make_direction_finder(set(), {40000}, DEFAULT_EPHEMERAL_PORTS)
    assert find("far:40000", 40000, "far:50000", "ESTABLISHED") == "inbound"


LISTENER = Socket(1, "unix", "unix", "stream", "LISTEN", path="/a", direction="listen")
ACCEPTED = Socket(2, "unix", "unix", "stream", "CONNECTED", path="/a")
CONNECTING = Socket(3, "unix", "unix", "stream", "CONNECTED", peer_inode=2)


def directions(new: list[Socket], known: list[Socket]) -> list[str | None]:
    rows = [(b"%d" % number, socket) for number, socket in enumerate(new)]
    marked = list(mark_unix_directions(rows, known))
    assert [row for row, _socket in marked] == [row for row, _socket in rows]
    return [socket.direction for _row, socket in marked]


def test_a_unix_socket_with_the_path_of_a_listener_is_inbound() -> None:
    others = [ACCEPTED._replace(path="/b"), CONNECTING._replace(peer_inode=None)]
    assert directions([ACCEPTED, *others], [LISTENER]) == ["inbound", None, None]
    assert directions([LISTENER, ACCEPTED, *others], []) == ["listen", "inbound", None, None]
    assert directions([ACCEPTED, *others], [ACCEPTED]) == [None, None, None]


def test_the_peer_of_an_inbound_unix_socket_is_outbound() -> None:
    others = [CONNECTING._replace(peer_inode=9), CONNECTING._replace(direction="x")]
    inbound = ACCEPTED._replace(direction="inbound")
    assert directions([CONNECTING, *others], [LISTENER, inbound]) == ["outbound", None, "x"]
    assert directions([CONNECTING, ACCEPTED, *others], [LISTENER]) == [
        "outbound", "inbound", None, "x"
    ]  # fmt: skip
    assert directions([CONNECTING, *others], [LISTENER, ACCEPTED]) == [None, None, "x"]
