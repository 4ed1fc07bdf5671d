"""Ends of sockets that were published although they were in no table."""

from collections import Counter

from agent.snapshot.poller import without_unlisted
from agent.snapshot.reading import EndedSocket

from ..make import tcp

PEERLESS = EndedSocket(tcp(0, "CLOSE"))
CONNECTED = EndedSocket(tcp(0, "ESTABLISHED", remote_addr="127.0.0.1", remote_port=80))
UDP = EndedSocket(PEERLESS.socket._replace(proto="udp"))


def test_the_end_of_a_bound_socket_that_is_gone_is_not_reported_again() -> None:
    ended = [PEERLESS, CONNECTED, PEERLESS]
    assert without_unlisted(ended, Counter({"tcp": 1})) == [CONNECTED, PEERLESS]


def test_the_end_of_a_udp_socket_is_always_reported() -> None:
    assert without_unlisted([UDP], Counter({"udp": 1, "tcp": 1})) == [UDP]
