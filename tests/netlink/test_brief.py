"""What came and went is what no reading showed, and nothing else."""

import asyncio
import os
import socket
import time

import pytest

from agent.model import Socket
from agent.netlink.reader import NetlinkReader
from agent.procfs.reader import ProcFS
from agent.sources import Sources

WITHIN_SECONDS = 5.0


def connection() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname())
        return one, server.accept()[0]


def reset(*both: socket.socket) -> None:
    """End them without TIME_WAIT: the notices come at once."""
    for one in both:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        one.close()


async def told_until(sources: Sources, ports: set[int]) -> list[Socket]:
    """What came and went, until one of these ports did."""
    told: list[Socket] = []
    deadline = time.monotonic() + WITHIN_SECONDS
    while not ports.intersection(one.local_port or 0 for one in told):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        told += sources.brief()
    return told


@pytest.mark.parametrize("readings", [1, 2])
async def test_what_a_reading_showed_did_not_come_and_go(readings: int) -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    reader = NetlinkReader(procfs.own[0], hear=True)
    sources = Sources(procfs, reader)
    here = {procfs.own[0]: [os.getpid()]}
    seen = connection()
    ports = {one.getsockname()[1] for one in seen}
    try:
        for _ in range(readings):
            await sources.read(here, here)
        reset(*seen)
        unseen = connection()
        later = {one.getsockname()[1] for one in unseen}
        reset(*unseen)
        await sources.read(here, here)  # It shows neither.
        told = {one.local_port for one in await told_until(sources, later)}
    finally:
        await sources.read({}, [])
    assert not told & ports


async def test_a_link_that_broke_is_heard_anew() -> None:
    procfs = ProcFS("/proc")
    assert procfs.own
    own, pid = procfs.own
    reader = NetlinkReader(own, hear=True)
    sources = Sources(procfs, reader)
    await sources.read({own: [pid]}, [own])
    for due in ([own], []):  # Whether or not it is asked again at once.
        broken = reader.hearing(own)
        reader._drop(own)
        await sources.read({own: [pid]}, due)
        assert broken
        assert broken.fileno() == -1
        await sources.read({own: [pid]}, [own])
        unseen = connection()
        port = unseen[0].getsockname()[1]
        reset(*unseen)
        await told_until(sources, {port})
    await sources.read({}, [])
