"""Checks of processes whose descriptors were read before."""

import os
import resource
import subprocess
import sys
from collections.abc import Collection, Iterator

import pytest

from agent.kernel.procfs import scanner as scanner_module
from agent.kernel.procfs.fd import recheck_fds
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scan import FdCheck, FdCheckResult, ProcessScan
from agent.kernel.procfs.scanner import ProcessScanner

from ...fakeproc import FakeProc
from ...unprivileged import as_nobody
from .test_kcmp import thread_with, unshared

OWN_PID = os.getpid()
COUNTED = os.stat("/proc/self/fd").st_size > 0
needs_counts = pytest.mark.skipif(
    not COUNTED, reason="the size of fd/ is the number of descriptors since Linux 6.2"
)


@pytest.fixture
def scanner() -> ProcessScanner:
    return ProcessScanner(ProcFS())


def again(
    scan: ProcessScan, fds_to_read: Collection[int] = (), *, with_facts: bool = False
) -> FdCheck:
    """Return a check of the process that was scanned."""
    return FdCheck(scan.process.pid, scan.fd_dir_inode, dict(scan.fds), fds_to_read, with_facts)


def check(scanner: ProcessScanner, request: FdCheck) -> FdCheckResult:
    results, failed = scanner.check([request])
    assert failed == []
    return results[0]


def test_unchanged_descriptors_are_not_returned(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: "pipe:[5]"})
    scanner = fake.scanner()
    found = check(scanner, again(scanner.scan_process(7), [3, 4]))
    assert (found.pid, found.changes, found.process, found.netns) == (7, {}, None, None)
    assert found.reads == 2


def test_a_closed_descriptor(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: 12})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    fake.close(7, 3)
    assert check(scanner, again(scan, [3])).changes == {3: None}


