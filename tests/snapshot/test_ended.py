"""Short-lived sockets are those that no reading of the tables showed."""

import asyncio
import os
import socket
import time

import pytest

from agent.kernel.netlink.client import NetlinkClient
from agent.kernel.procfs.mount import ProcFS
from agent.model import Socket
from agent.snapshot.reading import ALL_GROUPS, Namespaces
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
    ended: dict[int, Socket] = {}
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while inode not in ended:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        listed = tables.take_ended(namespaces).listed
        ended |= {at: one.socket for at, one in listed.items()}
    assert ended[inode].local_port == port
    assert inode not in tables.sockets
    reading = await tables.read(namespaces, everything)
    assert inode not in reading.change.gone
    tables.take_ended({})
