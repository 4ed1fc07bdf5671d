import pytest

from agent.publish.websocket.access import tcp_peer


class Transport:
    """The transport of a connection from an address."""

    def __init__(self, *peername: object) -> None:
        self._peername = peername or None

    def get_extra_info(self, name: str) -> object:
        return {"peername": self._peername}[name]


@pytest.mark.parametrize(
    ("host", "name", "group"),
    [
        ("192.0.2.1", "192.0.2.1:9", "192.0.2.1"),
        ("127.0.0.1", "127.0.0.1:9", "loopback"),
        ("127.9.9.9", "127.9.9.9:9", "loopback"),
        ("::1", "[::1]:9", "loopback"),
        ("::ffff:127.0.0.5", "[::ffff:127.0.0.5]:9", "loopback"),
        ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:9", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "[2001:db8:1:2:3:4:5:6]:9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "[fe80::1%eth0]:9", "fe80::/64"),
    ],
)
def test_tcp_peer_names_and_groups(host: str, name: str, group: str) -> None:
    peer = tcp_peer(Transport(host, 9))  # type: ignore[arg-type]
    assert (peer.name, peer.group, peer.uid) == (name, group, None)


def test_the_peer_of_a_closed_connection() -> None:
    assert tcp_peer(Transport()).group == ""  # type: ignore[arg-type]
