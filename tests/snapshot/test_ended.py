"""Short-lived sockets are those that no reading of the tables showed."""

import asyncio
import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Collection

import pytest

from agent.kernel.netlink.client import NetlinkClient
from agent.kernel.netlink.destroy import DestroyNotice
from agent.kernel.netlink.monitor import DestroyReport
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.rows import EMPTY, Table, update_table
from agent.kernel.trace.connections import LISTENER, SERVER, ConnectionReport, Endpoints, Finished
from agent.kernel.trace.routes import ProcessId, Sender
from agent.kernel.trace.tasks import Task
from agent.model import Socket
from agent.snapshot.ended import EndedSockets
from agent.snapshot.reading import ALL_GROUPS, TCP, UDP, EndedSocket, Namespaces
from agent.snapshot.table_sources import sources_of
from agent.snapshot.tables import TableReader

TIMEOUT_SECONDS = 5.0
# An address of this process alone: on other addresses ports are used again.
ADDRESS = "127.98.{}.{}".format(*divmod(os.getpid() % 62_500, 250))


def connect() -> tuple[socket.socket, ...]:
    """Return both ends of a connection and the listener.

    The notice of a listener may arrive late. If it were closed here, it could be reported among
    the short-lived sockets.
    """
    server = socket.create_server((ADDRESS, 0))
    client = socket.create_connection(server.getsockname(), source_address=(ADDRESS, 0))
    return client, server.accept()[0], server


def reset(*opened: socket.socket) -> None:
    """Close sockets without TIME_WAIT, so that the kernel sends the notices at once."""
    for one in opened:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()


async def short_lived_until(
    tables: TableReader, namespaces: Namespaces, ports: set[int]
) -> list[Socket]:
    """Return the short-lived sockets on ADDRESS, up to one with one of these ports."""
    found: list[Socket] = []
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not ports.intersection(socket.local_port or 0 for socket in found):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        unlisted = [one.socket for one in tables.take_ended(namespaces).unlisted]
        found += [socket for socket in unlisted if socket.local_addr == ADDRESS]
    return found


@pytest.mark.parametrize("readings", [1, 2])
async def test_a_socket_that_a_reading_showed_is_not_short_lived(readings: int) -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    client = NetlinkClient(procfs.own.netns, subscribe_destroy=True)
    tables = TableReader(procfs, *sources_of(procfs, client))
    namespaces = {procfs.own.netns: [os.getpid()]}
    everything = dict.fromkeys(namespaces, ALL_GROUPS)
    shown = connect()
    ports = {one.getsockname()[1] for one in shown}
    try:
        for _ in range(readings):
            await tables.read(namespaces, everything)
        reset(*shown)
        not_shown = connect()
        later = {one.getsockname()[1] for one in not_shown}
        reset(*not_shown)
        await tables.read(namespaces, everything)  # It shows neither.
        found = {one.local_port for one in await short_lived_until(tables, namespaces, later)}
    finally:
        tables.take_ended({})
    assert not found & ports


async def test_after_a_socket_is_dropped_notices_are_read_from_the_next_one() -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    own, pid = procfs.own
    client = NetlinkClient(own, subscribe_destroy=True)
    tables = TableReader(procfs, *sources_of(procfs, client))
    namespaces = {own: [pid]}
    everything = {own: ALL_GROUPS}
    await tables.read(namespaces, everything)
    for due in (everything, {}):  # Whether or not the next read opens another socket.
        dropped = client.destroy_socket(own)
        client._drop(own)
        await tables.read(namespaces, due)
        tables.take_ended(namespaces)
        assert dropped
        assert dropped.fileno() == -1
        await tables.read(namespaces, everything)
        not_shown = connect()
        port = not_shown[0].getsockname()[1]
        reset(*not_shown)
        await short_lived_until(tables, namespaces, {port})
    tables.take_ended({})


async def test_notices_of_a_namespace_that_is_gone_are_still_reported() -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    client = NetlinkClient(procfs.own.netns, subscribe_destroy=True)
    tables = TableReader(procfs, *sources_of(procfs, client))
    namespaces = {procfs.own.netns: [os.getpid()]}
    await tables.read(namespaces, {procfs.own.netns: ALL_GROUPS})
    tables.take_ended(namespaces)
    not_shown = connect()
    ports = {one.getsockname()[1] for one in not_shown}
    reset(*not_shown)
    await asyncio.sleep(0.1)  # The kernel sends the notices a little later.
    ended = tables.take_ended({}).unlisted
    assert ports & {one.socket.local_port for one in ended}


