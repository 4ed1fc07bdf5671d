import errno
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from agent.kernel.netlink import client as client_module
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
def client() -> Iterator[NetlinkClient]:
    made = NetlinkClient(OWN)
    yield made
    made.close_except([])


@pytest.fixture
def requested(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Return a list to which the tables of each requested dump are added."""
    tables: list[tuple[str, ...]] = []
    request = _Link.request

    def recording_request(link: _Link, dump: Dump) -> list[bytes]:
        tables.append(dump.tables)
        return request(link, dump)

    monkeypatch.setattr(_Link, "request", recording_request)
    return tables


def inode_of(opened: socket.socket) -> int:
    return os.fstat(opened.fileno()).st_ino


def dump_own(client: NetlinkClient, *names: str) -> list[tuple[str, ...]]:
    """Dump tables of the own namespace and return the tables of the dumps."""
    return [dump.tables for dump, _rows in client.read_dumps(OWN, "", names)]


def inodes(client: NetlinkClient, netns: int, path: str, *names: str) -> set[int]:
    found: set[int] = set()
    for dump, rows in client.read_dumps(netns, path, names):
        found |= dump.read(rows, SCOPE, EMPTY).sockets().keys()
    return found


def count_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# The own namespace.


def test_sock_diag_is_available(client: NetlinkClient) -> None:
    assert client.is_available()


def test_only_dumps_of_the_named_tables_are_requested(
    client: NetlinkClient, requested: list[tuple[str, ...]]
) -> None:
    assert dump_own(client, "tcp6", "unix", "raw") == [("tcp", "tcp6"), ("unix",)]
    assert requested == [("tcp", "tcp6"), ("unix",)]


def test_sock_diag_is_available_without_privileges() -> None:
    def is_available() -> bool:
        client = NetlinkClient(OWN)
        try:
            return client.is_available()
        finally:
            client.close_except([])

    assert as_nobody(is_available)


def test_an_unsupported_dump_is_left_out_and_not_requested_again(
    client: NetlinkClient, requested: list[tuple[str, ...]]
) -> None:
    client._dumps = (UNSUPPORTED, *client._dumps)
    assert dump_own(client, "none", "udp") == [("udp", "udp6")]
    assert dump_own(client, "none", "udp") == [("udp", "udp6")]
    assert requested == [("none",), ("udp", "udp6"), ("udp", "udp6")]


def test_an_unsupported_dump_is_requested_again_after_a_while(
    client: NetlinkClient, requested: list[tuple[str, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    client._dumps = (UNSUPPORTED,)
    monkeypatch.setattr(client_module, "UNSUPPORTED_SECONDS", 0.0)
    assert [dump_own(client, "none") for _ in range(2)] == [[], []]
    assert requested == [("none",)] * 2


def test_a_dump_that_failed_once_is_requested_again(
    client: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    done_with_eintr = struct.pack("=IHHIIi", 20, 3, 2, 1, 0, -errno.EINTR)
    with monkeypatch.context() as patch:
        patch.setattr(_Link, "request", lambda _link, _dump: [done_with_eintr])
        assert dump_own(client, "udp") == []
    assert dump_own(client, "udp") == [("udp", "udp6")]


def test_after_a_timeout_another_socket_is_opened(
    client: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert dump_own(client, "udp")
    first = client._links[OWN]
    assert first
    first.dumps.settimeout(0.0)  # The answer arrives later.
    first.dumps.send(inet_dump("udp").requests[0])
    with monkeypatch.context() as patch:
        patch.setattr(_Link, "request", raising(TimeoutError))
        assert dump_own(client, "udp") == []
    assert dump_own(client, "udp") == [("udp", "udp6")]
    assert client._links[OWN] is not first
    assert first.dumps.fileno() != -1  # Its destroy notices may still be read.
    client.close_except([OWN])
    assert first.dumps.fileno() == -1
    assert dump_own(client, "udp") == [("udp", "udp6")]


def raising(error: type[OSError]) -> Callable[..., list[bytes]]:
    def request(_link: _Link, _dump: Dump) -> list[bytes]:
        raise error

    return request


def test_dumps_of_several_threads_do_not_mix(client: NetlinkClient) -> None:
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        outcomes: list[bool] = []

        def dump(name: str, inode: int) -> None:
            outcomes.extend(inode in inodes(client, OWN, "", name) for _ in range(5))

        threads = [
            threading.Thread(target=dump, args=("tcp", inode_of(tcp))),
            threading.Thread(target=dump, args=("unix", inode_of(unix))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert outcomes == [True] * 10


def test_without_netlink_sock_diag_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> socket.socket:
        raise PermissionError(errno.EPERM, "no netlink here")

    monkeypatch.setattr(client_module, "_open_dump_socket", refuse)
    assert not NetlinkClient(OWN).is_available()


@pytest.mark.parametrize("subscribe", [True, False])
def test_a_destroy_socket_is_opened_with_the_dump_socket_if_subscribed(subscribe: bool) -> None:
    client = NetlinkClient(OWN, subscribe_destroy=subscribe)
    assert client.destroy_socket(OWN) is None  # No dump has been requested yet.
    dump_own(client, "udp")
    assert (client.destroy_socket(OWN) is not None) is subscribe
    client.close_except([])
    assert client.destroy_socket(OWN) is None


def test_the_dumps_replace_the_dumped_tables() -> None:
    assert tuple(dump.tables for dump in NetlinkClient(OWN)._dumps) == DUMPED_TABLES


def test_an_answer_of_many_buffers_is_complete() -> None:
    link = _Link(_open_dump_socket(), None)
    pairs = [socket.socketpair() for _ in range(200)]  # Each hundred takes about 16 KiB.
    try:
        buffers = link.request(NetlinkClient(OWN)._dumps[3])
        found = {int.from_bytes(row[4:8], sys.byteorder) for row in split_rows(buffers)}
        assert {inode_of(end) for pair in pairs for end in pair} <= found
        assert len(buffers) > 1
    finally:
        for pair in pairs:
            for end in pair:
                end.close()
        link.close()


# Other namespaces.


@contextmanager
def other_namespace() -> Iterator[tuple[int, str, int]]:
    """Create a network namespace with a listener; yield its inode, a path to it, and the inode of
    the listener."""
    need_root()
    ready, end = threading.Event(), threading.Event()
    created: list[tuple[int, str, int]] = []

    def run() -> None:
        try:
            new_netns()
            path = f"/proc/self/task/{threading.get_native_id()}/ns/net"
            with socket.create_server(("127.0.0.1", 0)) as server:
                created.append((os.stat(path).st_ino, path, inode_of(server)))
                ready.set()
                end.wait()
        finally:
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait()
        yield created[0]
    finally:
        end.set()
        thread.join()


def test_another_namespace_is_entered_by_another_thread(client: NetlinkClient) -> None:
    with other_namespace() as (netns, path, inode):
        assert inode in inodes(client, netns, path, "tcp")
        assert inode not in inodes(client, OWN, "", "tcp")
        assert os.stat("/proc/thread-self/ns/net").st_ino == OWN


def test_another_namespace_is_entered_once(client: NetlinkClient) -> None:
    with other_namespace() as (netns, path, inode):
        inodes(client, netns, path, "tcp")
        assert inode in inodes(client, netns, "/nowhere", "tcp")


def test_a_path_to_another_namespace_by_now_is_not_followed(client: NetlinkClient) -> None:
    with other_namespace() as (netns, _path, _inode):
        assert inodes(client, netns, "/proc/self/ns/net", "tcp") == set()
        assert inodes(client, netns + 1, "/nowhere", "tcp") == set()


def test_after_the_process_of_a_path_has_ended_another_path_is_used(
    client: NetlinkClient,
) -> None:
    with other_namespace() as (netns, path, inode):
        assert inodes(client, netns, "/proc/self/task/0/ns/net", "tcp") == set()
        assert inode in inodes(client, netns, path, "tcp")


def test_where_no_thread_can_be_started_there_are_no_dumps(
    client: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with other_namespace() as (netns, path, inode):
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            assert inodes(client, netns, path, "tcp") == set()
        assert inode in inodes(client, netns, path, "tcp")


def test_a_namespace_that_may_not_be_entered_has_no_dumps() -> None:
    with other_namespace() as (netns, path, _inode):
        path_for_others = path.replace("self", str(os.getpid()))

        def dump() -> set[int]:
            return inodes(NetlinkClient(OWN), netns, path_for_others, "tcp")

        assert as_nobody(dump) == set()


@pytest.mark.parametrize("required", [True, False])
def test_refused_namespaces_are_reported_if_netlink_is_required(required: bool) -> None:
    with other_namespace() as (netns, path, _inode):
        path_for_others = path.replace("self", str(os.getpid()))

        def refused() -> set[int]:
            client = NetlinkClient(OWN, required=required)
            inodes(client, netns, path_for_others, "tcp")
            return set(client.refused_namespaces())

        assert as_nobody(refused) == ({netns} if required else set())


def test_a_limited_number_of_other_namespaces_is_entered() -> None:
    client = NetlinkClient(OWN, max_namespaces=1)
    with other_namespace() as (netns, path, inode):
        assert inode in inodes(client, netns, path, "tcp")
        assert dump_own(client, "udp")  # The own namespace is always read.
        assert inodes(client, netns + 1, path, "tcp") == set()
        client.close_except([OWN])
    client.close_except([])


def test_closing_the_sockets_of_a_namespace_releases_it() -> None:
    need_root()
    client = NetlinkClient(OWN, subscribe_destroy=True)
    dump_own(client, "udp")
    before = count_descriptors()
    with other_namespace() as (netns, path, _inode):
        inodes(client, netns, path, "udp")
        subscribed = client.destroy_socket(netns)
        assert subscribed
        client.close_except([OWN, netns])
        assert subscribed.fileno() != -1
        client.close_except([OWN])
        assert subscribed.fileno() == -1
        assert client.destroy_socket(netns) is None
    assert count_descriptors() == before
    client.close_except([])


def test_destroy_notices_stay_in_their_namespace() -> None:
    client = NetlinkClient(OWN, subscribe_destroy=True)
    with other_namespace() as (netns, path, _inode):
        inodes(client, netns, path, "udp")
        there = client.destroy_socket(netns)
        assert there
        dump_own(client, "udp")
        here = client.destroy_socket(OWN)
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
    client.close_except([])


def test_a_dump_unsupported_in_one_namespace_is_requested_in_others(
    client: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with other_namespace() as (netns, path, inode):
        with monkeypatch.context() as patch:
            patch.setattr(_Link, "request", lambda _link, _dump: [error(errno.EPERM)])
            assert inodes(client, netns, path, "tcp") == set()
        assert inodes(client, netns, path, "tcp") == set()
        with socket.create_server(("127.0.0.1", 0)) as here:
            assert inode_of(here) in inodes(client, OWN, "", "tcp")
        assert inode not in inodes(client, OWN, "", "tcp")


# Messages of other processes.


@pytest.fixture
def sender() -> Iterator[socket.socket]:
    """A netlink socket that is to the kernel like one of another process."""
    need_root()
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as opened:
        opened.bind((0, 0))
        yield opened


def error(code: int, sequence: int = 1) -> bytes:
    return struct.pack("=IHHIIi", 20, 2, 0, sequence, 0, -code)


def open_unconnected() -> socket.socket:
    """Open a socket for dumps to which other processes can send."""
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4)
    opened.bind((0, 0))
    return opened


@pytest.mark.parametrize("open_socket", [_open_dump_socket, _open_destroy_socket])
def test_the_kernel_refuses_messages_of_another_process(
    open_socket: Callable[[], socket.socket], sender: socket.socket
) -> None:
    with open_socket() as opened, pytest.raises(ConnectionRefusedError):
        sender.sendto(error(errno.ENOENT), opened.getsockname())


def test_forged_answers_are_ignored_and_counted(
    client: NetlinkClient, sender: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "_open_dump_socket", open_unconnected)
    assert dump_own(client, "udp")
    link = client._links[OWN]
    assert link
    for sequence in range(10):
        sender.sendto(error(errno.EPERM, sequence), link.dumps.getsockname())
    assert dump_own(client, "udp") == [("udp", "udp6")]
    assert client._links[OWN] is link
    assert client.take_ignored() == {OWN: 10}
    assert client.take_ignored() == {}


def test_an_answer_to_an_older_request_is_skipped() -> None:
    link = _Link(_open_dump_socket(), None)
    # A dump of sockets in no state: the whole answer is queued before the next request.
    link.dumps.send(make_request(struct.pack("=BBBBI48x", 2, 17, 0, 0, 0)))
    with socket.create_server(("127.0.0.1", 0)) as server:
        table = inet_dump("tcp").read(split_rows(link.request(inet_dump("tcp"))), SCOPE, EMPTY)
        assert inode_of(server) in table.sockets()
    link.close()


def test_a_truncated_answer_is_not_parsed(
    client: NetlinkClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def truncate(link: socket.socket) -> messages.Datagram:
        return messages.receive(link)._replace(truncated=True)  # After a whole message.

    with monkeypatch.context() as patch:
        patch.setattr(client_module, "receive", truncate)
        assert dump_own(client, "netlink") == []
    assert dump_own(client, "netlink") == [("netlink",)]
