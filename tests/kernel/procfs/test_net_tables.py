import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.procfs import net_inet, net_tables
from agent.kernel.procfs.sockprotoname import socket_from_protocol
from agent.model import Socket

from ...captures import TABLES, capture
from ...fakeproc import UNIX_HEADING, unix_row

NETNS = 4026531833


def parsed(name: str, table: str = "") -> dict[int, Socket]:
    return net_tables.parse(table or name.rpartition("/")[2], capture(name), NETNS).sockets()


def endpoints(row: Socket) -> tuple[object, ...]:
    return row[5:9]


@pytest.mark.parametrize("table", TABLES)
def test_a_real_table_has_no_malformed_rows(table: str) -> None:
    data = capture(f"net/{table}")
    read = net_tables.parse(table, data, NETNS)
    sockets, unowned = read.sockets(), read.unowned()
    assert not read.malformed
    assert sockets
    assert all(inode == row.inode and inode for inode, row in sockets.items())
    assert all(row.inode == 0 for row in unowned)
    assert {row.netns for row in [*sockets.values(), *unowned]} == {NETNS}
    assert {net_tables.table_of(row) for row in sockets.values()} == {table}


def test_a_listener_has_no_remote_end() -> None:
    assert parsed("net/tcp")[134869] == Socket(
        inode=134869,
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
        source="procfs",
    )


@pytest.mark.parametrize(
    ("inode", "state", "direction", "local", "remote"),
    [
        (134870, "ESTABLISHED", "outbound", 40000, 8000),
        (134871, "ESTABLISHED", "inbound", 8000, 40000),
        (134872, "FIN_WAIT2", "outbound", 40001, 8001),
        (134873, "CLOSE_WAIT", "inbound", 8001, 40001),
        (134881, "SYN_SENT", "outbound", 40006, 8003),
        # Its listener is in tcp6.
        (134886, "ESTABLISHED", "outbound", 40011, 8002),
    ],
)
def test_tcp_connections(inode: int, state: str, direction: str, local: int, remote: int) -> None:
    row = parsed("net/tcp")[inode]
    assert (row.state, row.direction) == (state, direction)
    assert endpoints(row) == ("127.0.0.1", local, "127.0.0.1", remote)


def test_queues_are_bytes_and_of_a_listener_connections() -> None:
    rows = parsed("net/tcp")
    assert (rows[134871].recv_q, rows[134871].send_q) == (100, 0)  # 100 bytes were not read yet.
    assert (rows[134881].recv_q, rows[134881].send_q) == (0, 1)  # The SYN is under way.
    assert (rows[134868].recv_q, rows[134868].send_q) == (1, 0)  # One waits to be accepted.


def test_rows_with_inode_0_are_nobodys() -> None:
    table = net_tables.parse("tcp", capture("net/tcp"), NETNS)
    assert [row.state for row in table.unowned()] == [
        "TIME_WAIT", "FIN_WAIT2", "ESTABLISHED", "ESTABLISHED"
    ]  # fmt: skip
    # Such rows print uid 0, which is not their owner's.
    assert {row.uid for row in table.unowned()} == {None}
    assert 0 not in table.sockets()


def test_tcp6_addresses_are_canonical() -> None:
    rows = parsed("net/tcp6")
    assert endpoints(rows[134883]) == ("::", 8002, None, None)
    assert endpoints(rows[134884]) == ("::1", 40010, "::1", 8002)
    assert endpoints(rows[134887]) == ("::ffff:127.0.0.1", 8002, "::ffff:127.0.0.1", 40011)
    assert [rows[inode].direction for inode in (134884, 134885, 134887)] == [
        "outbound", "inbound", "inbound"
    ]  # fmt: skip
    assert {row.family for row in rows.values()} == {"inet6"}


@pytest.mark.parametrize(
    ("table", "inode", "state", "ends"),
    [
        ("udp", 134888, "UNCONNECTED", ("127.0.0.1", 5353, None, None)),
        ("udp", 134889, "ESTABLISHED", ("127.0.0.1", 5354, "127.0.0.1", 5353)),
        ("udp6", 134890, "UNCONNECTED", ("::", 5355, None, None)),
        ("udp6", 134891, "ESTABLISHED", ("::1", 5356, "::1", 5355)),
        ("udplite", 134892, "UNCONNECTED", ("127.0.0.1", 5360, None, None)),
        ("udplite6", 134893, "UNCONNECTED", ("::1", 5361, None, None)),
        ("raw", 134894, "UNCONNECTED", ("127.0.0.1", 1, None, None)),
        ("raw6", 134895, "UNCONNECTED", ("::1", 58, None, None)),
        ("icmp", 134896, "UNCONNECTED", ("127.0.0.1", 77, None, None)),
        ("icmp6", 134897, "UNCONNECTED", ("::1", 78, None, None)),
    ],
)
def test_datagram_sockets(table: str, inode: int, state: str, ends: tuple[object, ...]) -> None:
    row = parsed(f"net/{table}")[inode]
    assert (row.proto, row.state) == (table.removesuffix("6"), state)
    assert endpoints(row) == ends
    assert row.direction is None


