"""Find threads with a descriptor table of their own, unshare(2), and processes that share one,
clone(2). Blocking.

Only ``/proc/PID/task/TID/fd`` shows what such a thread opens. kcmp(2) compares two tables exactly,
at one system call for each thread. Where it may not be used (no privilege, a seccomp filter, a
procfs of another pid namespace), a thread counts as separate if its number of open descriptors is
not that of the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
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
def _kcmp() -> Callable[..., int] | None:
    number = _SYS_KCMP.get(platform.machine())
    if number is None:
        return None
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.argtypes = [ctypes.c_long] + [ctypes.c_long] * 5
    call.restype = ctypes.c_long
    return call


def _share_fds(pid1: int, pid2: int) -> bool | None:
    """Return whether two threads share a descriptor table; None when the kernel does not report it.

    A thread that has ended shares that of any other.
    """
    call = _kcmp()
    if call is None:
        return None
    result = call(_SYS_KCMP[platform.machine()], pid1, pid2, _KCMP_FILES, 0, 0)
    if result < 0:
        return True if ctypes.get_errno() == errno.ESRCH else None
    return bool(result == 0)
