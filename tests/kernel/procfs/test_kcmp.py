import ctypes
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent.kernel.procfs import kcmp as threads
from agent.kernel.procfs.mount import ProcFS
from agent.kernel.procfs.scan import ProcessScan
from agent.kernel.procfs.scanner import ProcessScanner

CLONE_FILES = 0x400  # include/uapi/linux/sched.h


@contextmanager
def thread_with(prepare: Callable[[], socket.socket]) -> Iterator[tuple[int, int, int]]:
    """A thread that holds a socket: its id, the socket's inode and first descriptor."""
    ready, end = threading.Event(), threading.Event()
    told: list[tuple[int, int, int]] = []

    def run() -> None:
        # A descriptor of an unshared table must be closed by its own thread.
        with prepare() as opened:
            another = os.dup(opened.fileno())  # So that the numbers of descriptors differ.
            inode = os.fstat(opened.fileno()).st_ino
            told.append((threading.get_native_id(), inode, opened.fileno()))
            ready.set()
            end.wait()
            os.close(another)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        ready.wait()
        yield told[0]
    finally:
        end.set()
        thread.join()


def unshared() -> socket.socket:
    assert ctypes.CDLL(None, use_errno=True).unshare(CLONE_FILES) == 0
    return socket.socket()


def separate() -> list[int]:
    directory = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
    try:
        return threads.threads_with_own_fds("/proc", os.getpid(), directory)
    finally:
        os.close(directory)


def look_at_ourselves() -> ProcessScan:
    return ProcessScanner(ProcFS()).scan_process(os.getpid())


def test_what_an_unshared_thread_opens_is_its_processs() -> None:
    with thread_with(unshared) as (tid, inode, fd):
        assert separate() == [tid]
        assert inode not in {
            os.stat(f"/proc/self/fd/{name}").st_ino
            for name in os.listdir("/proc/self/fd")
            if os.path.exists(f"/proc/self/fd/{name}")
        }
        look = look_at_ourselves()
        assert (fd, inode) in look.thread_fds
        assert inode not in look.fds.values()


def test_threads_share_their_descriptors() -> None:
    with thread_with(socket.socket) as (_tid, inode, fd):
        assert separate() == []
        look = look_at_ourselves()
        assert look.fds[fd] == inode
        assert look.thread_fds == ()


def test_one_thread_has_no_others() -> None:
    if len(os.listdir("/proc/self/task")) > 1:
        pytest.skip("another test's thread is still running")
    assert separate() == []


def test_where_the_kernel_does_not_compare_the_number_of_descriptors_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not os.stat("/proc/self/fd").st_size:
        pytest.skip("before Linux 6.2 the size of fd/ says nothing")
    monkeypatch.setattr(threads, "_share_fds", lambda _pid, _tid: None)
    with thread_with(unshared) as (tid, _inode, _fd):
        assert separate() == [tid]
    with thread_with(socket.socket):
        # Another thread may open or close something between the two counts.
        assert any(separate() == [] for _ in range(20))


def test_another_procfs_is_not_asked_about_our_processes(tmp_path: Path) -> None:
    # The same pid there is another process.
    (tmp_path / "task" / "9999999").mkdir(parents=True)
    (tmp_path / "task" / "9999999" / "fd").mkdir()
    (tmp_path / "task" / "1" / "fd").mkdir(parents=True)
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert threads.threads_with_own_fds(str(tmp_path), 1, directory) == []
    finally:
        os.close(directory)


def test_a_process_that_is_gone_is_an_error(tmp_path: Path) -> None:
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(FileNotFoundError):
            threads.threads_with_own_fds(str(tmp_path), 1, directory)
    finally:
        os.close(directory)
