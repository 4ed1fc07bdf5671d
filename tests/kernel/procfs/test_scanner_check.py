"""What is looked at again in a process that was looked at before."""

import os
import resource
import subprocess
import sys
from collections.abc import Collection, Iterator

import pytest

from agent.kernel.procfs import scanner as walker_module
from agent.kernel.procfs.fd import recheck_fds
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scan import FdCheck, FdCheckResult, ProcessScan
from agent.kernel.procfs.scanner import ProcessScanner

from ...fakeproc import FakeProc
from ...unprivileged import as_nobody
from .test_kcmp import thread_with, unshared

US = os.getpid()
COUNTED = os.stat("/proc/self/fd").st_size > 0
needs_counts = pytest.mark.skipif(not COUNTED, reason="since Linux 6.2 the size of fd/ counts")


@pytest.fixture
def walker() -> ProcessScanner:
    return ProcessScanner(ProcFS())


def again(look: ProcessScan, fds_of: Collection[int] = (), *, facts: bool = False) -> FdCheck:
    return FdCheck(look.process.pid, look.fd_dir_inode, dict(look.fds), fds_of, facts)


def check(walker: ProcessScanner, wanted: FdCheck) -> FdCheckResult:
    checked, lost = walker.check([wanted])
    assert lost == []
    return checked[0]


def test_what_is_as_it_was_is_not_told(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: "pipe:[5]"})
    walker = fake.scanner()
    found = check(walker, again(walker.scan_process(7), [3, 4]))
    assert (found.pid, found.changes, found.process, found.netns) == (7, {}, None, None)
    assert found.reads == 2


def test_a_suspect_that_is_closed(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: 12})
    walker = fake.scanner()
    look = walker.scan_process(7)
    fake.close(7, 3)
    assert check(walker, again(look, [3])).changes == {3: None}


