"""Destroy notices, and the short-lived sockets that they describe."""

import socket
import struct
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink.client import _Link, _open_destroy_socket, _open_dump_socket
from agent.kernel.netlink.destroy import DestroyNotice, parse_notices, short_lived
from agent.kernel.netlink.inet_diag import LISTEN, inet_dump
from agent.kernel.netlink.messages import split_rows
from agent.kernel.rows import EMPTY, Table
from agent.model import Holding, Opened, Owner, TcpFigures
from agent.stream.encoder import AgentInfo, Encoder

from ...strategies import mutated
from .captured import NETNS, SCOPE, answer, message, read

NOTICES = answer("destroyed")
FIRST = NOTICES[: int.from_bytes(NOTICES[:4], sys.byteorder)]
TYPE, FAMILY = 4, 16  # Places in FIRST.
SO_COOKIE = 57  # asm-generic/socket.h
SOCK_DIAG = 4  # linux/netlink.h


def parse(data: bytes) -> list[DestroyNotice]:
    """Return the notices in data without malformed messages."""
    found, malformed = parse_notices(data)
    assert not malformed
    return found


def described() -> list[tuple[object, ...]]:
    """Return protocol, family, endpoints and direction of the captured notices."""
    return [
        (
            found.proto,
            found.family,
            found.local_addr,
            found.local_port,
            found.remote_addr,
            found.remote_port,
            found.direction,
        )
        for found in short_lived(parse(NOTICES), EMPTY, SCOPE)
    ]


def cookies(table: Table) -> set[int | None]:
    return {row.cookie for row in table.rows.values()}


# Captured notices.


def test_notices_of_tcp_and_udp_are_parsed() -> None:
    notices = parse(NOTICES)
    assert [notice.proto for notice in notices] == ["udp", "udp", "tcp", "tcp", "tcp", "tcp"]
    assert len({notice.cookie for notice in notices}) == 6


def test_short_lived_sockets_have_endpoints_and_directions() -> None:
    found = described()
    assert found[:3] == [
        ("udp", "inet", "127.0.0.1", 5400, None, None, None),
        ("udp", "inet6", "::1", 5401, "::1", 5401, None),
        ("tcp", "inet6", "::1", 8101, None, None, None),
    ]
    assert found[4:] == [
        ("tcp", "inet", "127.0.0.1", 40100, "127.0.0.1", 8100, "outbound"),
        ("tcp", "inet", "127.0.0.1", 8100, None, None, None),
    ]


def test_fields_that_a_notice_lacks_are_unknown() -> None:
    for found in short_lived(parse(NOTICES), EMPTY, SCOPE):
        assert (found.inode, found.uid, found.state, found.recv_q) == (0, None, None, None)
        assert (found.netns, found.source) == (NETNS, "netlink")


def test_the_peers_port_is_unknown_after_a_reset() -> None:
    reset = described()[3]
    assert reset[2:4] == ("127.0.0.1", 8100)
    assert reset[5] is None


def test_a_listener_of_the_last_reading_shows_the_direction() -> None:
    scope = SCOPE._replace(ephemeral_ports=range(0))
    notice = [found for found in parse(NOTICES) if found.proto == "tcp"][2]
    assert [found.direction for found in short_lived([notice], EMPTY, scope)] == [None]
    # A listener at the remote endpoint, 127.0.0.1:8100.
    listener = bytearray(notice.row)
    listener[1] = LISTEN
    listener[4:6], listener[6:8] = notice.row[6:8], b"\0\0"
    tcp = inet_dump("tcp").read([bytes(listener)], SCOPE, EMPTY)
    assert [found.direction for found in short_lived([notice], tcp, scope)] == ["outbound"]


def test_every_row_of_a_reading_has_a_cookie() -> None:
    table = read("tcp")
    assert len(cookies(table)) == len(table.rows)
    assert all(cookies(table))


def split(data: bytes) -> list[bytes]:
    """Return the messages in data one by one."""
    found = []
    while data:
        length = int.from_bytes(data[:4], sys.byteorder)
        found.append(data[: (length + 3) & ~3])
        data = data[len(found[-1]) :]
    return found


