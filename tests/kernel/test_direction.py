import pytest

from agent.kernel.direction import DEFAULT_EPHEMERAL_PORTS, make_direction_finder

# Somebody listens on port 80 at one address, and on 443 at every one.
DIRECT = make_direction_finder({"here:80", "any:443"}, {443}, range(32768, 61000))


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
        # Whoever calls from a port that it also listens on.
        ("here:80", 80, "far:7", "SYN_SENT", "outbound"),
        ("far:80", 80, "far:7", "SYN_SENT", "outbound"),
        ("far:80", 80, "far:7", "SYN_RECV", "inbound"),
        # Nobody is known to listen on either end.
        ("far:80", 80, "far:50000", "ESTABLISHED", None),
        ("far:40000", 40000, "far:50000", "ESTABLISHED", "outbound"),
        # Whoever is not connected has none.
        ("far:40000", 40000, "any:0", "CLOSE", None),
        ("here:80", 80, "any:0", "CLOSE", None),
        ("far:40000", 40000, "far:7", None, None),
    ],
)
def test_which_side_began(
    local: str, port: int, remote: str, state: str | None, direction: str | None
) -> None:
    assert DIRECT(local, port, remote, state) == direction


def test_the_ports_that_the_kernel_chooses_from_are_given() -> None:
    for ephemeral, direction in ((range(1000, 2000), "outbound"), (DEFAULT_EPHEMERAL_PORTS, None)):
        direct = make_direction_finder(set(), set(), ephemeral)
        assert direct("far:1500", 1500, "far:80", "ESTABLISHED") == direction


def test_a_listener_outweighs_the_port() -> None:
    direct = make_direction_finder(set(), {40000}, DEFAULT_EPHEMERAL_PORTS)
    assert direct("far:40000", 40000, "far:50000", "ESTABLISHED") == "inbound"
