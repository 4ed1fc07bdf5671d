"""What a process does with its descriptors is published within two polls, also when their number
stays the same.

No sweep takes part: it would take an hour. The process is in a network namespace of its own: what
else the machine does moves no counter there, and no search for the holder of another socket comes
across the process.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .helpers import Follow, Holder

# Without trace events, which report sockets between two polls: the clock would not count polls.
NO_SWEEP = ("--sweep", "3600", "--events", "off")
SOURCES = pytest.mark.parametrize("source", ["netlink", "procfs"])
DATAGRAMS = {
    "udp": "s = socket.socket(type=socket.SOCK_DGRAM); s.bind((OWN, 0))",
    "unix": "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); s.bind('')",
}


@pytest.fixture
def clock(holder: Holder) -> Iterator[Holder]:
    """A process whose sockets, at the address of ``holder``, count polls."""
    with Holder() as clock:
        clock.do(f"address = {holder.address!r}; held = []")
        yield clock


def two_polls(follow: Follow, clock: Holder) -> str:
    """Return the time of a poll; two polls at least began behind this call, with that one.

    A poll publishes each socket that the clock opened before the poll began, for the number of
    descriptors shows it. The first of these three may be published by the poll that is under way;
    the second and the third are published by later ones. No event tells of a UDP socket.
    """
    time = ""
    for _ in range(3):
        inode = clock.open(
            "s = socket.socket(type=socket.SOCK_DGRAM); s.bind((address, 0)); held.append(s)"
        )
        time = follow.wait(event="open", pid=clock.pid, inode=inode)["time"]
    return time


@SOURCES
def test_a_file_that_becomes_a_listener_is_reported_of_parent_and_child(
    source: str, alone: Holder, clock: Holder
) -> None:
    descriptor = alone.do("[f := os.open('/dev/null', os.O_RDONLY)][0]")
    with Follow(*NO_SWEEP, "--source", source, "--addr", alone.address) as follow:
        follow.started()
        alone.do("os.close(f); s = tcp_listener(OWN); child = fork()")
        child, inode = alone.do("child"), alone.do("inode(s)")
        latest = two_polls(follow, clock)
        for pid in (alone.pid, child):
            opened = follow.wait(event="open", pid=pid, inode=inode)
            assert (opened["fds"], opened["state"]) == ([descriptor], "LISTEN")
            assert opened["time"] <= latest


@SOURCES
@pytest.mark.parametrize("kind", DATAGRAMS)
def test_a_socket_that_replaces_another_of_its_kind_is_reported(
    kind: str, source: str, alone: Holder, clock: Holder
) -> None:
    old = alone.open(DATAGRAMS[kind])
    descriptor = alone.do("s.fileno()")
    pids = ("--pid", f"{alone.pid},{clock.pid}")
    with Follow(*NO_SWEEP, "--source", source, *pids) as follow:
        follow.started()
        for _ in range(3):
            alone.do(f"s.close(); {DATAGRAMS[kind]}")
            new = alone.do("inode(s)")
            latest = two_polls(follow, clock)
            opened = follow.wait(event="open", pid=alone.pid, inode=new)
            assert (opened["proto"], opened["fds"]) == (kind, [descriptor])
            assert opened["time"] <= latest
            assert follow.wait(event="close", pid=alone.pid, inode=old)["time"] <= latest
            old = new


@SOURCES
def test_a_socket_put_over_another_descriptor_has_both_descriptors(
    source: str, alone: Holder, clock: Holder
) -> None:
    file = alone.do("[f := os.open('/dev/null', os.O_RDONLY)][0]")
    inode = alone.open("s = tcp_listener(OWN)")
    replaced = alone.open("t = tcp_listener(OWN)")
    first, second = alone.do("s.fileno(), t.fileno()")
    with Follow(*NO_SWEEP, "--source", source, "--addr", alone.address) as follow:
        follow.started()
        for over, fds in ((file, [file, first]), (second, [file, first, second])):
            alone.do(f"os.dup2(s.fileno(), {over})")
            latest = two_polls(follow, clock)
            assert follow.wait(event="update", inode=inode, fds=fds)["time"] <= latest
        assert follow.wait(event="close", inode=replaced)["time"] <= latest


@SOURCES
def test_a_bound_udp_socket_that_is_connected_and_disconnected_is_updated(
    source: str, alone: Holder, clock: Holder
) -> None:
    # A port that the kernel does not choose: one that it chose is lost as the socket disconnects.
    inode = alone.open("s = socket.socket(type=socket.SOCK_DGRAM); s.bind((OWN, 4711))")
    with Follow(*NO_SWEEP, "--source", source, "--addr", alone.address) as follow:
        follow.started()
        assert follow.of(alone.pid)[inode]["state"] == "UNCONNECTED"
        for action, state, remote in (
            ("s.connect((OWN, 9))", "ESTABLISHED", 9),
            ("libc.connect(s.fileno(), bytes(16), 16)", "UNCONNECTED", None),  # AF_UNSPEC.
        ):
            alone.do(action)
            latest = two_polls(follow, clock)
            update = follow.wait(event="update", inode=inode, state=state)
            assert (update["local_port"], update["remote_port"]) == (4711, remote)
            assert update["time"] <= latest
