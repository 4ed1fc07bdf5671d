import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kernel.procfs import net_tables
from agent.model import Socket

from ...captures import TABLES, capture
from ...fakeproc import UNIX_HEADING, unix_row

NETNS = 4026531833


def parsed(name: str, table: str = "") -> dict[int, Socket]:
    return net_tables.parse(table or name.rpartition("/")[2], capture(name), NETNS).sockets()


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


def test_netlink_sockets() -> None:
    table = net_tables.parse("netlink", capture("net/netlink"), NETNS)
    assert {inode: (row.local_addr, row.local_port) for inode, row in table.sockets().items()} == {
        134912: ("route", 9815),
        134913: ("kobject_uevent", 4242),
    }
    # Port id 0 is the kernel's end.
    assert {row.local_port for row in table.unowned()} == {0}


def test_a_negative_netlink_port_id_is_unsigned() -> None:
    row = b"ffff88003d0e6800 16  -4123  00000000 0  0  (null) 2  0  5150\n"
    assert (
        net_tables.parse("netlink", b"sk\n" + row, None).sockets()[5150].local_port == 2**32 - 4123
    )


def test_packet_sockets() -> None:
    rows = parsed("net/packet")
    assert [(row.local_addr, row.local_port, row.recv_q) for row in rows.values()] == [
        ("*", 1, 0), ("0x0800", None, 0), ("0x0000", None, 0)
    ]  # fmt: skip


# Unix sockets.


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
    row = net_tables.parse("unix", capture("net/unix"), NETNS).sockets()[inode]
    assert (row.type, row.state, row.path, row.direction) == (kind, state, path, direction)
    assert (row.local_addr, row.local_port, row.remote_addr, row.remote_port) == (None,) * 4


def test_a_newline_that_ends_the_last_path_is_kept() -> None:
    table = net_tables.parse("unix", UNIX_HEADING + unix_row(5, "/a") + unix_row(6, "/b\n\n"), None)
    assert {inode: row.path for inode, row in table.sockets().items()} == {5: "/a", 6: "/b\n\n"}
    assert not table.malformed


# Interfaces.


def test_interfaces_by_index() -> None:
    igmp = b"""Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t010000E0     1 0:00000000\t\t0
3\teth0      :     2      V3
"""
    if_inet6 = b"fe800000000000000000000000000001 0c 40 20 80 veth-1\n"
    assert net_tables.parse_interfaces([igmp, if_inet6]) == {1: "lo", 3: "eth0", 12: "veth-1"}


def test_interfaces_of_this_machine() -> None:
    texts = [Path(f"/proc/net/{name}") for name in net_tables.INTERFACE_TABLES]
    found = net_tables.parse_interfaces(path.read_bytes() for path in texts if path.exists())
    assert found
    assert found.items() <= dict(socket.if_nameindex()).items()


@given(st.lists(st.binary(max_size=100)))
def test_parse_interfaces_raises_for_no_input(texts: list[bytes]) -> None:
    net_tables.parse_interfaces(texts)