@pytest.mark.parametrize(
    ("inode", "kind", "state", "path", "direction"),
    [
        (134898, "stream", "LISTEN", "/run/app/main.sock", "listen"),
        (134899, "stream", "CONNECTED", None, None),
        (134900, "stream", "CONNECTED", "/run/app/main.sock", "inbound"),
        (134901, "stream", "LISTEN", "/run/app/with  two spaces .sock", "listen"),
        (134902, "stream", "LISTEN", "/run/app/with\nnewline.sock", "listen"),
        (134903, "stream", "LISTEN", "/run/app/a\n\nb\n", "listen"),
        (134904, "stream", "LISTEN", "@app-abstract", "listen"),
        (134905, "stream", "LISTEN", "@with@nul", "listen"),
        (134906, "seqpacket", "LISTEN", "/run/app/seq.sock", "listen"),
        (134907, "dgram", "UNCONNECTED", "/run/app/dgram.sock", None),
        (134908, "stream", "UNCONNECTED", "/run/app/\\xff\\xfe.sock", None),
        (134911, "stream", "UNCONNECTED", None, None),
    ],
)
def test_unix_sockets(
    inode: int, kind: str, state: str, path: str | None, direction: str | None
) -> None:
    row = parsed("net/unix")[inode]
    assert (row.type, row.state, row.path, row.direction) == (kind, state, path, direction)
    assert endpoints(row) == (None, None, None, None)


def test_a_newline_that_ends_the_last_path_is_kept() -> None:
    table = net_tables.parse("unix", UNIX_HEADING + unix_row(5, "/a") + unix_row(6, "/b\n\n"), None)
    assert {inode: row.path for inode, row in table.sockets().items()} == {5: "/a", 6: "/b\n\n"}
    assert not table.malformed


def test_netlink_sockets() -> None:
    table = net_tables.parse("netlink", capture("net/netlink"), NETNS)
    assert {inode: (row.local_addr, row.local_port) for inode, row in table.sockets().items()} == {
        134912: ("route", 9815),
        134913: ("kobject_uevent", 4242),
    }
    # Port id 0 is the kernel's own end.
    assert {row.local_port for row in table.unowned()} == {0}


def test_a_netlink_port_id_that_is_printed_negative() -> None:
    row = b"ffff88003d0e6800 16  -4123  00000000 0  0  (null) 2  0  5150\n"
    assert (
        net_tables.parse("netlink", b"sk\n" + row, None).sockets()[5150].local_port == 2**32 - 4123
    )


def test_packet_sockets() -> None:
    rows = parsed("net/packet")
    assert [(row.local_addr, row.local_port, row.recv_q) for row in rows.values()] == [
        ("*", 1, 0), ("0x0800", None, 0), ("0x0000", None, 0)
    ]  # fmt: skip


def test_a_connection_in_a_table_of_linux_3() -> None:
    assert parsed("old/tcp_established", "tcp") == {
        11065: Socket(
            inode=11065,
            proto="tcp",
            family="inet",
            type=None,
            state="ESTABLISHED",
            local_addr="93.89.130.179",
            local_port=35648,
            remote_addr="69.59.196.213",
            remote_port=80,
            direction="outbound",
            recv_q=0,
            send_q=0,
            uid=1000,
            netns=NETNS,
        )
    }


def test_listeners_in_a_table_of_linux_2_6() -> None:
    rows = parsed("old/tcp_listeners", "tcp")
    assert {inode: (*row[4:7], row.uid) for inode, row in rows.items()} == {
        26442: ("LISTEN", "0.0.0.0", 8321, 1000),
        7019: ("LISTEN", "127.0.0.1", 631, 0),
    }


# Interfaces.


def test_interfaces_by_index() -> None:
    igmp = b"""Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
3\teth0      :     2      V3
"""
    if_inet6 = b"fe800000000000000000000000000001 0c 40 20 80 veth-1\n"
    assert net_tables.parse_interfaces([igmp, if_inet6]) == {1: "lo", 3: "eth0", 12: "veth-1"}


def test_the_real_interfaces() -> None:
    texts = [Path(f"/proc/net/{name}") for name in net_tables.INTERFACE_TABLES]
    found = net_tables.parse_interfaces(path.read_bytes() for path in texts if path.exists())
    assert found
    assert found.items() <= dict(socket.if_nameindex()).items()


@given(st.lists(st.binary(max_size=100)))
def test_no_bytes_raise_as_interfaces(texts: list[bytes]) -> None:
    net_tables.parse_interfaces(texts)


# Sockets that only their descriptors tell of.


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
def test_the_protocol_that_a_descriptor_names(
    name: bytes | None, proto: str | None, family: str | None, state: str | None
) -> None:
    row = socket_from_protocol(5, name, NETNS)
    assert (row.inode, row.proto, row.family, row.state, row.netns) == (
        5, proto, family, state, NETNS
    )  # fmt: skip


@given(st.binary(max_size=30))
def test_no_name_of_a_protocol_raises(name: bytes) -> None:
    assert socket_from_protocol(5, name).inode == 5


@pytest.mark.parametrize(
    ("digits", "text"),
    [
        (b"0100007F", "127.0.0.1"),
        (b"00000000", "0.0.0.0"),
        (b"B80D01200000000067452301EFCDAB89", "2001:db8::123:4567:89ab:cdef"),
        (b"0000000000000000FFFF0000010200C0", "::ffff:192.0.2.1"),
    ],
)
def test_address(digits: bytes, text: str) -> None:
    assert net_inet.decode_address(digits) == text


@pytest.mark.parametrize("digits", [b"", b"0100", b"0100007", b"0100007G", b"01" * 17])
def test_what_is_no_address_is_refused(digits: bytes) -> None:
    with pytest.raises(ValueError):
        net_inet.decode_address(digits)
