import os
import time

import pytest

from agent.kernel.procfs.forked_scan import ForkedScan, SocketHolder, scan_batch
from agent.kernel.procfs.scanner import ProcessScanner

from ...fakeproc import NETNS, FakeProc

# What is forked here uses no other thread's locks.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def walked(walk: ForkedScan) -> tuple[list[SocketHolder], dict[int, str]]:
    looks: list[SocketHolder] = []
    failed: dict[int, str] = {}
    while (batch := walk.next_batch()) is not None:
        looks += batch.holders
        failed |= batch.failed
    return looks, failed


def pid_of(look: SocketHolder) -> int:
    return look[0].pid


def test_it_shows_what_a_walk_here_shows(fake: FakeProc) -> None:
    for pid in range(100, 200):
        fake.process(pid, {3: pid, 4: 5000}, comm=f"näme) {pid}", start=pid)
    walker = fake.scanner()
    looks, failed = walked(ForkedScan(lambda: walker))
    assert sorted(looks, key=pid_of) == sorted(
        scan_batch(walker.scan(walker.procfs.pids())).holders, key=pid_of
    )
    assert failed == {}


def test_namespaces_come_by_their_names(fake: FakeProc) -> None:
    fake.process(7, nameable=False)  # In the namespace of process 1, which tells its name.
    looks, _failed = walked(ForkedScan(fake.scanner))
    assert {netns for _process, _held, _readable, netns, _directory in looks} == {NETNS}


def test_it_tells_why_looks_failed(fake: FakeProc) -> None:
    fake.process(7)
    fake.break_descriptors(7)
    looks, failed = walked(ForkedScan(fake.scanner))
    assert [pid_of(look) for look in looks] == [1]
    assert failed.keys() == {7}


def test_without_a_procfs_it_shows_nothing(fake: FakeProc) -> None:
    walker = fake.scanner()
    fake.end(1)
    assert walked(ForkedScan(lambda: walker)) == ([], {})


def test_a_child_that_is_stopped_ends(fake: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessScanner, "scan", lambda *_: time.sleep(600))
    walk = ForkedScan(fake.scanner)
    walk.stop()
    assert walk.next_batch() is None
    walk.stop()  # Once it ended its pid may be another's.


def test_it_leaves_no_descriptor_and_no_zombie(fake: FakeProc) -> None:
    before = len(os.listdir("/proc/self/fd"))
    walked(ForkedScan(fake.scanner))
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_is_found_is_the_descriptors_by_socket(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 5: 11, 4: 12, 6: "/dev/null"})
    walker = fake.scanner()
    look = walker.scan_process(7)
    (found,) = scan_batch(walker.scan([7])).holders
    assert found == (look.process, {11: (3, 5), 12: (4,)}, True, look.netns, look.fd_dir_inode)
