"""One snapshot and no more."""

import asyncio
import os
from collections.abc import Iterable

import pytest

from agent.kernel.procfs.forked_scan import ForkedScan
from agent.model import Coverage, Holding
from agent.snapshot.oneshot import take_snapshot
from agent.snapshot.poller import Poller
from agent.snapshot.table_sources import sources_of

from ..fakeproc import TIME_WAIT, FakeProc, inet_row, unix_row
from .test_tables import Answers

PEER = "0100007F:9C40"


async def once(
    poller: Poller, walk: ForkedScan | None = None, *, unowned: bool = False
) -> list[Holding]:
    found: list[Holding] = []
    async for part in take_snapshot(poller, walk, include_unowned=unowned):
        found += () if isinstance(part, Coverage) else part
    return found


def busy(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: 12})
    fake.process(8, {3: 11, 5: 13}, netns=5)
    fake.table("tcp", inet_row(11), inet_row(14), inet_row(0, remote=PEER, state=TIME_WAIT))
    fake.table("unix", unix_row(12, "/run/x"))
    fake.table("tcp", inet_row(13), netns=5)


async def test_one_snapshot_is_what_a_poll_shows(fake: FakeProc) -> None:
    busy(fake)
    (fake.root / "self").symlink_to("7")
    polled = await fake.poller().poll()
    found = await once(fake.poller())
    assert sorted(map(repr, found)) == sorted(map(repr, polled.holdings.values()))
    parts = [part async for part in take_snapshot(fake.poller(), None)]
    assert parts[-1] == polled.coverage


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_one_snapshot_with_a_forked_walk_is_the_same(fake: FakeProc) -> None:
    busy(fake)
    (fake.root / "self").symlink_to("7")
    walk = ForkedScan(fake.scanner)
    forked = asyncio.run(once(fake.poller(), walk))
    assert sorted(map(repr, forked)) == sorted(map(repr, asyncio.run(once(fake.poller()))))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_whom_a_killed_walk_left_out_is_walked_here(fake: FakeProc) -> None:
    busy(fake)
    stat = fake.root / "1" / "stat"
    stat.rename(stat.with_name("stat.kept"))
    os.mkfifo(stat)  # The forked walk waits here.
    walk = ForkedScan(fake.scanner)
    walk.stop()
    stat.unlink()
    stat.with_name("stat.kept").rename(stat)
    found = asyncio.run(once(fake.poller(), walk))
    assert sorted(map(repr, found)) == sorted(map(repr, asyncio.run(once(fake.poller()))))


async def test_of_many_descriptors_a_snapshot_lists_what_a_poll_lists(fake: FakeProc) -> None:
    busy(fake)
    (fake.root / "self").symlink_to("7")
    fake.hold(7, dict.fromkeys(range(100, 200), 11))
    polled = await fake.poller().poll()
    (one,) = (one for one in await once(fake.poller()) if one.omitted_fds)
    assert one == polled.holdings[7, 11]
    assert (len(one.fds), len(one.fds) + one.omitted_fds) == (64, 101)


async def test_rows_that_no_process_can_hold_are_shown_when_asked_for(fake: FakeProc) -> None:
    busy(fake)
    usual, more = await once(fake.poller()), await once(fake.poller(), unowned=True)
    assert [one.socket.state for one in more if one not in usual] == ["TIME_WAIT"]
    assert len(more) == len(usual) + 1


def told(found: Iterable[Holding]) -> set[Holding]:
    whole = list(found)
    assert len(set(whole)) == len(whole)  # Each of them once.
    return set(whole)


def nowhere(found: Iterable[Holding]) -> set[Holding]:
    """The same, whatever namespace they are of."""
    return {one._replace(socket=one.socket._replace(netns=None)) for one in told(found)}


def paired(fake: FakeProc) -> Poller:
    """Unix sockets with their peers, over netlink; and what is in no table, or has no holder."""
    netlink = Answers(unix=["31/32", "32/31", "33/34", "34/33", "35/99", "36", "37/38", "38/37"])
    walker = fake.scanner()
    sources = sources_of(walker.procfs, netlink.reader())
    return Poller(walker, *sources, clock=lambda: 1_700_000_100.0)


def pair(fake: FakeProc) -> None:
    busy(fake)
    fake.hold(7, {10: 31, 11: 33, 12: 34, 13: 35})
    fake.hold(8, {10: 32, 11: 36, 12: 77})
    fake.hold(1, {10: 38, 11: 88})
    (fake.root / "self").symlink_to("7")


async def test_with_peers_one_snapshot_is_what_a_poll_shows(fake: FakeProc) -> None:
    pair(fake)
    polled = await paired(fake).poll()
    # Each namespace answers alike here, so that which of them is asked last decides.
    assert nowhere(await once(paired(fake))) == nowhere(polled.holdings.values())
    peers = {at: one.peer_pid for at, one in polled.holdings.items() if one.socket.peer_inode}
    assert peers == {
        (7, 31): 8, (8, 32): 7, (7, 33): 7, (7, 34): 7, (7, 35): None, (None, 37): 1, (1, 38): None
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_with_peers_a_forked_walk_shows_the_same(fake: FakeProc) -> None:
    pair(fake)
    walk = ForkedScan(fake.scanner)
    forked = asyncio.run(once(paired(fake), walk))
    assert told(forked) == told(asyncio.run(once(paired(fake))))


async def test_of_a_socket_that_several_hold_one_of_them_is_the_peer(fake: FakeProc) -> None:
    pair(fake)
    fake.process(9, {3: 32})
    for found in (await once(paired(fake)), (await paired(fake).poll()).holdings.values()):
        assert {one.peer_pid for one in found if one.socket.inode == 31} <= {8, 9}


async def test_without_a_procfs_there_is_no_snapshot(fake: FakeProc) -> None:
    poller = fake.poller()
    fake.root.rename(fake.root.with_name("away"))
    with pytest.raises(OSError):
        await once(poller)
