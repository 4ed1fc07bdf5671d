"""The dumps of TCP, UDP and UDP-Lite sockets."""

import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from agent.kernel.netlink.client import _Link, _open_dump_socket
from agent.kernel.netlink.inet_diag import inet_dump
from agent.kernel.netlink.messages import split_rows
from agent.kernel.rows import EMPTY
from agent.model import Socket

from .captured import NETNS, SCOPE, read, rows, sockets

SO_COOKIE = 57  # asm-generic/socket.h


def endpoints(socket: Socket) -> tuple[object, ...]:
    return socket.local_addr, socket.local_port, socket.remote_addr, socket.remote_port


# Captured rows.


def test_a_listener() -> None:
    assert sockets("tcp")[4341070] == Socket(
        inode=4341070,
        proto="tcp",
        family="inet",
        type=None,
        state="LISTEN",
        local_addr="0.0.0.0",
        local_port=8001,
        direction="listen",
        recv_q=0,
        send_q=0,
        uid=0,
        netns=NETNS,
        source="netlink",
        backlog=7,
        cgroup_id=1,
        cookie=232032,
    )


@pytest.mark.parametrize(
    ("inode", "state", "direction", "local", "remote"),
    [
        (4341073, "ESTABLISHED", "outbound", 40000, 8000),
        (4341074, "ESTABLISHED", "inbound", 8000, 40000),
        (4341075, "FIN_WAIT1", "outbound", 40001, 8001),
        (4341076, "CLOSE_WAIT", "inbound", 8001, 40001),
        # The listener is an IPv6 socket.
        (4341082, "ESTABLISHED", "outbound", 40011, 8002),
    ],
)
def test_tcp_connections(inode: int, state: str, direction: str, local: int, remote: int) -> None:
    row = sockets("tcp")[inode]
    assert (row.state, row.direction, row.family) == (state, direction, "inet")
    assert endpoints(row) == ("127.0.0.1", local, "127.0.0.1", remote)


def test_ipv6_addresses_are_canonical() -> None:
    found = {inode: row for inode, row in sockets("tcp").items() if row.family == "inet6"}
    assert {inode: (*endpoints(row), row.direction) for inode, row in found.items()} == {
        4341071: ("::", 8002, None, None, "listen"),
        4341080: ("::1", 40010, "::1", 8002, "outbound"),
        4341081: ("::1", 8002, "::1", 40010, "inbound"),
        4341083: ("::ffff:127.0.0.1", 8002, "::ffff:127.0.0.1", 40011, "inbound"),
    }


def test_queues_are_bytes_or_the_connections_of_a_listener() -> None:
    found = sockets("tcp")
    assert (found[4341074].recv_q, found[4341074].send_q) == (100, 0)
    # One connection waits to be accepted, of at most five.
    assert (found[4341069].recv_q, found[4341069].send_q, found[4341069].backlog) == (1, 0, 5)


def test_rows_with_inode_0_are_unowned() -> None:
    unowned = read("tcp").unowned()
    assert sorted(str(row.state) for row in unowned) == ["ESTABLISHED", "FIN_WAIT1", "TIME_WAIT"]
    assert {row.uid for row in unowned} == {None}


def test_the_interface_of_a_bound_socket_has_a_name() -> None:
    assert {row.interface for row in sockets("tcp").values()} == {None, "if1"}
    assert sockets("tcp")[4341072].interface == "if1"


def test_cgroups_are_decoded_only_on_request() -> None:
    without = inet_dump("tcp").read(rows("tcp"), SCOPE, EMPTY).sockets()
    assert {row.cgroup_id for row in without.values()} == {None}
    assert {row.cgroup_id for row in sockets("tcp").values()} == {1}


@pytest.mark.parametrize(
    ("name", "inode", "state", "ends"),
    [
        ("udp", 4341089, "UNCONNECTED", ("127.0.0.1", 5353, None, None)),
        ("udp", 4341090, "ESTABLISHED", ("127.0.0.1", 5354, "127.0.0.1", 5353)),
        ("udp", 4341091, "UNCONNECTED", ("::", 5355, None, None)),
        ("udp", 4341092, "ESTABLISHED", ("::1", 5356, "::1", 5355)),
        ("udplite", 4341093, "UNCONNECTED", ("127.0.0.1", 5360, None, None)),
        ("udplite", 4341094, "UNCONNECTED", ("::1", 5361, None, None)),
    ],
)
def test_datagram_sockets(name: str, inode: int, state: str, ends: tuple[object, ...]) -> None:
    row = sockets(name)[inode]
    assert (row.proto, row.state, row.direction, row.uid) == (name, state, None, 0)
    assert row.family == ("inet6" if ":" in str(ends[0]) else "inet")
    assert endpoints(row) == ends


# Answers of the running kernel.

DumpRows = Callable[..., list[bytes]]


@pytest.fixture
def dump_rows() -> Any:
    link = _Link(_open_dump_socket(), None)
    yield lambda name, **options: split_rows(link.request(inet_dump(name, **options)))
    link.close()


def row_of(rows: list[bytes], opened: socket.socket) -> tuple[bytes, Socket]:
    proto = "tcp" if opened.type == socket.SOCK_STREAM else "udp"
    table = inet_dump(proto).read(rows, SCOPE, EMPTY)
    inode = os.fstat(opened.fileno()).st_ino
    return next((row, found) for row, found in table.rows.items() if found.inode == inode)


def test_one_request_lists_ipv4_and_ipv6(dump_rows: DumpRows) -> None:
    assert len(inet_dump("tcp").requests) == 1
    with (
        socket.create_server(("127.0.0.1", 0)) as four,
        socket.create_server(("::1", 0), family=socket.AF_INET6) as six,
    ):
        found = dump_rows("tcp")
        families = [row_of(found, opened)[1].family for opened in (four, six)]
    assert families == ["inet", "inet6"]


def test_a_row_has_the_cookie_of_the_socket(dump_rows: DumpRows) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        row, _socket = row_of(dump_rows("tcp"), server)
        assert row[44:52] == server.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)


def test_unowned_rows_are_listed_only_on_request(dump_rows: DumpRows) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        port = client.getsockname()[1]
        with server.accept()[0] as accepted:
            client.close()  # The side that closes first ends in TIME_WAIT.
            accepted.recv(1)
        states = []
        for include_unowned in (False, True):
            found = dump_rows("tcp", include_unowned=include_unowned)
            table = inet_dump("tcp").read(found, SCOPE, EMPTY)
            ports = (port, server.getsockname()[1])
            states.append(
                {
                    row.state
                    for row in table.rows.values()
                    if (row.local_port, row.remote_port) == ports
                }
            )
    assert states == [set(), {"TIME_WAIT"}]


def test_a_socket_has_a_cgroup(dump_rows: DumpRows) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        row, _socket = row_of(dump_rows("tcp"), server)
        table = inet_dump("tcp", include_cgroups=True).read([row], SCOPE, EMPTY)
    (found,) = table.rows.values()
    if found.cgroup_id is None:
        pytest.skip("this kernel reports no cgroup ids (Linux 5.9, CONFIG_SOCK_CGROUP_DATA)")
    assert found.cgroup_id > 0
