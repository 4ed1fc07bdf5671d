import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kernel.procfs import kcmp as kcmp_module
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scan import ProcessScan
from agent.kernel.procfs.scanner import ProcessScanner

CLONE_FILES = 0x400  # include/uapi/linux/sched.h


@contextmanager
def thread_with(prepare: Callable[[], socket.socket]) -> Iterator[tuple[int, int, int]]:
    """Start a thread that holds a socket; yield its id, the inode and the first descriptor."""
    ready, end = threading.Event(), threading.Event()
    started: list[tuple[int, int, int]] = []

    def run() -> None:
        # A descriptor of an unshared table must be closed by its own thread.
        with prepare() as opened:
            another = os.dup(opened.fileno())  # So that the numbers of descriptors differ.
            inode = os.fstat(opened.fileno()).st_ino
            started.append((threading.get_native_id(), inode, opened.fileno()))
            ready.set()
            end.wait()
            os.close(another)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait()
        yield started[0]
    finally:
        end.set()
        thread.join()


def unshared() -> socket.socket:
    assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_FILES) == 0
    return socket.socket()


def separate_threads() -> list[int]:
    directory = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return kcmp_module.threads_with_own_fds("/proc", os.getpid(), directory)
    finally:
        os.close(directory)


def scan_this_process() -> ProcessScan:
    return ProcessScanner(ProcFS()).scan_process(os.getpid())


def test_sockets_of_an_unshared_thread_belong_to_its_process() -> None:
    with thread_with(unshared) as (tid, inode, fd):
        assert separate_threads() == [tid]
        assert inode not in {
            os.stat(f"/proc/self/fd/{name}").st_ino
            for name in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{name}")
        }
        scan = scan_this_process()
        assert (fd, inode) in scan.thread_fds
        assert inode not in scan.fds.values()


def test_other_threads_share_their_descriptors() -> None:
    with thread_with(socket.socket) as (_tid, inode, fd):
        assert separate_threads() == []
        scan = scan_this_process()
        assert scan.fds[fd] == inode
        assert scan.thread_fds == ()


def test_a_single_thread_shares_with_itself() -> None:
    if len(os.listdir("/proc/self/task")) > 1:
        pytest.skip("another test's thread is still running")
    assert separate_threads() == []


def test_without_kcmp_the_numbers_of_descriptors_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not os.stat("/proc/self/fd").st_size:
        pytest.skip("the size of fd/ is the number of descriptors since Linux 6.2")
    monkeypatch.setattr(kcmp_module, "_share_fds", lambda _pid, _tid: None)
    # Another thread may open or close something between the two counts.
    with thread_with(unshared) as (tid, _inode, _fd):
        assert any(separate_threads() == [tid] for _ in range(20))
    with thread_with(socket.socket):
        assert any(separate_threads() == [] for _ in range(20))


def test_kcmp_is_not_used_for_another_procfs(tmp_path: Path) -> None:
    # The same pid there is another process.
    (tmp_path / "task" / "9999999").mkdir(parents=True)
    (tmp_path / "task" / "9999999" / "fd").mkdir()
    (tmp_path / "task" / "1" / "fd").mkdir(parents=True)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert kcmp_module.threads_with_own_fds(str(tmp_path), 1, directory) == []
    finally:
        os.close(directory)


def test_a_process_that_has_ended_raises_an_error(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileNotFoundError):
            kcmp_module.threads_with_own_fds(str(tmp_path), 1, directory)
    finally:
        os.close(directory)
