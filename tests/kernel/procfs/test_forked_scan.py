import os
import time

import psutil
import pytest

from agent.kernel.procfs.forked_scan import ForkedScan, SocketHolder, scan_batch
from agent.kernel.procfs.scanner import ProcessScanner

from ...fakeproc import NETNS, FakeProc

# The child does not use locks of other threads.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


def read_all(scan: ForkedScan) -> tuple[list[SocketHolder], dict[int, str]]:
    holders: list[SocketHolder] = []
    failed: dict[int, str] = {}
    while (batch := scan.next_batch()) is not None:
        holders += batch.holders
        failed |= batch.failed
    return holders, failed


def pid_of(holder: SocketHolder) -> int:
    return holder.process.pid


def test_a_forked_scan_equals_a_scan_in_this_process(fake: FakeProc) -> None:
    for pid in range(100, 200):
        fake.process(pid, {3: pid, 4: 5000}, comm=f"näme) {pid}", start=pid)
    scanner = fake.scanner()
    holders, failed = read_all(ForkedScan(lambda: scanner))
    assert sorted(holders, key=pid_of) == sorted(
        scan_batch(scanner.scan(scanner.procfs.pids())).holders, key=pid_of
    )
    assert failed == {}


def test_namespaces_are_resolved_to_their_inodes(fake: FakeProc) -> None:
    fake.process(7, nameable=False)  # In the namespace of process 1, whose link may be read.
    holders, _failed = read_all(ForkedScan(fake.scanner))
    assert {holder.netns for holder in holders} == {NETNS}


def test_failures_are_passed_on(fake: FakeProc) -> None:
    fake.process(7)
    fake.break_descriptors(7)
    holders, failed = read_all(ForkedScan(fake.scanner))
    assert [pid_of(holder) for holder in holders] == [1]
    assert failed.keys() == {7}


def test_without_a_procfs_there_is_no_batch(fake: FakeProc) -> None:
    scanner = fake.scanner()
    fake.end(1)
    assert read_all(ForkedScan(lambda: scanner)) == ([], {})


def test_stop_kills_the_child(fake: FakeProc, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ProcessScanner, "scan", lambda *_: time.sleep(600))
    scan = ForkedScan(fake.scanner)
    scan.stop()
    assert scan.next_batch() is None
    scan.stop()  # Its pid may belong to another process by now.


def test_it_leaves_no_descriptor_and_no_zombie(fake: FakeProc) -> None:
    descriptors, children = len(os.listdir("/proc/self/fd")), psutil.Process().children()
    read_all(ForkedScan(fake.scanner))
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert psutil.Process().children() == children


def test_a_batch_has_the_descriptors_by_socket(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 5: 11, 4: 12, 6: "/dev/null"})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    (found,) = scan_batch(scanner.scan([7])).holders
    assert found == (scan.process, {11: (3, 5), 12: (4,)}, True, scan.netns, scan.fd_dir_inode)
