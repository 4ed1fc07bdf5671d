"""The process of each thread."""

import os
import threading

import pytest

from agent.kernel.procfs.threads import find_process, is_initial_pid_namespace, list_threads

from ...fakeproc import FakeProc, stat_line

KERNEL_THREAD = 0x0020_0000


def add(fake: FakeProc, pid: int, *tids: int, flags: int = 0x40_0000, comm: str = "app") -> None:
    """Add a process with these threads, besides the main one."""
    fake.process(pid, comm=comm)
    for tid in (pid, *tids):
        (fake.root / str(pid) / "task" / str(tid)).mkdir(exist_ok=True)
        directory = fake.root / str(tid)
        directory.mkdir(exist_ok=True)
        (directory / "status").write_text(f"Name:\tapp\nTgid:\t{pid}\nNgid:\t0\nPid:\t{tid}\n")
        stat = stat_line(tid, comm=comm, ppid=2, start=1, threads=1, image=1, flags=flags)
        (directory / "stat").write_text(stat)


def test_a_thread_belongs_to_its_process(fake: FakeProc) -> None:
    add(fake, 100, 101)
    assert find_process(str(fake.root), 101) == 100
    assert find_process(str(fake.root), 100) == 100


def test_a_thread_that_does_not_exist_has_none(fake: FakeProc) -> None:
    assert find_process(str(fake.root), 101) is None


@pytest.mark.parametrize("comm", ["kworker/0:1", "a) S 1 1 1 0 -1 4194304", "("])
def test_a_thread_of_the_kernel_has_no_process(fake: FakeProc, comm: str) -> None:
    add(fake, 60, flags=KERNEL_THREAD | 0x40, comm="app")
    line = stat_line(60, comm=comm, ppid=2, start=1, threads=1, image=1, flags=KERNEL_THREAD)
    (fake.root / "60" / "stat").write_text(line)
    assert find_process(str(fake.root), 60) == 0


def test_a_process_whose_name_looks_like_a_stat_line_is_no_thread_of_the_kernel(
    fake: FakeProc,
) -> None:
    add(fake, 60, comm=f"a) S 1 1 1 0 -1 {KERNEL_THREAD} 0")
    assert find_process(str(fake.root), 60) == 60


def test_all_threads_are_listed_with_their_processes(fake: FakeProc) -> None:
    add(fake, 100, 101, 102)
    add(fake, 60, flags=KERNEL_THREAD)
    for tid in (101, 102):  # procfs does not list these.
        (fake.root / str(tid)).rename(fake.root / f"hidden-{tid}")
    assert list_threads(str(fake.root)) == {1: 1, 100: 100, 101: 100, 102: 100, 60: 0}


def test_a_process_that_ends_while_threads_are_listed_is_left_out(fake: FakeProc) -> None:
    (fake.root / "100").mkdir()
    assert list_threads(str(fake.root)) == {1: 1}


def test_the_initial_pid_namespace_has_a_kernel_thread_with_pid_2(fake: FakeProc) -> None:
    root = str(fake.root)
    assert not is_initial_pid_namespace(root)
    add(fake, 2)
    assert not is_initial_pid_namespace(root)
    line = stat_line(2, comm="kthreadd", ppid=0, start=0, threads=1, image=0, flags=KERNEL_THREAD)
    (fake.root / "2" / "stat").write_text(line)
    assert is_initial_pid_namespace(root)


def test_threads_of_this_process_are_found_in_procfs() -> None:
    ended = threading.Event()
    thread = threading.Thread(target=ended.wait)
    thread.start()
    try:
        tid = thread.native_id
        assert tid is not None
        assert find_process("/proc", tid) == os.getpid()
        assert list_threads("/proc")[tid] == os.getpid()
    finally:
        ended.set()
        thread.join()


def test_without_procfs_threads_cannot_be_listed() -> None:
    with pytest.raises(FileNotFoundError):
        list_threads("/nowhere")
