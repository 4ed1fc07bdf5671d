"""What came and went is what no reading showed, and nothing else."""

import asyncio
import os
import socket
import time

import pytest

from agent.kernel.netlink.client import NetlinkClient
from agent.kernel.procfs.mount import ProcFS
from agent.model import Socket
from agent.snapshot.groups import ALL_GROUPS
from agent.snapshot.reading import Namespaces
from agent.snapshot.table_sources import sources_of
from agent.snapshot.tables import TableReader

WITHIN_SECONDS = 5.0
# An address of this process alone: ports recur on others.
ADDRESS = "127.98.{}.{}".format(*divmod(os.getpid() % 62_500, 250))


def connection() -> tuple[socket.socket, ...]:
    """Return both ends of a connection and the listener.

    The notice of a listener's end may come late: one that is closed here could end up among those
    that no reading showed.
    """
    server = socket.create_server((ADDRESS, 0))
    one = socket.create_connection(server.getsockname(), source_address=(ADDRESS, 0))
    return one, server.accept()[0], server


def reset(*opened: socket.socket) -> None:
    """End them without TIME_WAIT: the notices come at once."""
    for one in opened:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()


async def told_until(sources: TableReader, here: Namespaces, ports: set[int]) -> list[Socket]:
    """What came and went on ADDRESS, until one of these ports did."""
    told: list[Socket] = []
    deadline = time.monotonic() + WITHIN_SECONDS
    while not ports.intersection(one.local_port or 0 for one in told):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        unknown = sources.take_ended(here).unlisted
        told += [one for one in unknown if one.local_addr == ADDRESS]
    return told


@pytest.mark.parametrize("readings", [1, 2])
async def test_what_a_reading_showed_did_not_come_and_go(readings: int) -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    reader = NetlinkClient(procfs.own.netns, subscribe_destroy=True)
    sources = TableReader(procfs, *sources_of(procfs, reader))
    here = {procfs.own.netns: [os.getpid()]}
    everything = dict.fromkeys(here, ALL_GROUPS)
    seen = connection()
    ports = {one.getsockname()[1] for one in seen}
    try:
        for _ in range(readings):
            await sources.read(here, everything)
        reset(*seen)
        unseen = connection()
        later = {one.getsockname()[1] for one in unseen}
        reset(*unseen)
        await sources.read(here, everything)  # It shows neither.
        told = {one.local_port for one in await told_until(sources, here, later)}
    finally:
        sources.take_ended({})
    assert not told & ports


async def test_a_link_that_broke_is_heard_anew() -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    own, pid = procfs.own
    reader = NetlinkClient(own, subscribe_destroy=True)
    sources = TableReader(procfs, *sources_of(procfs, reader))
    here = {own: [pid]}
    everything = {own: ALL_GROUPS}
    await sources.read(here, everything)
    for due in (everything, {}):  # Whether or not it is asked again at once.
        broken = reader.destroy_socket(own)
        reader._drop(own)
        await sources.read(here, due)
        sources.take_ended(here)
        assert broken
        assert broken.fileno() == -1
        await sources.read(here, everything)
        unseen = connection()
        port = unseen[0].getsockname()[1]
        reset(*unseen)
        await told_until(sources, here, {port})
    sources.take_ended({})


async def test_what_ended_in_a_namespace_that_is_gone_is_reported_still() -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    client = NetlinkClient(procfs.own.netns, subscribe_destroy=True)
    sources = TableReader(procfs, *sources_of(procfs, client))
    here = {procfs.own.netns: [os.getpid()]}
    await sources.read(here, {procfs.own.netns: ALL_GROUPS})
    sources.take_ended(here)
    unseen = connection()
    ports = {one.getsockname()[1] for one in unseen}
    reset(*unseen)
    await asyncio.sleep(0.1)  # The kernel sends the notices a little later.
    ended = sources.take_ended({}).unlisted
    assert ports & {one.local_port for one in ended}


async def test_a_socket_that_a_reading_showed_leaves_with_the_notice_of_its_end() -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    client = NetlinkClient(procfs.own.netns, subscribe_destroy=True)
    sources = TableReader(procfs, *sources_of(procfs, client))
    here = {procfs.own.netns: [os.getpid()]}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        inode = os.fstat(opened.fileno()).st_ino
        await sources.read(here, {procfs.own.netns: ALL_GROUPS})
        assert inode in sources.sockets
        port = opened.getsockname()[1]
    ended: dict[int, Socket] = {}
    deadline = time.monotonic() + WITHIN_SECONDS
    while inode not in ended:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        ended |= sources.take_ended(here).listed
    assert ended[inode].local_port == port
    assert inode not in sources.sockets
    reading = await sources.read(here, {procfs.own.netns: ALL_GROUPS})
    assert inode not in reading.change.gone
    sources.take_ended({})