def test_one_datagram_or_several_give_the_same_notices() -> None:
    assert [notice for part in split(NOTICES) for notice in parse(part)] == parse(NOTICES)


# Malformed messages.


@given(st.binary(max_size=300) | mutated(NOTICES) | mutated(NOTICES[:192]))
def test_no_bytes_raise_and_every_socket_can_be_encoded(data: bytes) -> None:
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    for found in short_lived(parse_notices(data)[0], EMPTY, SCOPE):
        encoder.delta(Opened(Holding(found, None, (), Owner(0, None))), 1, 0.0)


@pytest.mark.parametrize("size", range(0, len(NOTICES), 37))
def test_a_truncated_notice_is_malformed(size: int) -> None:
    found, malformed = parse_notices(NOTICES[:size])
    assert found == parse(NOTICES)[: len(found)]
    assert malformed == (size != len(b"".join(split(NOTICES)[: len(found)])))


def changed(at: int, value: bytes) -> bytes:
    """Return FIRST with other bytes in one place."""
    return FIRST[:at] + value + FIRST[at + len(value) :]


@pytest.mark.parametrize(
    "broken",
    [
        b"\0",
        FIRST[:15],
        bytes(16),
        changed(0, (15).to_bytes(4, sys.byteorder)),
        changed(0, (len(FIRST) + 1).to_bytes(4, sys.byteorder)),
        changed(TYPE, (21).to_bytes(2, sys.byteorder)),
        changed(FAMILY, b"\1"),
        message(FIRST[16:87]),
        message(FIRST[16:88]),
        message(FIRST[16:88] + struct.pack("=HH", 4, 10)),
        message(FIRST[16:88] + struct.pack("=HH", 3, 10)),
        message(FIRST[16:88] + struct.pack("=HHI", 9, 10, 17)),
        message(FIRST[16:88] + struct.pack("=H", 5)),
    ],
    ids=[
        "one byte",
        "truncated header",
        "zeros",
        "length below that of a header",
        "length beyond the end",
        "another type",
        "another family",
        "truncated row",
        "no protocol",
        "empty protocol",
        "attribute length too small",
        "attribute length too large",
        "truncated attribute header",
    ],
)
def test_a_malformed_message_is_counted(broken: bytes) -> None:
    assert parse_notices(broken) == ([], 1)


def test_a_notice_after_a_malformed_message_is_parsed() -> None:
    broken = message(FIRST[16:88])
    assert parse_notices(broken + FIRST + broken) == (parse(FIRST), 2)


def test_a_notice_of_a_protocol_without_a_table_is_not_malformed() -> None:
    assert parse_notices(message(FIRST[16:88] + struct.pack("=HHI", 5, 10, 132))) == ([], 0)


def tcp_info(**values: int) -> bytes:
    """Return a tcp_info, as ``include/uapi/linux/tcp.h`` lays it out up to bytes_sent."""
    info = bytearray(208)
    for name, value in values.items():
        code, offset = TCP_INFO[name]
        struct.pack_into(code, info, offset, value)
    return bytes(info)


TCP_INFO = {
    "rtt": ("=I", 68), "total_retrans": ("=I", 100), "bytes_received": ("=Q", 128),
    "segs_out": ("=I", 136), "segs_in": ("=I", 140), "bytes_sent": ("=Q", 200),
}  # fmt: skip


def with_info(info: bytes, protocol: int = 6) -> bytes:
    """Return a notice with this protocol and this tcp_info."""
    attributes = struct.pack("=HHI", 5, 10, protocol)
    attributes += struct.pack("=HH", 4 + len(info), 2) + info + bytes(-len(info) % 4)
    return message(FIRST[16:88] + attributes)


big, small = st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1)


