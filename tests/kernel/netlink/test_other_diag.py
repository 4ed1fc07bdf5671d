"""The dumps of netlink and packet sockets."""

from .captured import read, rows, sockets


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


def test_netlink_sockets_of_the_kernel_are_unowned() -> None:
    assert {row.local_port for row in read("netlink").unowned()} == {0}


def test_repeated_netlink_rows_count_once() -> None:
    every = rows("netlink")
    assert len(set(every)) < len(every)
    assert len(read("netlink").rows) == len(set(every))


def test_packet_sockets() -> None:
    found = sockets("packet")
    assert {inode: (row.local_addr, row.local_port) for inode, row in found.items()} == {
        4341112: ("*", 1), 4341114: ("0x0800", None), 4341115: ("0x0000", None)
    }  # fmt: skip
    assert {(row.state, row.uid) for row in found.values()} == {("UNCONNECTED", 0)}
