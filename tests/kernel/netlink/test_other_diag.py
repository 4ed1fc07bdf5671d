"""The dumps of unix, netlink and packet sockets."""

import pytest

from agent.kernel.netlink.unix_diag import unix_dump
from agent.kernel.rows import EMPTY

from .captured import SCOPE, read, rows, sockets


@pytest.mark.parametrize(
    ("inode", "kind", "state", "path", "direction"),
    [
        (4341095, "stream", "LISTEN", "main.sock", "listen"),
        (4341096, "stream", "CONNECTED", None, "outbound"),
        (4341097, "stream", "CONNECTED", "main.sock", "inbound"),
        (4341098, "stream", "LISTEN", "with  two spaces .sock", "listen"),
        (4341099, "stream", "LISTEN", "with\nnewline.sock", "listen"),
        (4341100, "stream", "LISTEN", "a\n\nb\n", "listen"),
        (4341101, "stream", "LISTEN", "@app-abstract", "listen"),
        (4341102, "stream", "LISTEN", "@with@nul", "listen"),
        (4341103, "stream", "LISTEN", "\\xff\\xfe.sock", "listen"),
        (4341104, "stream", "LISTEN", "@new\nline", "listen"),
        (4341105, "seqpacket", "LISTEN", "seq.sock", "listen"),
        (4341106, "dgram", "UNCONNECTED", "dgram.sock", None),
        (4341107, "stream", "UNCONNECTED", None, None),
    ],
)
def test_unix_sockets(
    inode: int, kind: str, state: str, path: str | None, direction: str | None
) -> None:
    row = sockets("unix")[inode]
    assert (row.type, row.state, row.path, row.direction) == (kind, state, path, direction)
    assert (row.uid, row.local_addr, row.remote_port) == (0, None, None)


def test_a_unix_sockets_peer() -> None:
    found = sockets("unix")
    peers = {inode: row.peer_inode for inode, row in found.items() if row.peer_inode}
    assert peers == {4341096: 4341097, 4341097: 4341096, 4341108: 4341109, 4341109: 4341108}


def test_a_unix_sockets_queues() -> None:
    found = sockets("unix")
    assert (found[4341097].recv_q, found[4341097].send_q) == (5, 0)  # Five bytes were not read.
    assert found[4341097].backlog is None
    assert (found[4341095].recv_q, found[4341095].send_q, found[4341095].backlog) == (0, 0, 6)


def test_a_connection_to_a_listener_that_was_there_before_is_inbound() -> None:
    every = rows("unix")
    accepted = next(row for row, one in read("unix").rows.items() if one.direction == "inbound")
    before = unix_dump().read([row for row in every if row != accepted], SCOPE, EMPTY)
    table = unix_dump().read(every, SCOPE, before)
    assert table.rows[accepted].direction == "inbound"


def test_the_other_end_of_what_was_accepted_before_is_outbound() -> None:
    every = rows("unix")
    whole = read("unix")
    connecting = next(row for row, one in whole.rows.items() if one.direction == "outbound")
    before = unix_dump().read([row for row in every if row != connecting], SCOPE, EMPTY)
    assert unix_dump().read(every, SCOPE, before).rows[connecting].direction == "outbound"


def test_netlink_sockets() -> None:
    found = sockets("netlink")
    assert {inode: (row.local_addr, row.local_port) for inode, row in found.items()} == {
        4341067: ("sock_diag", 2158986329),
        4341068: ("sock_diag", 677),
        4341110: ("route", 9815),
        4341111: ("kobject_uevent", 4242),
    }
    assert {(row.state, row.send_q) for row in found.values()} == {("UNCONNECTED", 0)}
    assert found[4341067].recv_q == 33024


def test_the_kernels_own_netlink_sockets_are_nobodys() -> None:
    assert {row.local_port for row in read("netlink").unowned()} == {0}


def test_netlink_rows_that_are_repeated_count_once() -> None:
    every = rows("netlink")
    assert len(set(every)) < len(every)
    assert len(read("netlink").rows) == len(set(every))


def test_packet_sockets() -> None:
    found = sockets("packet")
    assert {inode: (row.local_addr, row.local_port) for inode, row in found.items()} == {
        4341112: ("*", 1), 4341114: ("0x0800", None), 4341115: ("0x0000", None)
    }  # fmt: skip
    assert {(row.state, row.uid) for row in found.values()} == {("UNCONNECTED", 0)}