async def test_a_notice_removes_the_socket_that_a_reading_showed() -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    client = NetlinkClient(procfs.own.netns, subscribe_destroy=True)
    tables = TableReader(procfs, *sources_of(procfs, client))
    namespaces = {procfs.own.netns: [os.getpid()]}
    everything = {procfs.own.netns: ALL_GROUPS}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        inode = os.fstat(opened.fileno()).st_ino
        await tables.read(namespaces, everything)
        assert inode in tables.sockets
        port = opened.getsockname()[1]
    ended: dict[int, EndedSocket] = {}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while inode not in ended:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        ended |= tables.take_ended(namespaces).listed
    assert ended[inode].socket.local_port == port
    assert inode not in tables.sockets
    reading = await tables.read(namespaces, everything)
    assert inode not in reading.change.gone
    tables.take_ended({})


# UDP, of which no event shows what begins.


class Notices:
    """A source of destroy notices."""

    def __init__(self) -> None:
        self.protos: dict[int, set[str]] = {}
        self.notices: dict[int, list[DestroyNotice]] = {}

    def follow(self, namespaces: Collection[int]) -> None:
        pass

    def pending(self) -> dict[int, set[str]]:
        return self.protos

    def take(self) -> DestroyReport:
        report = DestroyReport(self.notices, Counter(), Counter(), frozenset())
        self.protos, self.notices = {}, {}
        return report


def taken(ended: EndedSockets, now: float = 0.0) -> list[EndedSocket]:
    found, _rows = ended.take(
        lambda _netns, _group: EMPTY, lambda netns: netns, lambda _task: None, now
    )
    return list(found.unlisted)


def test_an_end_between_polls_lets_the_next_poll_read_the_udp_tables() -> None:
    notices = Notices()
    ended = EndedSockets([notices], range(0))
    notices.protos = {1: {"udp"}, 2: {"udplite", "tcp"}, 3: {"tcp"}}
    taken(ended)
    assert ended.forced() == {1: {UDP}, 2: {UDP}}
    assert ended.forced() == {}
    notices.protos = {1: {"tcp"}}
    assert ended.forced() == {1: {TCP}}


def udp_notice(cookie: int, port: int) -> DestroyNotice:
    row = struct.pack("=BBBB", socket.AF_INET, 7, 0, 0) + struct.pack("!HH", port, 0) + bytes(32)
    row += bytes(4) + struct.pack("=Q", cookie) + bytes(20)
    return DestroyNotice(cookie, "udp", row, received=5)


def test_a_udp_socket_that_no_reading_showed_has_the_process_that_sent_from_its_port() -> None:
    notices, events = Notices(), Reports()
    ended = EndedSockets([notices], range(0), events)
    events.has_senders = True
    notices.notices = {1: [udp_notice(9, 4000), udp_notice(10, 5000)]}
    sent = Sender(Task(7), 1, socket.AF_INET, bytes(16), bytes(16), 53)
    events.senders = {4000: [sent], 6000: [sent]}
    (first,) = taken(ended)
    assert (first.socket.local_port, first.sender) == (4000, sent)
    assert ended.is_waiting
    (second,) = taken(ended, 1.0)
    assert (second.socket.local_port, second.sender) == (5000, None)
    assert not ended.is_waiting


def test_a_udp_socket_that_a_reading_showed_uses_up_what_was_sent_from_its_port() -> None:
    notices, events = Notices(), Reports()
    ended = EndedSockets([notices], range(0), events)
    events.has_senders = True
    row = Socket(5, "udp", "inet", None, "UNCONNECTED", "0.0.0.0", 4000, cookie=9)
    ended.note(1, ("udp", "udp6"), Table({b"row": row}), EMPTY)
    events.senders = {4000: [Sender(Task(7), 1, socket.AF_INET, bytes(16), bytes(16), 53)]}
    notices.notices = {1: [udp_notice(9, 4000)]}
    assert taken(ended) == []
    assert events.senders == {4000: []}


# Connections in text tables, which are matched by their ends.


class Reports:
    """A source of reports of trace events."""

    is_reading = True
    has_senders = False

    def __init__(self) -> None:
        self.finished: list[Finished] = []
        self.senders: dict[int, list[Sender]] = {}

    def senders_of(self, port: int) -> list[Sender]:
        return self.senders.get(port, [])

    def forget_senders(self, port: int, processes: Collection[ProcessId]) -> None:
        left = [one for one in self.senders_of(port) if one.process not in processes]
        self.senders[port] = left

    def take(self) -> ConnectionReport:
        taken, self.finished = self.finished, []
        return ConnectionReport((), taken, 0)