def test_a_descriptor_with_another_socket(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    fake.close(7, 3)
    fake.hold(7, {3: 12})
    assert check(scanner, again(scan, [3])).changes == {3: 12}


def test_a_descriptor_that_is_no_longer_a_socket(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    fake.close(7, 3)
    fake.hold(7, {3: "/dev/null"})
    assert check(scanner, again(scan, [3])).changes == {3: 0}


def test_only_requested_and_new_descriptors_are_read(fake: FakeProc) -> None:
    fake.process(7, {fd: fd for fd in range(100)})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    fake.hold(7, {200: 200})
    found = check(scanner, again(scan, [5]))
    assert (found.changes, found.reads) == ({200: 200}, 2)


def test_a_close_is_found_without_a_request(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: 12})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    fake.close(7, 4)
    assert check(scanner, again(scan)).changes == {4: None}


def test_an_unknown_descriptor_that_is_closed_is_not_a_change(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    scanner = fake.scanner()
    assert check(scanner, again(scanner.scan_process(7), [9])).changes == {}


def test_facts_are_read_on_request(fake: FakeProc) -> None:
    directory = fake.process(7, {3: 11})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    (directory / "cgroup").write_text("0::/system.slice/moved.service\n")
    found = check(scanner, again(scan, with_facts=True))
    assert found.process == scan.process._replace(
        cgroup="/system.slice/moved.service", unit="moved.service"
    )
    assert (found.netns, found.fingerprint) == (scan.netns, scan.fingerprint)


# Processes that need a scan.


def test_a_process_that_has_ended_fails(fake: FakeProc) -> None:
    fake.process(7)
    fake.process(8, {3: 11})
    scanner = fake.scanner()
    checks = [again(scanner.scan_process(pid)) for pid in (7, 8)]
    fake.end(7)
    results, failed = scanner.check(checks)
    assert ([result.pid for result in results], failed) == ([8], [7])


def test_a_reused_pid_fails(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    scanner = fake.scanner()
    scan = scanner.scan_process(7)
    fake.end(7)
    fake.process(7, {3: 11})
    assert scanner.check([again(scan, [3])]) == ([], [7])


def test_a_process_that_may_no_longer_be_read_fails(open_fake: FakeProc) -> None:
    directory = open_fake.process(7, {3: 11})
    scan = open_fake.scanner().scan_process(7)
    (directory / "fd").chmod(0)
    assert as_nobody(lambda: open_fake.scanner().check([again(scan, [3])])) == ([], [7])


def test_a_zombie_fails(scanner: ProcessScanner) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        scan = scanner.scan_process(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert scanner.check([again(scan, with_facts=True)]) == ([], [child.pid])
        # Exit closed its descriptors: the process itself did not.
        assert scanner.check([again(scan, scan.fds)]) == ([], [child.pid])


def test_a_thread_with_a_descriptor_table_of_its_own_needs_a_scan(scanner: ProcessScanner) -> None:
    scan = scanner.scan_process(OWN_PID)
    with thread_with(unshared):
        assert scanner.check([again(scan, with_facts=True)]) == ([], [OWN_PID])


# New ones among many descriptors are found by trying the lowest free numbers.

_MANY = """
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, (1400, 1400))
null = os.open("/dev/null", 0)
many = [os.dup(null) for _ in range(1100)]
print(flush=True)
for line in sys.stdin:
    exec(line)
    print(flush=True)
"""


class Many:
    """A process with so many descriptors that they are not listed, all on one file."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.pid = child.pid
        self._child = child

    def do(self, line: str = "") -> None:
        assert self._child.stdin
        assert self._child.stdout
        if line:
            print(line, file=self._child.stdin, flush=True)
        assert self._child.stdout.readline() == "\n"

    def inode(self, fd: int) -> int:
        return os.stat(f"/proc/{self.pid}/fd/{fd}").st_ino


@pytest.fixture
def many() -> Iterator[Many]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard != resource.RLIM_INFINITY and hard < 1400:
        pytest.skip("RLIMIT_NOFILE is below 1400")
    with subprocess.Popen(
        [sys.executable, "-c", _MANY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        process = Many(child)
        process.do()
        yield process


@needs_counts
def test_a_new_descriptor_among_many_is_found_with_few_reads(
    scanner: ProcessScanner, many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scanner.scan_process(many.pid)
    many.do("new = socket.socket()")
    with monkeypatch.context() as patch:
        patch.delattr(os, "listdir")  # The directory is not listed.
        found = check(scanner, again(scan))
    (fd,) = found.changes
    assert fd not in scan.fds
    assert found.changes == {fd: many.inode(fd)}
    assert found.reads < 20


@needs_counts
def test_one_closed_and_two_opened_among_many(scanner: ProcessScanner, many: Many) -> None:
    scan = scanner.scan_process(many.pid)
    many.do("os.close(500); one = socket.socket(); two = socket.socket()")
    found = check(scanner, again(scan, [500]))
    assert len(found.changes) == 2
    assert found.changes == {fd: many.inode(fd) for fd in found.changes}
    assert 500 in found.changes
    assert found.reads < 20


@needs_counts
def test_one_closed_without_a_request_among_many(scanner: ProcessScanner, many: Many) -> None:
    scan = scanner.scan_process(many.pid)
    many.do("os.close(500)")
    assert check(scanner, again(scan)).changes == {500: None}


@needs_counts
def test_a_high_descriptor_among_many_is_found_by_listing(
    scanner: ProcessScanner, many: Many
) -> None:
    many.do("[os.close(fd) for fd in many[::50]]")  # Free numbers that are tried without success.
    scan = scanner.scan_process(many.pid)
    many.do("one = socket.socket(); os.dup2(one.fileno(), 1300)")
    found = check(scanner, again(scan)).changes
    assert len(found) == 2
    assert set(found.values()) == {many.inode(1300)}
    assert 1300 in found


def test_without_a_count_many_descriptors_are_listed(
    scanner: ProcessScanner, many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = scanner.scan_process(many.pid)
    monkeypatch.setattr(
        scanner_module,
        "recheck_fds",
        lambda listing, fds, fds_to_read, _count: recheck_fds(listing, fds, fds_to_read, 0),
    )
    many.do("os.close(500); os.close(501); one = socket.socket()")
    assert check(scanner, again(scan)).changes == {
        501: None
    }  # A check without requests does not find that 500 is another.
    assert check(scanner, again(scan, [500])).changes == {500: many.inode(500), 501: None}
