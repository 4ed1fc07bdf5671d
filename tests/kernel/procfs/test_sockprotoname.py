import os
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.procfs.sockprotoname import read_protocols, socket_from_protocol

from ...fakeproc import FakeProc

NETNS = 4026531833
OWN_PID = os.getpid()


def test_the_protocol_of_an_unbound_socket_is_read() -> None:
    with socket.socket() as tcp, socket.socket(socket.AF_UNIX) as unix:
        wanted = [(OWN_PID, one.fileno(), os.fstat(one.fileno()).st_ino) for one in (tcp, unix)]
        assert list(read_protocols("/proc", wanted).values()) == [b"TCP\0", b"UNIX-STREAM\0"]


def test_the_name_is_empty_when_the_descriptor_no_longer_leads_to_the_socket(
    fake: FakeProc,
) -> None:
    fake.process(7, {3: 99})
    asked = [(7, 3, 11), (7, 4, 11), (8, 3, 11)]
    assert read_protocols(str(fake.root), asked) == dict.fromkeys(asked, b"")


def test_the_name_is_none_when_it_cannot_be_read(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    assert read_protocols(str(fake.root), [(7, 3, 11)]) == {(7, 3, 11): None}


@pytest.mark.parametrize(
    ("name", "proto", "family", "state"),
    [
        (b"TCP\0", "tcp", "inet", "CLOSE"),
        (b"TCPv6\0", "tcp", "inet6", "CLOSE"),
        (b"UDP\0", "udp", "inet", "UNCONNECTED"),
        (b"UDPv6\0", "udp", "inet6", "UNCONNECTED"),
        (b"UDP-Lite\0", "udplite", "inet", "UNCONNECTED"),
        (b"UDPLITEv6\0", "udplite", "inet6", "UNCONNECTED"),
        (b"RAW\0", "raw", "inet", "UNCONNECTED"),
        (b"PING\0", "icmp", "inet", "UNCONNECTED"),
        (b"PINGv6\0", "icmp", "inet6", "UNCONNECTED"),
        (b"UNIX\0", "unix", "unix", None),
        (b"UNIX-STREAM\0", "unix", "unix", None),
        (b"NETLINK\0", "netlink", "netlink", "UNCONNECTED"),
        (b"PACKET\0", "packet", "packet", "UNCONNECTED"),
        (b"AF_VSOCK\0", "vsock", "vsock", None),
        (b"SCTP\0", "sctp", "inet", None),
        (b"MPTCP\0", "mptcp", "inet", None),
        (b"ALG\0", "alg", "alg", None),
        (None, None, None, None),
    ],
)
def test_socket_from_protocol(
    name: bytes | None, proto: str | None, family: str | None, state: str | None
) -> None:
    row = socket_from_protocol(5, name, NETNS)
    assert (row.inode, row.proto, row.family, row.state, row.netns) == (
        5, proto, family, state, NETNS
    )  # fmt: skip


@given(st.binary(max_size=30))
def test_socket_from_protocol_raises_for_no_name(name: bytes) -> None:
    assert socket_from_protocol(5, name).inode == 5
