"""One-shot snapshots."""

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
    poller: Poller, scan: ForkedScan | None = None, *, unowned: bool = False
) -> list[Holding]:
    found: list[Holding] = []
    async for part in take_snapshot(poller, scan, include_unowned=unowned):
        found += () if isinstance(part, Coverage) else part
    return found


def busy(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: 12})
    fake.process(8, {3: 11, 5: 13}, netns=5)
    fake.table("tcp", inet_row(11), inet_row(14), inet_row(0, remote=PEER, state=TIME_WAIT))
    fake.table("unix", unix_row(12, "/run/x"))
    fake.table("tcp", inet_row(13), netns=5)


async def test_a_snapshot_equals_a_poll(fake: FakeProc) -> None:
    busy(fake)
    (fake.root / "self").symlink_to("7")
    polled = await fake.poller().poll()
    found = await once(fake.poller())
    assert sorted(map(repr, found)) == sorted(map(repr, polled.holdings.values()))
    parts = [part async for part in take_snapshot(fake.poller(), None)]
    assert parts[-1] == polled.coverage


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_snapshot_with_a_forked_scan_equals_one_without(fake: FakeProc) -> None:
    busy(fake)
    (fake.root / "self").symlink_to("7")
    scan = ForkedScan(fake.scanner)
    forked = asyncio.run(once(fake.poller(), scan))
    assert sorted(map(repr, forked)) == sorted(map(repr, asyncio.run(once(fake.poller()))))


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_processes_that_a_killed_scan_left_out_are_scanned_by_the_parent(fake: FakeProc) -> None:
    busy(fake)
    stat = fake.root / "1" / "stat"
    stat.rename(stat.with_name("stat.kept"))
    os.mkfifo(stat)  # The forked scan blocks here.
    scan = ForkedScan(fake.scanner)
    scan.stop()
    stat.unlink()
    stat.with_name("stat.kept").rename(stat)
    found = asyncio.run(once(fake.poller(), scan))
    assert sorted(map(repr, found)) == sorted(map(repr, asyncio.run(once(fake.poller()))))


async def test_a_snapshot_lists_the_same_of_many_descriptors_as_a_poll(fake: FakeProc) -> None:
    busy(fake)
    (fake.root / "self").symlink_to("7")
    fake.hold(7, dict.fromkeys(range(100, 200), 11))
    polled = await fake.poller().poll()
    (one,) = (one for one in await once(fake.poller()) if one.omitted_fds)
    assert one == polled.holdings[7, 11]
    assert (len(one.fds), len(one.fds) + one.omitted_fds) == (64, 101)


async def test_rows_that_no_process_can_hold_are_included_on_request(fake: FakeProc) -> None:
    busy(fake)
    usual, more = await once(fake.poller()), await once(fake.poller(), unowned=True)
    assert [one.socket.state for one in more if one not in usual] == ["TIME_WAIT"]
    assert len(more) == len(usual) + 1


def as_set(found: Iterable[Holding]) -> set[Holding]:
    """Return the holdings as a set; fail if one occurs twice."""
    whole = list(found)
    assert len(set(whole)) == len(whole)
    return set(whole)


def without_netns(found: Iterable[Holding]) -> set[Holding]:
    """Return the holdings without the namespaces of their sockets."""
    return {one._replace(socket=one.socket._replace(netns=None)) for one in as_set(found)}


def paired(fake: FakeProc) -> Poller:
    """Return a poller that reads unix sockets with their peers over netlink.

    Some of the sockets are in no table, some have no holder.
    """
    netlink = Answers(unix=["31/32", "32/31", "33/34", "34/33", "35/99", "36", "37/38", "38/37"])
    scanner = fake.scanner()
    sources = sources_of(scanner.procfs, netlink.reader())
    return Poller(scanner, *sources, clock=lambda: 1_700_000_100.0)


def pair(fake: FakeProc) -> None:
    busy(fake)
    fake.hold(7, {10: 31, 11: 33, 12: 34, 13: 35})
    fake.hold(8, {10: 32, 11: 36, 12: 77})
    fake.hold(1, {10: 38, 11: 88})
    (fake.root / "self").symlink_to("7")


async def test_a_snapshot_with_peers_equals_a_poll(fake: FakeProc) -> None:
    pair(fake)
    polled = await paired(fake).poll()
    # All namespaces return the same sockets here, so that their netns depends on the order.
    assert without_netns(await once(paired(fake))) == without_netns(polled.holdings.values())
    peers = {at: one.peer_pid for at, one in polled.holdings.items() if one.socket.peer_inode}
    assert peers == {
        (7, 31): 8, (8, 32): 7, (7, 33): 7, (7, 34): 7, (7, 35): None, (None, 37): 1, (1, 38): None
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_snapshot_with_peers_and_a_forked_scan_equals_one_without(fake: FakeProc) -> None:
    pair(fake)
    scan = ForkedScan(fake.scanner)
    forked = asyncio.run(once(paired(fake), scan))
    assert as_set(forked) == as_set(asyncio.run(once(paired(fake))))


async def test_peer_pid_is_one_of_several_holders_of_the_other_end(fake: FakeProc) -> None:
    pair(fake)
    fake.process(9, {3: 32})
    for found in (await once(paired(fake)), (await paired(fake).poll()).holdings.values()):
        assert {one.peer_pid for one in found if one.socket.inode == 31} <= {8, 9}


async def test_without_a_procfs_a_snapshot_raises_oserror(fake: FakeProc) -> None:
    poller = fake.poller()
    fake.root.rename(fake.root.with_name("away"))
    with pytest.raises(OSError):
        await once(poller)