def text_row(inode: int, port: int = 4000, state: str = "ESTABLISHED") -> Socket:
    remote = (None, None) if state == "LISTEN" else (ADDRESS, port)
    return Socket(inode, "tcp", "inet", None, state, ADDRESS, 80, *remote)


def finished(cookie: int = 1, port: int = 4000, pid: int | None = None) -> Finished:
    local = bytes(10) + b"\xff\xff" + socket.inet_aton(ADDRESS)
    task = None if pid is None else Task(pid)
    role = LISTENER if port == 0 else SERVER
    remote = bytes(16) if port == 0 else local
    return Finished(cookie, Endpoints(2, local, 80, remote, port), role, task, None, 1, 2, False)


class TextTables:
    """Text tables of namespaces; process 100 + N is in namespace N."""

    def __init__(self) -> None:
        self.reports = Reports()
        self.ended = EndedSockets((), range(32768, 61000), self.reports)
        self.tables: dict[int, Table] = {}

    def read(self, netns: int, *rows: Socket) -> None:
        before = self.tables.get(netns, EMPTY)
        by_key = {str(row).encode(): row for row in rows}
        table = update_table(by_key, before, lambda new: ((key, by_key[key]) for key in new))
        self.ended.note(netns, "tcp", table, before)
        self.tables[netns] = table

    def end(self, *finished: Finished) -> tuple[dict[int, list[int]], int]:
        """Return the inodes of the rows that ended, by namespace, and the number of other ends."""
        self.reports.finished += finished
        ended, rows = self.ended.take(
            lambda netns, _group: self.tables[netns],
            lambda netns: netns,
            lambda task: task.pid - 100 if task.pid >= 100 else None,
            0.0,
        )
        listed = {netns: sorted(found) for netns, found in rows.items()}
        assert sorted(ended.listed) == sorted(inode for some in listed.values() for inode in some)
        return listed, len(ended.unlisted)


@pytest.fixture
def text() -> TextTables:
    return TextTables()


def test_a_connection_of_a_text_table_is_matched_by_its_ends(text: TextTables) -> None:
    text.read(5, text_row(11), text_row(12, 4001))
    assert text.end(finished()) == ({5: [11]}, 0)
    assert text.end(finished(2)) == ({}, 1)  # Another connection with these ends.
    assert text.end(finished(3, 4001, pid=105)) == ({5: [12]}, 0)


def test_the_same_ends_in_two_namespaces_are_told_apart_by_the_process(text: TextTables) -> None:
    text.read(5, text_row(11))
    text.read(6, text_row(12))
    assert text.end(finished(pid=106)) == ({6: [12]}, 0)
    assert text.end(finished(2, pid=106)) == ({}, 1)
    assert text.end(finished(3, pid=105)) == ({5: [11]}, 0)


def test_the_same_ends_in_two_namespaces_are_left_alone_without_a_process(text: TextTables) -> None:
    text.read(5, text_row(11))
    text.read(6, text_row(12))
    assert text.end(finished()) == ({}, 1)
    assert text.ended.find(None, finished().ends) is None
    assert text.ended.find(6, finished().ends) == (6, text_row(12))


def test_ends_that_are_used_again_are_of_the_later_connection(text: TextTables) -> None:
    text.read(5, text_row(11))
    assert text.end(finished(1)) == ({5: [11]}, 0)
    text.read(5, text_row(12))
    assert text.end() == ({}, 0)
    assert text.end(finished(2)) == ({5: [12]}, 0)


def test_of_two_connections_with_the_same_ends_the_later_one_is_kept(text: TextTables) -> None:
    """The end of the earlier one was lost."""
    text.read(5, text_row(11))
    text.read(5, text_row(12))
    assert text.end(finished(2)) == ({5: [12]}, 0)


def test_listeners_are_never_matched_by_their_ends(text: TextTables) -> None:
    """With SO_REUSEPORT several of them have the same ends."""
    listeners = [text_row(inode, state="LISTEN") for inode in (11, 12)]
    text.read(5, *listeners)
    assert text.end(finished(1, 0), finished(2, 0, pid=105)) == ({}, 0)
    assert text.ended.listener_inodes(text_row(13)) == [11, 12]


def test_rows_of_a_namespace_that_is_gone_are_not_matched(text: TextTables) -> None:
    text.read(5, text_row(11))
    text.read(6, text_row(12, 4001))
    text.ended.follow([6])
    assert text.end(finished(), finished(2, 4001)) == ({6: [12]}, 1)
