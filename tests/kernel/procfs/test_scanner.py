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

from agent.kernel.procfs import scanner as walker_module
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
US = os.getpid()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


@pytest.fixture
def walker() -> ProcessScanner:
    return ProcessScanner(ProcFS())


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process that holds three pipes and waits."""
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


# A look at a process.


def test_a_look_at_a_process(fake: FakeProc) -> None:
    directory = fake.process(7, {3: 11, 5: "pipe:[12]", 6: 13}, comm="a) (b", ppid=2, start=500)
    look = ProcessScanner(fake.procfs(), cmdline=True).scan_process(7)
    assert look.fds == {3: 11, 5: 0, 6: 13}
    assert (look.thread_fds, look.readable) == ((), True)
    assert look.fd_dir_inode == (directory / "fd").stat().st_ino
    assert look.process == Process(
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


def test_command_lines_are_not_read_unless_asked_for(fake: FakeProc) -> None:
    assert fake.scanner().scan_process(1).process.cmdline is None


def test_all_descriptors_on_a_socket_are_found(
    walker: ProcessScanner, listener: socket.socket
) -> None:
    copies = [os.dup(listener.fileno()) for _ in range(3)]
    try:
        fds = walker.scan_process(US).fds
    finally:
        for copy in copies:
            os.close(copy)
    found = {fd for fd, inode in fds.items() if inode == inode_of(listener)}
    assert found == {listener.fileno(), *copies}


def test_a_real_process_is_known_by_its_start_time(walker: ProcessScanner) -> None:
    stat = parse_stat(Path("/proc/self/stat").read_bytes())
    found = walker.scan_process(US).process
    assert (found.start_ticks, found.comm) == (stat.start_ticks, stat.comm)
    assert found.exe == os.readlink("/proc/self/exe")


def test_a_process_started_between_two_readings_of_the_clock(walker: ProcessScanner) -> None:
    before = time.time()
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as started:
        after = time.time()
        start_time = walker.scan_process(started.pid).process.start_time
    assert before - 1 / TICKS <= start_time <= after + 1 / TICKS


def test_names_that_are_no_utf8_are_told_as_escapes(fake: FakeProc) -> None:
    directory = fake.process(7)
    (directory / "exe").unlink()
    os.symlink(b"/bin/caf\xe9", bytes(directory / "exe"))
    line = stat_line(7, comm="?", ppid=1, start=1, threads=1, image=1).encode()
    (directory / "stat").write_bytes(line.replace(b"?", b"caf\xe9\n"))
    found = fake.scanner().scan_process(7).process
    assert (found.exe, found.comm) == ("/bin/caf\\xe9", "caf\\xe9\n")


def test_what_may_not_be_read_of_a_process_is_unknown(fake: FakeProc) -> None:
    directory = fake.process(7)
    for name in ("exe", "cgroup"):
        (directory / name).unlink()
    found = fake.scanner().scan_process(7).process
    assert (found.exe, found.cgroup, found.unit) == (None, None, None)


def test_descriptors_that_may_not_be_read_are_told(open_fake: FakeProc) -> None:
    directory = open_fake.process(7, {3: 11}) / "fd"
    directory.chmod(0)
    look = as_nobody(lambda: open_fake.scanner().scan_process(7))
    assert (look.fds, look.thread_fds, look.readable) == ({}, (), False)
    assert look.fd_dir_inode == directory.stat().st_ino


def test_a_process_that_may_not_be_looked_at_is_told(open_fake: FakeProc) -> None:
    open_fake.process(7).chmod(0)
    walked = as_nobody(lambda: open_fake.scanner().scan([1, 7]))
    assert [look.process.pid for look in walked.scans] == [1]
    assert walked.failed == {7: os.strerror(errno.EACCES)}


def test_a_process_of_another_user_still_shows_its_name() -> None:
    look = as_nobody(lambda: ProcessScanner(ProcFS()).scan_process(1))
    assert look.process.comm == parse_stat(Path("/proc/1/stat").read_bytes()).comm
    assert not look.readable


# What vanishes.


def test_a_process_that_is_gone(fake: FakeProc) -> None:
    with pytest.raises(ProcessGone):
        fake.scanner().scan_process(7)


@pytest.mark.parametrize("name", ["stat", "fd"])
def test_a_process_that_went_while_it_was_read(fake: FakeProc, name: str) -> None:
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
def test_a_process_whose_stat_is_none_is_told_of(fake: FakeProc, stat: str) -> None:
    (fake.process(7) / "stat").write_text(stat)
    assert fake.scanner().scan([7]) == ([], {7: "its stat is malformed"})


@pytest.mark.parametrize("name", ["9" * 20, "x", "-1", "1_", str(2**31)])
def test_a_descriptor_that_is_none_is_skipped_and_counted(fake: FakeProc, name: str) -> None:
    directory = fake.process(7, {3: 11})
    (directory / "fd" / name).symlink_to("socket:[12]")
    walked = fake.scanner().scan([7])
    assert walked.scans[0].fds == {3: 11}
    assert walked.failed == {7: "1 malformed descriptors skipped"}


@pytest.mark.parametrize("target", ["socket:[abc]", "socket:[", "socket:[-1]", f"socket:[{2**63}]"])
def test_a_link_that_leads_nowhere_is_skipped_and_counted(fake: FakeProc, target: str) -> None:
    fake.process(7, {3: 11, 4: target})
    walked = fake.scanner().scan([7])
    assert walked.scans[0].fds == {3: 11}
    assert walked.failed == {7: "1 malformed descriptors skipped"}


def test_a_fifo_in_place_of_a_file_does_not_make_it_wait(fake: FakeProc) -> None:
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


def test_a_process_lives_on_though_its_main_thread_ended(walker: ProcessScanner) -> None:
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
        look = walker.scan_process(process.pid)
        assert look.fds[fd] > 0
        assert look.netns == walker.scan_process(US).netns
        assert look.process.exe == os.readlink("/proc/self/exe")
        assert look.process.pid == process.pid
        found = walker.fingerprints([process.pid])[process.pid]
        assert found == look.fingerprint
        # No evidence shows what its threads do: it is looked at as a whole each time.
        assert walker.check([FdCheck(process.pid, look.fd_dir_inode, look.fds, ())])[1] == [
            process.pid
        ]
        texts = walker.procfs.read_tables(look.netns, [process.pid], ["tcp"]).texts
        assert texts is not None
        assert isinstance(texts["tcp"], bytes)
        process.communicate()
        assert walker.scan([process.pid]) == ([], {})


EXITING = 0x40_0004  # PF_EXITING, and a flag that says nothing.


def exiting_line(pid: int, threads: int = 1) -> str:
    return stat_line(pid, comm="app", ppid=1, start=1, threads=threads, image=1, flags=EXITING)


def test_a_process_that_exits_is_gone_once_its_descriptors_are(fake: FakeProc) -> None:
    (fake.process(7) / "stat").write_text(exiting_line(7))
    with pytest.raises(ProcessGone):
        fake.scanner().scan_process(7)


def test_a_thread_that_lives_shows_the_descriptors_of_a_main_thread_that_exits(
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


def test_a_killed_process_never_shows_but_some_of_its_descriptors(walker: ProcessScanner) -> None:
    with subprocess.Popen([sys.executable, "-c", LISTENERS], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        whole = walker.scan_process(process.pid)
        again = FdCheck(process.pid, whole.fd_dir_inode, whole.fds, list(whole.fds)[:1])
        process.kill()  # It takes 100 ms to close the listeners.
        with suppress(ProcessGone):
            while True:
                checked, _lost = walker.check([again])
                assert [len(one.changes) for one in checked] in ([], [0])
                assert len(walker.scan_process(process.pid).fds) == len(whole.fds)


def test_a_zombie_holds_nothing(walker: ProcessScanner) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as zombie:
        os.waitid(os.P_PID, zombie.pid, os.WEXITED | os.WNOWAIT)
        assert zombie.pid in walker.procfs.pids()
        with pytest.raises(ProcessGone):
            walker.scan_process(zombie.pid)
        assert walker.scan([zombie.pid]) == ([], {})


def test_a_walk_leaves_out_what_is_gone(fake: FakeProc) -> None:
    fake.process(7)
    walked = fake.scanner().scan([1, 6, 7])
    assert [look.process.pid for look in walked.scans] == [1, 7]
    assert walked.failed == {}


def test_a_walk_tells_why_a_look_failed(fake: FakeProc) -> None:
    fake.process(7)
    fake.break_descriptors(7)
    walked = fake.scanner().scan([1, 7])
    assert [look.process.pid for look in walked.scans] == [1]
    assert walked.failed == {7: os.strerror(errno.ELOOP)}


def test_a_look_never_leads_to_a_process_that_got_the_same_pid(
    fake: FakeProc, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = fake.process(7, {3: 11}, comm="old")

    def read_late(directory: int, name: str) -> tuple[dict[int, int], int]:
        old.rename(old.with_name("old"))
        fake.process(7, {3: 99}, comm="new", start=900)
        return read_fds(directory, name)

    monkeypatch.setattr(walker_module, "read_fds", read_late)
    look = fake.scanner().scan_process(7)
    assert (look.process.start_ticks, look.process.comm) == (100, "old")
    assert look.fds == {3: 11}


def test_a_descriptor_that_closes_while_it_is_read_is_left_out(fake: FakeProc) -> None:
    directory = fake.process(7, {3: 11})
    (directory / "fd" / "4").write_text("")  # No link: reading it fails as for one that is gone.
    assert fake.scanner().scan_process(7).fds == {3: 11}


# What is cheap to see.


def test_the_number_of_descriptors_is_seen(walker: ProcessScanner, listener: socket.socket) -> None:
    before = walker.summaries([US])[US]
    with socket.socket():
        after = walker.summaries([US])[US]
    assert after == FdSummary(before.fd_dir_inode, before.fd_count + 1)
    assert walker.summaries([US])[US] == before
    assert before.fd_dir_inode == walker.scan_process(US).fd_dir_inode


def test_evidence_agrees_with_a_look(
    walker: ProcessScanner, child: subprocess.Popen[bytes]
) -> None:
    look = walker.scan_process(child.pid)
    assert walker.summaries([child.pid]) == {child.pid: FdSummary(look.fd_dir_inode, len(look.fds))}


def test_one_closed_and_one_opened_leave_no_evidence(walker: ProcessScanner) -> None:
    first = socket.socket()
    before = walker.summaries([US])
    first.close()
    with socket.socket():
        assert walker.summaries([US]) == before


def test_there_is_no_evidence_of_what_is_gone(fake: FakeProc) -> None:
    assert fake.scanner().summaries([1, 6]).keys() == {1}


def test_a_reused_pid_is_evident(fake: FakeProc) -> None:
    fake.process(7, {3: 11})
    walker = fake.scanner()
    before = walker.summaries([7])[7]
    fake.end(7)
    fake.process(7, {3: 11})
    after = walker.summaries([7])[7]
    assert after.fd_count == before.fd_count
    assert after.fd_dir_inode != before.fd_dir_inode


def test_before_linux_6_2_descriptors_are_counted(fake: FakeProc) -> None:
    # There is no self whose directory's size counts.
    fake.process(7, {3: 11, 4: "pipe:[5]"})
    assert fake.scanner().summaries([7])[7].fd_count == 2


def test_where_descriptors_may_not_be_counted_there_is_no_evidence(open_fake: FakeProc) -> None:
    directory = open_fake.process(7, {3: 11}) / "fd"
    directory.chmod(0)
    seen = as_nobody(lambda: open_fake.scanner().summaries([7]))
    assert seen == {7: FdSummary(directory.stat().st_ino, -1)}


def test_the_number_is_seen_of_another_users_process(child: subprocess.Popen[bytes]) -> None:
    walker = ProcessScanner(ProcFS())
    before = walker.summaries([child.pid])
    if not os.stat("/proc/self/fd").st_size:
        pytest.skip("before Linux 6.2 the size of fd/ says nothing")
    assert as_nobody(lambda: ProcessScanner(ProcFS()).summaries([child.pid])) == before


def test_a_process_that_ends_leaves_no_evidence(
    walker: ProcessScanner, child: subprocess.Popen[bytes]
) -> None:
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert walker.summaries([child.pid]) == {}


# A glance.


def test_a_glance_shows_what_a_look_shows(
    walker: ProcessScanner, child: subprocess.Popen[bytes]
) -> None:
    assert walker.fingerprints([child.pid]) == {
        child.pid: walker.scan_process(child.pid).fingerprint
    }


def test_at_a_glance_an_exec_shows(fake: FakeProc) -> None:
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


def test_at_a_glance_what_is_gone_or_a_zombie_is_nothing(fake: FakeProc) -> None:
    line = stat_line(7, comm="app", ppid=1, start=100, threads=1, image=1)
    (fake.process(7) / "stat").write_text(line.replace(") S ", ") Z "))
    (fake.process(8) / "stat").write_text("")
    assert fake.scanner().fingerprints([6, 7, 8]) == {6: None, 7: None, 8: None}
