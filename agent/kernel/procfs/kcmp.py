"""Find threads with a descriptor table of their own, unshare(2), and processes that share one,
clone(2). Blocking.

Only ``/proc/PID/task/TID/fd`` shows what such a thread opens. kcmp(2) compares two tables exactly,
at one system call for each thread. Where it may not be used (no privilege, a seccomp filter, a
procfs of another pid namespace), a thread counts as separate if its number of open descriptors is
not that of the process.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from functools import cache

from .files import open_directory

# The number of kcmp by machine, from the kernel's syscall tables; C libraries have no wrapper.
_SYS_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_FILES = 2  # include/uapi/linux/kcmp.h


def threads_with_own_fds(root: str, tid: int, directory: int) -> list[int]:
    """Return the threads of a process that do not share the descriptor table of its thread ``tid``.

    ``directory`` is the open directory of the process. Raises OSError when the process has ended.
    """
    with open_directory("task", directory) as tasks:
        others = [int(name) for name in os.listdir(tasks) if name != str(tid)]
    if not others:
        return []
    if _is_own_pid_namespace(root):
        shared = [(other, _share_fds(tid, other)) for other in others]
        if all(share is not None for _other, share in shared):
            return [other for other, share in shared if not share]
    count = os.stat(f"task/{tid}/fd", dir_fd=directory).st_size
    return [other for other in others if _fd_count(directory, other, count) != count]


def may_share_fds(root: str, pid: int, parent: int) -> bool:
    """Return whether two processes share a descriptor table, clone(2) with CLONE_FILES; True where
    the kernel does not report that."""
    return not _is_own_pid_namespace(root) or _share_fds(parent, pid) is not False


def _fd_count(directory: int, tid: int, default: int) -> int:
    try:
        return os.stat(f"task/{tid}/fd", dir_fd=directory).st_size
    except OSError:  # The thread ended.
        return default


@cache
def _is_own_pid_namespace(root: str) -> bool:
    try:
        return os.readlink(f"{root}/self") == str(os.getpid())
    except OSError:
        return False


@cache
def _load_kcmp() -> Callable[[int, int], int] | None:
    """Return a function that compares the descriptor tables of two threads: 0 if they share one,
    -errno if that cannot be found out. None where the number of the system call is not known."""
    number = _SYS_KCMP.get(os.uname().machine)
    if number is None:
        return None
    import ctypes  # Only here: loading it takes two milliseconds.

    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = [ctypes.c_long] * 6
    call.restype = ctypes.c_long

    def compare(pid1: int, pid2: int) -> int:
        result: int = call(number, pid1, pid2, _KCMP_FILES, 0, 0)
        return result if result >= 0 else -ctypes.get_errno()

    return compare


def _share_fds(pid1: int, pid2: int) -> bool | None:
    """Return whether two threads share a descriptor table; None when the kernel does not report it.

    A thread that has ended shares that of any other.
    """
    compare = _load_kcmp()
    if compare is None:
        return None
    result = compare(pid1, pid2)
    if result < 0:
        return True if result == -errno.ESRCH else None
    return result == 0