@given(big, big, st.integers(1, 2**32 - 1), small, small, small)
def test_a_notice_has_the_figures_of_tcp(
    sent: int, received: int, out: int, into: int, retransmits: int, rtt: int
) -> None:
    info = tcp_info(
        bytes_sent=sent, bytes_received=received, segs_out=out, segs_in=into,
        total_retrans=retransmits, rtt=rtt,
    )  # fmt: skip
    (found,) = parse(with_info(info))
    rtt_ms = rtt / 1000 if rtt else None
    assert found.figures == TcpFigures(sent, received, out, into, retransmits, rtt_ms)


@pytest.mark.parametrize("size", [0, 1, 104, 144, 192, 207])
def test_an_older_kernels_tcp_info_has_no_figures(size: int) -> None:
    (found,) = parse(with_info(tcp_info(segs_out=1)[:size]))
    assert found.figures is None


def test_a_longer_tcp_info_has_the_same_figures() -> None:
    info = tcp_info(segs_out=1, bytes_sent=5)
    assert parse(with_info(info + b"\xff" * 72))[0].figures == TcpFigures(5, 0, 1, 0, 0, None)


def test_a_socket_that_exchanged_no_segment_has_no_figures() -> None:
    assert parse(with_info(tcp_info(bytes_sent=5)))[0].figures is None


def test_an_udp_socket_has_no_figures() -> None:
    (found,) = parse(with_info(tcp_info(segs_out=1), protocol=17))
    assert (found.proto, found.figures) == ("udp", None)


# Notices of the running kernel.


@pytest.fixture
def subscribed() -> Iterator[socket.socket]:
    with _open_destroy_socket() as opened:
        opened.settimeout(10)
        yield opened


def cookie_of(opened: socket.socket) -> int:
    return int.from_bytes(opened.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


def receive_notice(subscribed: socket.socket, cookie: int) -> DestroyNotice:
    while True:
        for notice in parse(subscribed.recv(65536)):
            if notice.cookie == cookie:
                return notice


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
@pytest.mark.parametrize(
    ("kind", "proto"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")]
)
def test_a_closed_socket_causes_a_notice(
    subscribed: socket.socket, family: int, host: str, kind: int, proto: str
) -> None:
    with socket.socket(family, kind) as opened:
        opened.bind((host, 0))
        cookie, port = cookie_of(opened), opened.getsockname()[1]
        if proto == "tcp":
            opened.listen()
    notice = receive_notice(subscribed, cookie)
    assert notice.proto == proto
    (found,) = short_lived([notice], EMPTY, SCOPE)
    assert (found.local_addr, found.local_port, found.inode) == (host, port, 0)


def test_a_notice_has_the_cookie_of_the_row(subscribed: socket.socket) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        accepted_cookie, server_port = cookie_of(accepted), server.getsockname()[1]
        link = _Link(_open_dump_socket(), None)
        tcp = inet_dump("tcp").read(split_rows(link.request(inet_dump("tcp"))), SCOPE, EMPTY)
        link.close()
        assert {accepted_cookie, cookie_of(client)} <= cookies(tcp)
        client.close()
        accepted.recv(1)
    notice = receive_notice(subscribed, accepted_cookie)
    (found,) = short_lived([notice], tcp, SCOPE)
    assert (found.direction, found.local_port) == ("inbound", server_port)


def test_the_notice_of_an_unbound_socket_is_left_out(subscribed: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
        unbound_cookie = cookie_of(unbound)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        last = cookie_of(bound)
    found: list[int] = []
    while last not in found:
        found += [notice.cookie for notice in parse(subscribed.recv(65536))]
    assert unbound_cookie not in found


def test_a_netlink_socket_without_a_port_id_receives_no_notices(
    subscribed: socket.socket,
) -> None:
    # Both sockets have joined the group; one has no port id, as it is not connected.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as unbound:
        unbound.setblocking(False)
        # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, SKNLGRP_INET_UDP_DESTROY
        unbound.setsockopt(270, 1, 3)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.bind(("127.0.0.1", 0))
            cookie = cookie_of(opened)
        receive_notice(subscribed, cookie)  # The notice has been sent.
        with pytest.raises(BlockingIOError):
            unbound.recv(65536)
