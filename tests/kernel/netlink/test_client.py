import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent.kernel.netlink import client as reader_module
from agent.kernel.netlink import messages
from agent.kernel.netlink.client import (
    DUMPED_TABLES,
    NetlinkClient,
    _Link,
    _open_destroy_socket,
    _open_dump_socket,
)
from agent.kernel.netlink.inet_diag import inet_dump
from agent.kernel.netlink.messages import Dump, make_request, split_rows
from agent.kernel.rows import EMPTY

from ...unprivileged import as_nobody
from ...unshared import need_root, new_netns
from .captured import SCOPE

OWN = os.stat("/proc/self/ns/net").st_ino
SO_COOKIE = 57  # asm-generic/socket.h
# A dump of a protocol that does not exist, and that therefore no kernel supports.
UNSUPPORTED = Dump(
    ("none",),
    (make_request(struct.pack("=BBBBI48x", 2, 255, 0, 0, ~0 & 2**32 - 1)),),
    inet_dump("udp").read,
)


@pytest.fixture
def reader() -> Iterator[NetlinkClient]:
    made = NetlinkClient(OWN)
    yield made
    made.close_except([])


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """The tables of the dumps that were asked for."""
    told: list[tuple[str, ...]] = []
    ask = _Link.request

    def noting(link: _Link, dump: Dump) -> list[bytes]:
        told.append(dump.tables)
        return ask(link, dump)

    monkeypatch.setattr(_Link, "request", noting)
    return told


def inode_of(opened: socket.socket) -> int:
    return os.fstat(opened.fileno()).st_ino


def names_of(reader: NetlinkClient, *names: str) -> list[tuple[str, ...]]:
    return [dump.tables for dump, _rows in reader.read_dumps(OWN, "", names)]


def inodes(reader: NetlinkClient, netns: int, path: str, *names: str) -> set[int]:
    found: set[int] = set()
    for dump, rows in reader.read_dumps(netns, path, names):
        found |= dump.read(rows, SCOPE, EMPTY).sockets().keys()
    return found


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# Our own namespace.


def test_it_works_here(reader: NetlinkClient) -> None:
    assert reader.is_available()


def test_what_is_asked_for_is_dumped_and_nothing_else(
    reader: NetlinkClient, asked: list[tuple[str, ...]]
) -> None:
    assert names_of(reader, "tcp6", "unix", "raw") == [("tcp", "tcp6"), ("unix",)]
    assert asked == [("tcp", "tcp6"), ("unix",)]


def test_it_works_for_anybody() -> None:
    def works() -> bool:
        reader = NetlinkClient(OWN)
        try:
            return reader.is_available()
        finally:
            reader.close_except([])

    assert as_nobody(works)


def test_a_dump_that_the_kernel_has_not_is_left_out_and_remembered(
    reader: NetlinkClient, asked: list[tuple[str, ...]]
) -> None:
    reader._dumps = (UNSUPPORTED, *reader._dumps)
    assert names_of(reader, "none", "udp") == [("udp", "udp6")]
    assert names_of(reader, "none", "udp") == [("udp", "udp6")]
    assert asked == [("none",), ("udp", "udp6"), ("udp", "udp6")]


