import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.procfs import sockstat

from ...captures import capture
from ...strategies import mutated
from ...unshared import in_new_netns

CAPTURED = tuple(capture(f"counters/{name}") for name in sockstat.FILES)


def without_segments(counters: sockstat.SocketCounters) -> tuple[object, ...]:
    """Return the counters without that of segments."""
    return counters._replace(segments=None)


def read_real() -> tuple[object, ...]:
    read = (Path(f"/proc/thread-self/net/{name}").read_bytes() for name in sockstat.FILES)
    return without_segments(sockstat.parse(tuple(read)))


def with_file(name: str, old: bytes, new: bytes) -> tuple[bytes, ...]:
    at = sockstat.FILES.index(name)
    assert old in CAPTURED[at]
    return (*CAPTURED[:at], CAPTURED[at].replace(old, new), *CAPTURED[at + 1 :])


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("sockstat", b"used 11", b"used 12"),
        ("sockstat", b"TCP: inuse 3 ", b"TCP: inuse 4 "),
        ("sockstat", b"tw 1", b"tw 0"),
        ("sockstat", b"UDP: inuse 1", b"UDP: inuse 2"),
        ("sockstat", b"RAW: inuse 0", b"RAW: inuse 1"),
        ("sockstat6", b"TCP6: inuse 3", b"TCP6: inuse 1"),
        ("sockstat6", b"UDP6: inuse 1", b"UDP6: inuse 0"),
        ("snmp", b"-1 3 3 0 0 4 ", b"-1 4 3 0 0 4 "),  # ActiveOpens
        ("snmp", b"-1 3 3 0 0 4 ", b"-1 3 4 0 0 4 "),  # PassiveOpens
        ("snmp", b"-1 3 3 0 0 4 ", b"-1 3 3 1 0 4 "),  # AttemptFails
        ("snmp", b"-1 3 3 0 0 4 ", b"-1 3 3 0 1 4 "),  # EstabResets
        ("snmp", b"-1 3 3 0 0 4 ", b"-1 3 3 0 0 5 "),  # CurrEstab
        ("protocols", b"UNIX-STREAM 1152      3 ", b"UNIX-STREAM 1152      4 "),
    ],
)
def test_counters_of_sockets_are_compared(name: str, old: bytes, new: bytes) -> None:
    assert without_segments(sockstat.parse(with_file(name, old, new))) != without_segments(
        sockstat.parse(CAPTURED)
    )


def test_received_segments_are_counted() -> None:
    moved = with_file("snmp", b" 0 0 4 12 12 ", b" 0 0 4 13 12 ")
    assert sockstat.parse(moved).segments != sockstat.parse(CAPTURED).segments
    sent = with_file("snmp", b" 0 0 4 12 12 ", b" 0 0 4 12 13 ")
    assert sockstat.parse(sent) == sockstat.parse(CAPTURED)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("sockstat", b"mem 21", b"mem 25"),
        # These count for the whole machine.
        ("sockstat", b"orphan 0", b"orphan 1"),
        ("sockstat", b"alloc 20707", b"alloc 20708"),
        ("sockstat", b"UDP: inuse 1 mem 0", b"UDP: inuse 1 mem 5"),
        ("snmp", b" 0 0 4 12 12 ", b" 0 0 4 99 77 "),  # InSegs, OutSegs
        ("snmp", b"Udp: 1 0 0 1", b"Udp: 9 0 0 8"),
        ("protocols", b"      3      21   no", b"      3      66   no"),  # TCP's memory.
    ],
)
def test_counters_of_traffic_are_ignored(name: str, old: bytes, new: bytes) -> None:
    assert without_segments(sockstat.parse(with_file(name, old, new))) == without_segments(
        sockstat.parse(CAPTURED)
    )


@given(st.tuples(*[st.binary(max_size=200)] * 4))
def test_parse_raises_for_no_input(contents: tuple[bytes, bytes, bytes, bytes]) -> None:
    sockstat.parse(contents)


@given(st.tuples(*map(mutated, CAPTURED)))
def test_parse_raises_for_no_mutated_files(contents: tuple[bytes, ...]) -> None:
    sockstat.parse(contents)


def test_missing_files_are_accepted() -> None:
    assert sockstat.parse((b"", b"", b"", b"")) == sockstat.parse((b"", b"", b"", b""))


# The counters of this kernel, in a network namespace without other processes.


@pytest.mark.parametrize(
    "make",
    [
        lambda: socket.create_server(("127.0.0.1", 0)),
        lambda: socket.create_server(("::1", 0), family=socket.AF_INET6),
        lambda: bound(socket.AF_INET),
        lambda: bound(socket.AF_INET6),
        lambda: socket.socket(socket.AF_UNIX),
        lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
        lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP),
    ],
    ids=["tcp", "tcp6", "udp", "udp6", "unix", "netlink", "packet", "raw"],
)
def test_creating_and_closing_a_socket_changes_the_counters(
    make: Callable[[], socket.socket],
) -> None:
    def run() -> tuple[object, object, object]:
        before = read_real()
        with make():
            during = read_real()
        return before, during, read_real()

    before, during, after = in_new_netns(run)
    assert before != during != after


def bound(family: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_DGRAM)
    opened.bind(("localhost" if family == socket.AF_INET else "::1", 0))
    return opened


def test_an_accepted_connection_changes_the_counters() -> None:
    def run() -> tuple[object, object]:
        with socket.create_server(("127.0.0.1", 0)) as server:
            before = read_real()
            with socket.create_connection(server.getsockname()) as _one, server.accept()[0]:
                return before, read_real()

    before, during = in_new_netns(run)
    assert before != during


def test_traffic_does_not_change_the_counters() -> None:
    def run() -> tuple[object, object]:
        with (
            socket.create_server(("127.0.0.1", 0)) as server,
            socket.create_connection(server.getsockname()) as one,
            server.accept()[0] as other,
        ):
            before = read_real()
            one.sendall(b"x" * 50_000)
            assert other.recv(10)  # The rest is unread, and takes memory.
            return before, read_real()

    before, after = in_new_netns(run)
    assert before == after
