"""The dump of unix sockets."""

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


def test_connected_sockets_have_the_inodes_of_their_peers() -> None:
    found = sockets("unix")
    peers = {inode: row.peer_inode for inode, row in found.items() if row.peer_inode}
    assert peers == {4341096: 4341097, 4341097: 4341096, 4341108: 4341109, 4341109: 4341108}


def test_queues_are_bytes_or_the_connections_of_a_listener() -> None:
    found = sockets("unix")
    assert (found[4341097].recv_q, found[4341097].send_q) == (5, 0)  # Five bytes are unread.
    assert found[4341097].backlog is None
    assert (found[4341095].recv_q, found[4341095].send_q, found[4341095].backlog) == (0, 0, 6)


def test_a_new_connection_to_a_known_listener_is_inbound() -> None:
    every = rows("unix")
    accepted = next(row for row, found in read("unix").rows.items() if found.direction == "inbound")
    before = unix_dump().read([row for row in every if row != accepted], SCOPE, EMPTY)
    table = unix_dump().read(every, SCOPE, before)
    assert table.rows[accepted].direction == "inbound"


def test_the_new_peer_of_a_known_inbound_socket_is_outbound() -> None:
    every = rows("unix")
    table = read("unix")
    connecting = next(row for row, found in table.rows.items() if found.direction == "outbound")
    before = unix_dump().read([row for row in every if row != connecting], SCOPE, EMPTY)
    assert unix_dump().read(every, SCOPE, before).rows[connecting].direction == "outbound"