def test_an_unsupported_dump_is_requested_again_after_a_while(
    reader: NetlinkClient, asked: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader._dumps = (UNSUPPORTED,)
    monkeypatch.setattr(reader_module, "UNSUPPORTED_SECONDS", 0.0)
    assert [names_of(reader, "none") for _ in range(2)] == [[], []]
    assert asked == [("none",)] * 2


def test_a_dump_that_fails_once_is_tried_again(
    reader: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_with_eintr = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, -errno.EINTR)
    with monkeypatch.context() as patch:
        patch.setattr(_Link, "request", lambda _link, _dump: [done_with_eintr])
        assert names_of(reader, "udp") == []
    assert names_of(reader, "udp") == [("udp", "udp6")]


def test_after_a_dump_that_stood_still_another_socket_asks(
    reader: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert names_of(reader, "udp")
    first = reader._links[OWN]
    assert first
    first.dumps.settimeout(0.0)  # The answer is not there at once, and comes later.
    first.dumps.send(inet_dump("udp").requests[0])
    with monkeypatch.context() as patch:
        patch.setattr(_Link, "request", raising(TimeoutError))
        assert names_of(reader, "udp") == []
    assert names_of(reader, "udp") == [("udp", "udp6")]
    assert reader._links[OWN] is not first
    assert first.dumps.fileno() != -1  # Somebody may be listening to its other socket still.
    reader.close_except([OWN])
    assert first.dumps.fileno() == -1
    assert names_of(reader, "udp") == [("udp", "udp6")]


def raising(error: type[OSError]) -> Callable[..., list[bytes]]:
    def ask(_link: _Link, _dump: Dump) -> list[bytes]:
        raise error

    return ask


def test_dumps_of_several_threads_do_not_mix(reader: NetlinkClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        outcomes: list[bool] = []

        def ask(name: str, wanted: int) -> None:
            outcomes.extend(wanted in inodes(reader, OWN, "", name) for _ in range(5))

        threads = [
            threading.Thread(target=ask, args=("tcp", inode_of(tcp))),
            threading.Thread(target=ask, args=("unix", inode_of(unix))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [True] * 10


def test_without_netlink_nothing_works(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> socket.socket:
        raise PermissionError(errno.EPERM, "no netlink here")

    monkeypatch.setattr(reader_module, "_open_dump_socket", refused)
    assert not NetlinkClient(OWN).is_available()


def test_it_hears_only_if_it_is_to() -> None:
    for hear in (True, False):
        reader = NetlinkClient(OWN, subscribe_destroy=hear)
        assert reader.destroy_socket(OWN) is None  # Nothing was asked for yet.
        names_of(reader, "udp")
        assert (reader.destroy_socket(OWN) is not None) is hear
        reader.close_except([])
        assert reader.destroy_socket(OWN) is None


def test_of_other_namespaces_only_so_many_are_entered() -> None:
    reader = NetlinkClient(OWN, max_namespaces=1)
    with elsewhere() as (netns, path, inode):
        assert inode in inodes(reader, netns, path, "tcp")
        assert names_of(reader, "udp")  # Our own always is.
        assert inodes(reader, netns + 1, path, "tcp") == set()
        reader.close_except([OWN])
    reader.close_except([])


# Other namespaces.


@contextmanager
def elsewhere() -> Iterator[tuple[int, str, int]]:
    """Another namespace, where somebody listens: its inode, the path to it, and the socket's."""
    need_root()
    ready, end = threading.Event(), threading.Event()
    told: list[tuple[int, str, int]] = []

    def run() -> None:
        try:
            new_netns()
            path = f"/proc/self/task/{threading.get_native_id()}/ns/net"
            with socket.create_server(("127.0.0.1", 0)) as server:
                told.append((os.stat(path).st_ino, path, inode_of(server)))
                ready.set()
                end.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait()
        yield told[0]
    finally:
        end.set()
        thread.join()


def test_another_namespace_is_entered_by_a_thread(reader: NetlinkClient) -> None:
    with elsewhere() as (netns, path, inode):
        assert inode in inodes(reader, netns, path, "tcp")
        assert inode not in inodes(reader, OWN, "", "tcp")
        # We are where we were.
        assert os.stat("/proc/thread-self/ns/net").st_ino == OWN


def test_another_namespace_is_entered_once(reader: NetlinkClient) -> None:
    with elsewhere() as (netns, path, inode):
        inodes(reader, netns, path, "tcp")
        assert inode in inodes(reader, netns, "/nowhere", "tcp")


def test_a_path_that_leads_elsewhere_by_now_is_not_followed(reader: NetlinkClient) -> None:
    with elsewhere() as (netns, _path, _inode):
        assert inodes(reader, netns, "/proc/self/ns/net", "tcp") == set()
        assert inodes(reader, netns + 1, "/nowhere", "tcp") == set()


def test_a_namespace_whose_process_just_went_is_entered_through_another(
    reader: NetlinkClient,
) -> None:
    with elsewhere() as (netns, path, inode):
        assert inodes(reader, netns, "/proc/self/task/0/ns/net", "tcp") == set()
        assert inode in inodes(reader, netns, path, "tcp")


def test_a_namespace_that_may_not_be_entered_has_no_dumps() -> None:
    with elsewhere() as (netns, path, _inode):
        entered = path.replace("self", str(os.getpid()))

        def dumped() -> set[int]:
            return inodes(NetlinkClient(OWN), netns, entered, "tcp")  # It could open nothing.

        assert as_nobody(dumped) == set()


@pytest.mark.parametrize("required", [True, False])
def test_that_netlink_was_required_and_is_refused_is_worth_telling(required: bool) -> None:
    with elsewhere() as (netns, path, _inode):
        entered = path.replace("self", str(os.getpid()))

        def refused() -> set[int]:
            reader = NetlinkClient(OWN, required=required)
            inodes(reader, netns, entered, "tcp")
            return set(reader.refused_namespaces())

        assert as_nobody(refused) == ({netns} if required else set())


def test_leaving_a_namespace_closes_what_keeps_it_alive() -> None:
    need_root()
    reader = NetlinkClient(OWN, subscribe_destroy=True)
    names_of(reader, "udp")
    before = descriptors()
    with elsewhere() as (netns, path, _inode):
        inodes(reader, netns, path, "udp")
        hearing = reader.destroy_socket(netns)
        assert hearing
        reader.close_except([OWN, netns])
        assert hearing.fileno() != -1
        reader.close_except([OWN])
        assert hearing.fileno() == -1
        assert reader.destroy_socket(netns) is None
    assert descriptors() == before
    reader.close_except([])


def test_a_namespace_tells_of_its_own_ends_only() -> None:
    reader = NetlinkClient(OWN, subscribe_destroy=True)
    with elsewhere() as (netns, path, _inode):
        inodes(reader, netns, path, "udp")
        there = reader.destroy_socket(netns)
        assert there
        names_of(reader, "udp")
        here = reader.destroy_socket(OWN)
        assert here
        here.settimeout(10)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.bind(("127.0.0.1", 0))
            cookie = opened.getsockopt(socket.SOL_SOCKET, SO_COOKIE, 8)
        while cookie not in here.recv(65536):
            pass
        with pytest.raises(BlockingIOError):
            while cookie not in there.recv(65536):
                pass
    reader.close_except([])


def test_a_dump_that_one_namespace_refuses_is_requested_in_others(
    reader: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with elsewhere() as (netns, path, inode):
        with monkeypatch.context() as patch:
            patch.setattr(_Link, "request", lambda _link, _dump: [error(errno.EPERM)])
            assert inodes(reader, netns, path, "tcp") == set()
        assert inodes(reader, netns, path, "tcp") == set()
        with socket.create_server(("127.0.0.1", 0)) as here:
            assert inode_of(here) in inodes(reader, OWN, "", "tcp")
        assert inode not in inodes(reader, OWN, "", "tcp")


# What other processes send.


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """A netlink socket of another process, as far as the kernel tells them apart."""
    need_root()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as opened:
        opened.bind((0, 0))
        yield opened


def error(code: int, sequence: int = 1) -> bytes:
    return struct.pack("=IHHIIi", 20, 2, 0, sequence, 0, -code)


def unconnected() -> socket.socket:
    """A socket like ``_open_dump_socket`` makes, to which others can send."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
    opened.bind((0, 0))
    return opened


@pytest.mark.parametrize("make", [_open_dump_socket, _open_destroy_socket])
def test_the_kernel_refuses_what_another_process_sends(
    make: Callable[[], socket.socket], sender: socket.socket
) -> None:
    with make() as ours, pytest.raises(ConnectionRefusedError):
        sender.sendto(error(errno.ENOENT), ours.getsockname())


def test_forged_answers_are_ignored_and_counted(
    reader: NetlinkClient, sender: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "_open_dump_socket", unconnected)
    assert names_of(reader, "udp")
    link = reader._links[OWN]
    assert link
    for sequence in range(10):
        sender.sendto(error(errno.EPERM, sequence), link.dumps.getsockname())
    assert names_of(reader, "udp") == [("udp", "udp6")]
    assert reader._links[OWN] is link
    assert reader.take_ignored() == {OWN: 10}
    assert reader.take_ignored() == {}


def test_an_answer_to_an_older_request_is_skipped() -> None:
    link = _Link(_open_dump_socket(), None)
    # Of sockets in no state: its whole answer is there before the next request.
    link.dumps.send(make_request(struct.pack("=BBBBI48x", 2, 17, 0, 0, 0)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        table = inet_dump("tcp").read(split_rows(link.request(inet_dump("tcp"))), SCOPE, EMPTY)
        assert inode_of(server) in table.sockets()
    link.close()


def test_a_truncated_answer_is_not_read(
    reader: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate(link: socket.socket) -> messages.Datagram:
        return messages.receive(link)._replace(truncated=True)  # Behind a whole message.

    with monkeypatch.context() as patch:
        patch.setattr(reader_module, "receive", truncate)
        assert names_of(reader, "netlink") == []
    assert names_of(reader, "netlink") == [("netlink",)]


# Long answers.


def test_an_answer_of_many_buffers_is_whole() -> None:
    link = _Link(_open_dump_socket(), None)
    pairs = [socket.socketpair() for _ in range(200)]  # About 16 KiB each hundred.
    try:
        buffers = link.request(NetlinkClient(OWN)._dumps[3])
        found = {int.from_bytes(row[4:8], sys.byteorder) for row in split_rows(buffers)}
        assert {inode_of(one) for pair in pairs for one in pair} <= found
        assert len(buffers) > 1
    finally:
        for pair in pairs:
            for one in pair:
                one.close()
        link.close()


def test_every_dump_stands_for_the_tables_that_are_known_to_be_dumped() -> None:
    assert tuple(dump.tables for dump in NetlinkClient(OWN)._dumps) == DUMPED_TABLES