def test_a_suspect_that_leads_to_another_socket(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    walker = fake.scanner()
    look = walker.scan_process(7)
    fake.close(7, 3)
    fake.hold(7, {3: 12})
    assert check(walker, again(look, [3])).changes == {3: 12}


def test_a_suspect_that_is_no_socket_any_longer(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    walker = fake.scanner()
    look = walker.scan_process(7)
    fake.close(7, 3)
    fake.hold(7, {3: "/dev/null"})
    assert check(walker, again(look, [3])).changes == {3: 0}


def test_only_suspects_and_what_is_new_are_read(fake: FakeProc) -> None:
    fake.process(7, {fd: fd for fd in range(100)})
    walker = fake.scanner()
    look = walker.scan_process(7)
    fake.hold(7, {200: 200})
    found = check(walker, again(look, [5]))
    assert (found.changes, found.reads) == ({200: 200}, 2)


def test_a_list_shows_what_was_closed_without_suspicion(fake: FakeProc) -> None:
    fake.process(7, {3: 11, 4: 12})
    walker = fake.scanner()
    look = walker.scan_process(7)
    fake.close(7, 4)
    assert check(walker, again(look)).changes == {4: None}


def test_a_suspect_that_never_was_known_and_is_closed_is_no_change(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    walker = fake.scanner()
    assert check(walker, again(walker.scan_process(7), [9])).changes == {}


def test_facts_are_read_only_if_asked_for(fake: FakeProc) -> None:
    directory = fake.process(7, {3: 11})
    walker = fake.scanner()
    look = walker.scan_process(7)
    (directory / "cgroup").write_text("0::/system.slice/moved.service\n")
    found = check(walker, again(look, facts=True))
    assert found.process == look.process._replace(
        cgroup="/system.slice/moved.service", unit="moved.service"
    )
    assert (found.netns, found.fingerprint) == (look.netns, look.fingerprint)


# What cannot be checked.


def test_a_process_that_is_gone_is_lost(fake: FakeProc) -> None:
    fake.process(7)
    fake.process(8, {3: 11})
    walker = fake.scanner()
    checks = [again(walker.scan_process(pid)) for pid in (7, 8)]
    fake.end(7)
    checked, lost = walker.check(checks)
    assert ([one.pid for one in checked], lost) == ([8], [7])


def test_a_reused_pid_is_lost(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    walker = fake.scanner()
    look = walker.scan_process(7)
    fake.end(7)
    fake.process(7, {3: 11})
    assert walker.check([again(look, [3])]) == ([], [7])


def test_a_process_that_may_not_be_read_any_longer_is_lost(open_fake: FakeProc) -> None:
    directory = open_fake.process(7, {3: 11})
    look = open_fake.scanner().scan_process(7)
    (directory / "fd").chmod(0)
    assert as_nobody(lambda: open_fake.scanner().check([again(look, [3])])) == ([], [7])


def test_a_zombie_is_lost(walker: ProcessScanner) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        look = walker.scan_process(child.pid)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert walker.check([again(look, facts=True)]) == ([], [child.pid])
        # What it held it did not close.
        assert walker.check([again(look, look.fds)]) == ([], [child.pid])


def test_a_thread_with_its_own_table_calls_for_a_whole_look(walker: ProcessScanner) -> None:
    look = walker.scan_process(US)
    with thread_with(unshared):
        assert walker.check([again(look, facts=True)]) == ([], [US])


# Of many descriptors the new ones are guessed.

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
    """A process with more descriptors than are listed, all on one file."""

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
        pytest.skip("so many files may not be opened")
    with subprocess.Popen(
        [sys.executable, "-c", _MANY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        process = Many(child)
        process.do()
        yield process


@needs_counts
def test_a_new_one_among_many_is_found_with_a_few_reads(
    walker: ProcessScanner, many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = walker.scan_process(many.pid)
    many.do("new = socket.socket()")
    with monkeypatch.context() as patch:
        patch.delattr(os, "listdir")  # They are not listed.
        found = check(walker, again(look))
    (fd,) = found.changes
    assert fd not in look.fds
    assert found.changes == {fd: many.inode(fd)}
    assert found.reads < 20


@needs_counts
def test_one_closed_and_two_opened_among_many(walker: ProcessScanner, many: Many) -> None:
    look = walker.scan_process(many.pid)
    many.do("os.close(500); one = socket.socket(); two = socket.socket()")
    found = check(walker, again(look, [500]))
    assert len(found.changes) == 2
    assert found.changes == {fd: many.inode(fd) for fd in found.changes}
    assert 500 in found.changes
    assert found.reads < 20


@needs_counts
def test_one_closed_unsuspected_among_many(walker: ProcessScanner, many: Many) -> None:
    look = walker.scan_process(many.pid)
    many.do("os.close(500)")
    assert check(walker, again(look)).changes == {500: None}


@needs_counts
def test_a_high_number_among_many_is_found_in_the_list(walker: ProcessScanner, many: Many) -> None:
    many.do("[os.close(fd) for fd in many[::50]]")  # Free numbers that are guessed in vain.
    look = walker.scan_process(many.pid)
    many.do("one = socket.socket(); os.dup2(one.fileno(), 1300)")
    found = check(walker, again(look)).changes
    assert len(found) == 2
    assert set(found.values()) == {many.inode(1300)}
    assert 1300 in found


def test_of_many_that_the_kernel_does_not_count_all_are_listed(
    walker: ProcessScanner, many: Many, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = walker.scan_process(many.pid)
    monkeypatch.setattr(
        walker_module,
        "recheck_fds",
        lambda fd, fds, fds_of, _count: recheck_fds(fd, fds, fds_of, 0),
    )
    many.do("os.close(500); os.close(501); one = socket.socket()")
    assert check(walker, again(look)).changes == {501: None}  # That 500 is another is not seen.
    assert check(walker, again(look, [500])).changes == {500: many.inode(500), 501: None}
