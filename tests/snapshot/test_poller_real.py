"""Polls of this machine, for tests that need real processes and namespaces."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent.kernel.netlink.client import NetlinkClient
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scanner import ProcessScanner
from agent.model import Coverage, Holding
from agent.snapshot.oneshot import take_snapshot
from agent.snapshot.poller import Poller
from agent.snapshot.table_sources import sources_of

from ..child import Child, child_process
from ..unshared import need_root

THREAD = """
def run():
    libc.unshare(0x40000000)  # CLONE_NEWNET: the other threads stay in their namespace.
    held.append(socket.create_server(("0.0.0.0", 4711)))
    gone.set()
    threading.Event().wait()
"""


@contextmanager
def polling(source: str) -> Iterator[Poller]:
    """Return a poller of this machine."""
    procfs = ProcFS()
    assert procfs.own
    netlink = (
        NetlinkClient(procfs.own.netns, subscribe_destroy=True, max_namespaces=5000)
        if source == "netlink"
        else None
    )
    poller = Poller(ProcessScanner(procfs), *sources_of(procfs, netlink))
    try:
        yield poller
    finally:
        poller.tables.take_ended({})


def listen_in_a_thread_of_another_namespace(there: Child) -> int:
    """Open a listener in a thread with its own namespace; return the inode of the listener."""
    there("held = []; gone = threading.Event()")
    there(f"exec({THREAD!r})")
    there("threading.Thread(target=run, daemon=True).start(); gone.wait()")
    return int(there("print(os.fstat(held[0].fileno()).st_ino)"))


@pytest.mark.parametrize("source", ["netlink", "procfs"])
async def test_a_listener_in_a_namespace_of_a_single_thread_has_its_address(source: str) -> None:
    need_root()
    with polling(source) as poller:
        await poller.poll()
        with child_process() as there:
            inode = listen_in_a_thread_of_another_namespace(there)
            for _ in range(3):
                holdings = (await poller.poll()).holdings
            socket = holdings[there.pid, inode].socket
            assert (socket.state, socket.local_port, socket.source) == ("LISTEN", 4711, source)
            assert socket.netns != os.stat("/proc/self/ns/net").st_ino
        for _ in range(2):
            assert (there.pid, inode) not in (await poller.poll()).holdings


async def test_a_snapshot_has_the_address_of_a_listener_in_a_namespace_of_a_single_thread() -> None:
    need_root()
    found: list[Holding] = []
    with child_process() as there, polling("netlink") as poller:
        inode = listen_in_a_thread_of_another_namespace(there)
        async for part in take_snapshot(poller, None):
            if not isinstance(part, Coverage):
                found += [one for one in part if one.socket.inode == inode]
    assert [(one.socket.state, one.socket.local_port) for one in found] == [("LISTEN", 4711)]


BRIEF_THREAD = """
def run():
    libc.unshare(0x40000000)  # CLONE_NEWNET
    held.append(socket.create_server(("0.0.0.0", 4711)))
    held.append(socket.socket(socket.AF_UNIX))
    held[1].bind(b"\\0" + b"%d" % os.getpid())
    gone.set()
    go.wait()
"""


@pytest.mark.parametrize("source", ["netlink", "procfs"])
async def test_a_namespace_is_dropped_when_the_only_thread_in_it_has_ended(source: str) -> None:
    need_root()
    with polling(source) as poller:
        await poller.poll()
        with child_process() as there:
            there("held = []; gone = threading.Event(); go = threading.Event()")
            there(f"exec({BRIEF_THREAD!r})")
            there("thread = threading.Thread(target=run, daemon=True); thread.start(); gone.wait()")
            inodes = {int(there(f"print(os.fstat(held[{at}].fileno()).st_ino)")) for at in range(2)}
            for _ in range(3):
                holdings = (await poller.poll()).holdings
            assert {holdings[there.pid, inode].socket.state for inode in inodes} == {
                "LISTEN", "UNCONNECTED"
            }  # fmt: skip
            netns = {holdings[there.pid, inode].socket.netns for inode in inodes}
            there("go.set(); thread.join()")
            await poller.poll()
            there("[one.close() for one in held]")
            for _ in range(3):
                snapshot = await poller.poll()
            assert {key for key in snapshot.holdings if key[1] in inodes} == set()
            assert not netns & {key[0] for key, _table in poller.tables._tables.items()}
