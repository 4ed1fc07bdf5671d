import errno
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from agent.kernel.procfs import scanner as scanner_module
from agent.kernel.procfs.fd import read_fds
from agent.kernel.procfs.files import ProcessGone
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scan import FdCheck, FdSummary
from agent.kernel.procfs.scanner import ProcessScanner
from agent.kernel.procfs.stat import parse_stat
from agent.model import Process

from ...fakeproc import BOOT_TIME, FakeProc, stat_line
from ...unprivileged import as_nobody

TICKS = os.sysconf("SC_CLK_TCK")
OWN_PID = os.getpid()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.fixture
def scanner() -> ProcessScanner:
    return ProcessScanner(ProcFS())


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has three pipes open and waits."""
    with subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as started:
        assert started.stdout
        started.stdout.readline()
        yield started
        started.kill()


def inode_of(opened: socket.socket) -> int:
    return os.fstat(opened.fileno()).st_ino


# Scans.


def test_scan_of_a_process(fake: FakeProc) -> None:
    directory = fake.process(7, {3: 11, 5: "pipe:[12]", 6: 13}, comm="a) (b", ppid=2, start=500)
    scan = ProcessScanner(fake.procfs(), cmdline=True).scan_process(7)
    assert scan.fds == {3: 11, 5: 0, 6: 13}
    assert (scan.thread_fds, scan.readable) == ((), True)
    assert scan.fd_dir_inode == (directory / "fd").stat().st_ino
    assert scan.process == Process(
        pid=7,
        start_ticks=500,
        comm="a) (b",
        ppid=2,
        start_time=BOOT_TIME + 500 / TICKS,
        uid=os.geteuid(),
        exe="/usr/bin/a) (b",
        cgroup="/system.slice/app.service",
        unit="app.service",
        container=None,
        cmdline=("app",),
    )


def test_command_lines_are_not_read_by_default(fake: FakeProc) -> None:
    assert fake.scanner().scan_process(1).process.cmdline is None


def test_all_descriptors_on_a_socket_are_found(
    scanner: ProcessScanner, listener: socket.socket
) -> None:
    copies = [os.dup(listener.fileno()) for _ in range(3)]
    try:
        fds = scanner.scan_process(OWN_PID).fds
    finally:
        for copy in copies:
            os.close(copy)
    found = {fd for fd, inode in fds.items() if inode == inode_of(listener)}
    assert found == {listener.fileno(), *copies}


def test_a_real_process_has_the_start_time_of_its_stat(scanner: ProcessScanner) -> None:
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    found = scanner.scan_process(OWN_PID).process
    assert (found.start_ticks, found.comm) == (stat.start_ticks, stat.comm)
    assert found.exe == os.readlink("/proc/self/exe")


def test_the_start_time_is_between_two_readings_of_the_clock(scanner: ProcessScanner) -> None:
    before = time.time()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as started:
        after = time.time()
        start_time = scanner.scan_process(started.pid).process.start_time
    assert before - 1 / TICKS <= start_time <= after + 1 / TICKS


def test_names_that_are_not_utf8_are_escaped(fake: FakeProc) -> None:
    directory = fake.process(7)
    (directory / "exe").unlink()
    os.symlink(b"/bin/caf\xe9", bytes(directory / "exe"))
    line = stat_line(7, comm="?", ppid=1, start=1, threads=1, image=1).encode()
    (directory / "stat").write_bytes(line.replace(b"?", b"caf\xe9\n"))
    found = fake.scanner().scan_process(7).process
    assert (found.exe, found.comm) == ("/bin/caf\\xe9", "caf\\xe9\n")


def test_facts_that_may_not_be_read_are_unknown(fake: FakeProc) -> None:
    directory = fake.process(7)
    for name in ("exe", "cgroup"):
        (directory / name).unlink()
    found = fake.scanner().scan_process(7).process
    assert (found.exe, found.cgroup, found.unit) == (None, None, None)


def test_descriptors_that_may_not_be_read_make_a_scan_unreadable(open_fake: FakeProc) -> None:
    directory = open_fake.process(7, {3: 11}) / "fd"
    directory.chmod(0)
    scan = as_nobody(lambda: open_fake.scanner().scan_process(7))
    assert (scan.fds, scan.thread_fds, scan.readable) == ({}, (), False)
    assert scan.fd_dir_inode == directory.stat().st_ino


def test_a_process_whose_directory_may_not_be_opened_has_failed(open_fake: FakeProc) -> None:
    open_fake.process(7).chmod(0)
    result = as_nobody(lambda: open_fake.scanner().scan([1, 7]))
    assert [scan.process.pid for scan in result.scans] == [1]
    assert result.failed == {7: os.strerror(errno.EACCES)}


def test_a_process_of_another_user_shows_its_name() -> None:
    scan = as_nobody(lambda: ProcessScanner(ProcFS()).scan_process(1))
    assert scan.process.comm == parse_stat(Path("/proc/1/stat").read_bytes()).comm
    assert not scan.readable


# Processes that end, and malformed files.


def test_a_process_that_has_ended_raises_process_gone(fake: FakeProc) -> None:
    with pytest.raises(ProcessGone):
        fake.scanner().scan_process(7)


@pytest.mark.parametrize("name", ["stat", "fd"])
def test_a_process_that_ends_while_it_is_read_raises_process_gone(
    fake: FakeProc, name: str
) -> None:
    path = fake.process(7) / name
    path.rename(path.with_name("gone"))
    with pytest.raises(ProcessGone):
        fake.scanner().scan_process(7)


@pytest.mark.parametrize(
    "stat",
    [
        "",
        "7 (a",
        "7 (app) S 1 2 3",
        stat_line(7, comm="app", ppid=-1, start=1, threads=1, image=1),
        stat_line(7, comm="app", ppid=1, start=10**30, threads=1, image=1),
        stat_line(7, comm="app", ppid=1, start=-5, threads=1, image=1),
    ],
)
def test_a_process_with_a_malformed_stat_has_failed(fake: FakeProc, stat: str) -> None:
    (fake.process(7) / "stat").write_text(stat)
    assert fake.scanner().scan([7]) == ([], {7: "its stat is malformed"})


@pytest.mark.parametrize("name", ["9" * 20, "x", "-1", "1_", str(2**31)])
def test_a_malformed_descriptor_is_skipped_and_counted(fake: FakeProc, name: str) -> None:
    directory = fake.process(7, {3: 11})
    (directory / "fd" / name).symlink_to("socket:[12]")
    result = fake.scanner().scan([7])
    assert result.scans[0].fds == {3: 11}
    assert result.failed == {7: "1 malformed descriptors skipped"}


@pytest.mark.parametrize("target", ["socket:[abc]", "socket:[", "socket:[-1]", f"socket:[{2**63}]"])
def test_a_malformed_link_is_skipped_and_counted(fake: FakeProc, target: str) -> None:
    fake.process(7, {3: 11, 4: target})
    result = fake.scanner().scan([7])
    assert result.scans[0].fds == {3: 11}
    assert result.failed == {7: "1 malformed descriptors skipped"}


def test_a_fifo_in_place_of_a_file_does_not_block(fake: FakeProc) -> None:
    directory = fake.process(7)
    (directory / "stat").unlink()
    os.mkfifo(directory / "stat")
    assert fake.scanner().scan([7]).failed == {7: "its stat is malformed"}


LEADERLESS = """
import ctypes, socket, sys, threading
listener = socket.create_server(("127.0.0.1", 0))
print(listener.fileno(), flush=True)
threading.Thread(target=sys.stdin.read).start()
ctypes.CDLL(None).pthread_exit(None)
"""


def test_a_process_whose_main_thread_has_ended_is_scanned(scanner: ProcessScanner) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEADERLESS], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout
        fd = int(process.stdout.readline())
        stat = Path(f"/proc/{process.pid}/stat")
        for _ in range(2000):
            if parse_stat(stat.read_bytes()).state == "Z":
                break
            time.sleep(0.005)
        scan = scanner.scan_process(process.pid)
        assert scan.fds[fd] > 0
        assert scan.netns == scanner.scan_process(OWN_PID).netns
        assert scan.process.exe == os.readlink("/proc/self/exe")
        assert scan.process.pid == process.pid
        found = scanner.fingerprints([process.pid])[process.pid]
        assert found == scan.fingerprint
        # A check does not read the descriptors of its threads: it needs a scan each time.
        assert scanner.check([FdCheck(process.pid, scan.fd_dir_inode, scan.fds, ())])[1] == [
            process.pid
        ]
        texts = scanner.procfs.read_tables(scan.netns, [process.pid], ["tcp"]).texts
        assert texts is not None
        assert isinstance(texts["tcp"], bytes)
        process.communicate()
        assert scanner.scan([process.pid]) == ([], {})


EXITING = 0x40_0004  # PF_EXITING, and a flag without meaning here.


def exiting_line(pid: int, threads: int = 1) -> str:
    return stat_line(pid, comm="app", ppid=1, start=1, threads=threads, image=1, flags=EXITING)


def test_an_exiting_process_without_descriptors_is_gone(fake: FakeProc) -> None:
    (fake.process(7) / "stat").write_text(exiting_line(7))
    with pytest.raises(ProcessGone):
        fake.scanner().scan_process(7)


def test_a_living_thread_shows_the_descriptors_when_the_main_thread_exits(
    fake: FakeProc,
) -> None:
    directory = fake.process(7, threads=2)
    (directory / "stat").write_text(exiting_line(7, threads=2))
    (directory / "task/7/stat").write_text(exiting_line(7, threads=2))
    other = directory / "task" / "8"
    (other / "fd").mkdir(parents=True)
    (other / "fd" / "3").symlink_to("socket:[11]")
    (other / "net").symlink_to(directory / "net", target_is_directory=True)
    (other / "stat").write_text(stat_line(8, comm="app", ppid=1, start=1, threads=2, image=1))
    assert fake.scanner().scan_process(7).fds == {3: 11}
    (other / "stat").write_text(exiting_line(8, threads=2))
    with pytest.raises(ProcessGone):
        fake.scanner().scan_process(7)


LISTENERS = """
import os, resource, signal, socket
most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 20_000)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
held = []
try:
    while True:
        held.append(socket.create_server((f"127.0.{len(held) // 1000}.1", 0)))
