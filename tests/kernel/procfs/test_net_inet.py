import pytest

from agent.kernel.procfs import net_inet, net_tables
from agent.model import Socket

from ...captures import capture

NETNS = 4026531833


def parsed(name: str, table: str = "") -> dict[int, Socket]:
    return net_tables.parse(table or name.rpartition("/")[2], capture(name), NETNS).sockets()


def endpoints(row: Socket) -> tuple[object, ...]:
    return row[5:9]


def test_a_listener_has_no_remote_address() -> None:
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


def test_queues_are_in_bytes_and_for_listeners_in_connections() -> None:
    rows = parsed("net/tcp")
    assert (rows[134871].recv_q, rows[134871].send_q) == (100, 0)  # 100 bytes are unread.
    assert (rows[134881].recv_q, rows[134881].send_q) == (0, 1)  # The SYN is not acknowledged.
    assert (rows[134868].recv_q, rows[134868].send_q) == (
        1,
        0,
    )  # One connection waits to be accepted.


def test_rows_with_inode_0_are_unowned() -> None:
    table = net_tables.parse("tcp", capture("net/tcp"), NETNS)
    assert [row.state for row in table.unowned()] == [
        "TIME_WAIT", "FIN_WAIT2", "ESTABLISHED", "ESTABLISHED"
    ]  # fmt: skip
    # The kernel prints uid 0 for these, whoever owned them.
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
def test_a_malformed_address_raises_an_error(digits: bytes) -> None:
    with pytest.raises(ValueError):
        net_inet.decode_address(digits)
