"""Notices of the ends of sockets."""

import socket
import struct
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.netlink import inet_diag as diag
from agent.kernel.netlink import messages as netlink_messages
from agent.kernel.netlink.client import _Link, _open_destroy_socket, _open_dump_socket
from agent.kernel.netlink.destroy import DestroyNotice, parse_notices, short_lived
from agent.kernel.rows import EMPTY, Table
from agent.model import Holding, Opened, Owner
from agent.stream.encoder import AgentInfo, Encoder

from ...strategies import mutated
from .captured import NETNS, SCOPE, answer, message, read

NOTICES = answer("destroyed")
FIRST = NOTICES[: int.from_bytes(NOTICES[:4], sys.byteorder)]
# Of the notice in FIRST: where its message has the length and the kind, and the family.
KIND, FAMILY = 4, 16
SO_COOKIE = 57  # asm-generic/socket.h
SOCK_DIAG = 4  # linux/netlink.h


def ended(data: bytes) -> list[DestroyNotice]:
    """The notices in data without malformed messages."""
    found, malformed = parse_notices(data)
    assert not malformed
    return found


def told() -> list[tuple[object, ...]]:
    found = short_lived(ended(NOTICES), EMPTY, SCOPE)
    return [(one.proto, one.family, *one[5:9], one.direction) for one in found]


# Captured ones.


def cookies(table: Table) -> set[int | None]:
    """The cookies of all rows."""
    return {row.cookie for row in table.rows.values()}


def test_the_notices_of_every_kind() -> None:
    assert [one.proto for one in ended(NOTICES)] == ["udp", "udp", "tcp", "tcp", "tcp", "tcp"]
    assert len({one.cookie for one in ended(NOTICES)}) == 6


def test_sockets_that_nobody_saw() -> None:
    found = told()
    assert found[:3] == [
        ("udp", "inet", "127.0.0.1", 5400, None, None, None),
        ("udp", "inet6", "::1", 5401, "::1", 5401, None),
        ("tcp", "inet6", "::1", 8101, None, None, None),
    ]
    assert found[4:] == [
        ("tcp", "inet", "127.0.0.1", 40100, "127.0.0.1", 8100, "outbound"),
        ("tcp", "inet", "127.0.0.1", 8100, None, None, None),
    ]


def test_what_is_not_told_is_unknown() -> None:
    for one in short_lived(ended(NOTICES), EMPTY, SCOPE):
        assert (one.inode, one.uid, one.state, one.recv_q) == (0, None, None, None)
        assert (one.netns, one.source) == (NETNS, "netlink")


def test_a_port_that_is_forgotten_by_the_end_is_unknown() -> None:
    # Who closes with a reset forgets the peer's port.
    reset = told()[3]
    assert reset[2:4] == ("127.0.0.1", 8100)
    assert reset[5] is None


def test_a_listener_that_is_there_still_tells_the_direction() -> None:
    both = [one for one in ended(NOTICES) if one.proto == "tcp"][1:3]
    alone = short_lived(both[1:], EMPTY, SCOPE._replace(ephemeral_ports=range(0)))
    assert [one.direction for one in alone] == [None]
    row = both[1].row
    # The other end of the connection listens on 127.0.0.1:8100.
    listener = bytearray(row)
    listener[1] = diag.LISTEN
    listener[4:6], listener[6:8] = row[6:8], b"\0\0"
    tcp = diag.inet_dump("tcp").read([bytes(listener)], SCOPE, EMPTY)
    found = short_lived(both[1:], tcp, SCOPE._replace(ephemeral_ports=range(0)))
    assert [one.direction for one in found] == ["outbound"]


def test_the_cookies_of_a_reading() -> None:
    table = read("tcp")
    assert len(cookies(table)) == len(table.rows)
    assert all(cookies(table))


def messages(data: bytes) -> list[bytes]:
    """The messages in data, one by one."""
    found = []
    while data:
        length = int.from_bytes(data[:4], sys.byteorder)
        found.append(data[: (length + 3) & ~3])
        data = data[len(found[-1]) :]
    return found


def test_several_buffers_or_one() -> None:
    assert [one for each in messages(NOTICES) for one in ended(each)] == ended(NOTICES)


@given(st.binary(max_size=300) | mutated(NOTICES) | mutated(NOTICES[:192]))
def test_no_bytes_raise_and_what_is_read_can_be_told(data: bytes) -> None:
    encoder = Encoder(AgentInfo("host", None, "epoch", 1.0))
    for one in short_lived(parse_notices(data)[0], EMPTY, SCOPE):
        encoder.delta(Opened(Holding(one, None, (), Owner(0, None))), 1, 0.0)


@pytest.mark.parametrize("size", range(0, len(NOTICES), 37))
def test_notices_that_are_cut_off_are_malformed(size: int) -> None:
    found, malformed = parse_notices(NOTICES[:size])
    assert found == ended(NOTICES)[: len(found)]
    assert malformed == (size != len(b"".join(messages(NOTICES)[: len(found)])))