except OSError:
    print(flush=True)
signal.pause()
"""


def test_a_killed_process_never_shows_only_some_of_its_descriptors(scanner: ProcessScanner) -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENERS], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        whole = scanner.scan_process(process.pid)
        again = FdCheck(process.pid, whole.fd_dir_inode, whole.fds, list(whole.fds)[:1])
        process.kill()  # It takes 100 ms to close the listeners.
        with suppress(ProcessGone):
            while True:
                results, _failed = scanner.check([again])
                assert [len(result.changes) for result in results] in ([], [0])
                assert len(scanner.scan_process(process.pid).fds) == len(whole.fds)


def test_a_zombie_is_gone(scanner: ProcessScanner) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert zombie.pid in scanner.procfs.pids()
        with pytest.raises(ProcessGone):
            scanner.scan_process(zombie.pid)
        assert scanner.scan([zombie.pid]) == ([], {})


def test_scan_leaves_out_processes_that_have_ended(fake: FakeProc) -> None:
    fake.process(7)
    result = fake.scanner().scan([1, 6, 7])
    assert [scan.process.pid for scan in result.scans] == [1, 7]
    assert result.failed == {}


def test_scan_returns_the_reasons_of_failures(fake: FakeProc) -> None:
    fake.process(7)
    fake.break_descriptors(7)
    result = fake.scanner().scan([1, 7])
    assert [scan.process.pid for scan in result.scans] == [1]
    assert result.failed == {7: os.strerror(errno.ELOOP)}


def test_a_scan_never_mixes_two_processes_with_one_pid(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake.process(7, {3: 11}, comm="old")

    def read_late(directory: int, name: str) -> tuple[dict[int, int], int]:
        old.rename(old.with_name("old"))
        fake.process(7, {3: 99}, comm="new", start=900)
        return read_fds(directory, name)

    monkeypatch.setattr(scanner_module, "read_fds", read_late)
    scan = fake.scanner().scan_process(7)
    assert (scan.process.start_ticks, scan.process.comm) == (100, "old")
    assert scan.fds == {3: 11}


def test_a_descriptor_that_closes_while_it_is_read_is_left_out(fake: FakeProc) -> None:
    directory = fake.process(7, {3: 11})
    (directory / "fd" / "4").write_text(
        ""
    )  # Not a link: reading it fails like that of a closed descriptor.
    assert fake.scanner().scan_process(7).fds == {3: 11}


# Summaries.


def test_a_summary_has_the_number_of_descriptors(
    scanner: ProcessScanner, listener: socket.socket
) -> None:
    before = scanner.summaries([OWN_PID])[OWN_PID]
    with socket.socket():
        after = scanner.summaries([OWN_PID])[OWN_PID]
    assert after == FdSummary(before.fd_dir_inode, before.fd_count + 1)
    assert scanner.summaries([OWN_PID])[OWN_PID] == before
    assert before.fd_dir_inode == scanner.scan_process(OWN_PID).fd_dir_inode


def test_a_summary_agrees_with_a_scan(
    scanner: ProcessScanner, child: subprocess.Popen[bytes]
) -> None:
    scan = scanner.scan_process(child.pid)
    assert scanner.summaries([child.pid]) == {
        child.pid: FdSummary(scan.fd_dir_inode, len(scan.fds))
    }


def test_a_summary_is_the_same_after_one_close_and_one_open(scanner: ProcessScanner) -> None:
    first = socket.socket()
    before = scanner.summaries([OWN_PID])
    first.close()
    with socket.socket():
        assert scanner.summaries([OWN_PID]) == before


def test_summaries_leave_out_processes_that_have_ended(fake: FakeProc) -> None:
    assert fake.scanner().summaries([1, 6]).keys() == {1}


def test_a_reused_pid_has_another_fd_dir_inode(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    scanner = fake.scanner()
    before = scanner.summaries([7])[7]
    fake.end(7)
    fake.process(7, {3: 11})
    after = scanner.summaries([7])[7]
    assert after.fd_count == before.fd_count
    assert after.fd_dir_inode != before.fd_dir_inode


def test_before_linux_6_2_descriptors_are_listed_to_count_them(fake: FakeProc) -> None:
    # Without ``self`` the scanner assumes that the size of PID/fd is not the number.
    fake.process(7, {3: 11, 4: "pipe:[5]"})
    assert fake.scanner().summaries([7])[7].fd_count == 2


def test_without_permission_to_list_them_the_number_is_minus_1(open_fake: FakeProc) -> None:
    directory = open_fake.process(7, {3: 11}) / "fd"
    directory.chmod(0)
    seen = as_nobody(lambda: open_fake.scanner().summaries([7]))
    assert seen == {7: FdSummary(directory.stat().st_ino, -1)}


def test_a_summary_needs_no_privilege(child: subprocess.Popen[bytes]) -> None:
    scanner = ProcessScanner(ProcFS())
    before = scanner.summaries([child.pid])
    if not os.stat("/proc/self/fd").st_size:
        pytest.skip("the size of fd/ is the number of descriptors since Linux 6.2")
    assert as_nobody(lambda: ProcessScanner(ProcFS()).summaries([child.pid])) == before


def test_a_real_process_that_has_ended_has_no_summary(
    scanner: ProcessScanner, child: subprocess.Popen[bytes]
) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert scanner.summaries([child.pid]) == {}


# Fingerprints.


def test_a_fingerprint_is_that_of_a_scan(
    scanner: ProcessScanner, child: subprocess.Popen[bytes]
) -> None:
    assert scanner.fingerprints([child.pid]) == {
        child.pid: scanner.scan_process(child.pid).fingerprint
    }


def test_an_exec_changes_the_fingerprint(fake: FakeProc) -> None:
    directory = fake.process(7, image=5)
    before = fake.scanner().fingerprints([7])
    for line in (
        stat_line(7, comm="app", ppid=1, start=100, threads=1, image=6),
        stat_line(7, comm="new", ppid=1, start=100, threads=1, image=5),
        stat_line(7, comm="app", ppid=2, start=100, threads=1, image=5),
        stat_line(7, comm="app", ppid=1, start=100, threads=2, image=5),
    ):
        (directory / "stat").write_text(line)
        assert fake.scanner().fingerprints([7]) != before


def test_zombies_and_processes_that_have_ended_have_no_fingerprint(fake: FakeProc) -> None:
    line = stat_line(7, comm="app", ppid=1, start=100, threads=1, image=1)
    (fake.process(7) / "stat").write_text(line.replace(") S ", ") Z "))
    (fake.process(8) / "stat").write_text("")
    assert fake.scanner().fingerprints([6, 7, 8]) == {6: None, 7: None, 8: None}