def changed(at: int, value: bytes) -> bytes:
    return FIRST[:at] + value + FIRST[at + len(value) :]


@pytest.mark.parametrize(
    "broken",
    [
        b"\0",
        FIRST[:15],
        bytes(16),
        changed(0, (15).to_bytes(4, sys.byteorder)),
        changed(0, (len(FIRST) + 1).to_bytes(4, sys.byteorder)),
        changed(KIND, (21).to_bytes(2, sys.byteorder)),
        changed(FAMILY, b"\1"),
        message(FIRST[16:87]),
        message(FIRST[16:88]),  # Without a protocol.
        message(FIRST[16:88] + struct.pack("=HH", 4, 10)),  # A protocol of no bytes.
        message(FIRST[16:88] + struct.pack("=HH", 3, 10)),
        message(FIRST[16:88] + struct.pack("=HHI", 9, 10, 17)),
        message(FIRST[16:88] + struct.pack("=H", 5)),
    ],
    ids=[
        "one byte",
        "no whole header",
        "zeros",
        "length below that of a header",
        "length beyond the end",
        "another kind",
        "another family",
        "no whole row",
        "no protocol",
        "empty protocol",
        "attribute length too small",
        "attribute length too large",
        "no whole attribute header",
    ],
)
def test_a_malformed_notice_is_counted_and_not_read(broken: bytes) -> None:
    assert parse_notices(broken) == ([], 1)


def test_a_notice_behind_a_malformed_one_is_read() -> None:
    broken = message(FIRST[16:88])
    assert parse_notices(broken + FIRST + broken) == (ended(FIRST), 2)


def test_a_notice_of_a_protocol_without_a_table_is_not_malformed() -> None:
    assert parse_notices(message(FIRST[16:88] + struct.pack("=HHI", 5, 10, 132))) == ([], 0)


# Real ones.


@pytest.fixture
def hearing() -> Iterator[socket.socket]:
    with _open_destroy_socket() as opened:
        opened.settimeout(10)
        yield opened


def cookie_of(opened: socket.socket) -> int:
    return int.from_bytes(opened.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8), sys.byteorder)


def heard(hearing: socket.socket, cookie: int) -> DestroyNotice:
    while True:
        for one in ended(hearing.recv(65536)):
            if one.cookie == cookie:
                return one


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
@pytest.mark.parametrize(
    ("kind", "proto"), [(socket.SOCK_STREAM, "tcp"), (socket.SOCK_DGRAM, "udp")]
)
def test_the_end_of_a_socket_is_heard(
    hearing: socket.socket, family: int, host: str, kind: int, proto: str
) -> None:
    with socket.socket(family, kind) as opened:
        opened.bind((host, 0))
        cookie, port = cookie_of(opened), opened.getsockname()[1]
        if proto == "tcp":
            opened.listen()
    one = heard(hearing, cookie)
    assert one.proto == proto
    (found,) = short_lived([one], EMPTY, SCOPE)
    assert (found.local_addr, found.local_port, found.inode) == (host, port, 0)


def test_the_end_of_a_connection_that_was_read_is_known(hearing: socket.socket) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as one,
        server.accept()[0] as other,
    ):
        cookie_of_other, server_port = cookie_of(other), server.getsockname()[1]
        link = _Link(_open_dump_socket(), None)
        tcp = diag.inet_dump("tcp").read(
            netlink_messages.split_rows(link.request(diag.inet_dump("tcp"))), SCOPE, EMPTY
        )
        link.close()
        assert {cookie_of_other, cookie_of(one)} <= cookies(tcp)
        one.close()
        other.recv(1)
    one_ended = heard(hearing, cookie_of_other)
    (found,) = short_lived([one_ended], tcp, SCOPE)
    assert (found.direction, found.local_port) == ("inbound", server_port)


def test_an_unbound_socket_that_ends_is_not_told(hearing: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unbound:
        never = cookie_of(unbound)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as bound:
        bound.bind(("127.0.0.1", 0))
        last = cookie_of(bound)
    found: list[int] = []
    while last not in found:
        found += [one.cookie for one in ended(hearing.recv(65536))]
    assert never not in found


def test_a_socket_that_is_not_bound_hears_nothing(hearing: socket.socket) -> None:
    # Both have joined the group; one has no port id.
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, SOCK_DIAG) as deaf:
        deaf.setblocking(False)
        deaf.setsockopt(270, 1, 3)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, SKNLGRP_INET_UDP_DESTROY
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.bind(("127.0.0.1", 0))
            cookie = cookie_of(opened)
        heard(hearing, cookie)  # So it was told.
        with pytest.raises(BlockingIOError):
            deaf.recv(65536)
