"""Tells whose descriptor table is whose: of threads that unshared it, unshare(2), and of processes
that share one, clone(2).

What such a thread opens is under ``/proc/PID/task/TID/fd`` only. kcmp(2) answers exactly, at one
system call a thread; where it may not be used (no privilege, a seccomp filter, a procfs of another
pid namespace), a number of open descriptors that differs from the process's gives the thread away.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Callable
from functools import cache

# The number of kcmp by machine (the kernel's syscall tables); no C library wraps it.
_SYS_KCMP = {"x86_64": 312, "aarch64": 272, "riscv64": 272, "ppc64le": 354, "s390x": 343}
_KCMP_FILES = 2  # include/uapi/linux/kcmp.h


def threads_with_own_fds(root: str, than: int, directory: int) -> list[int]:
    """The threads of a process whose descriptor table is not that of its thread ``than``: the main
    thread, unless that has ended. ``directory`` is the process's, open.

    Raises OSError when the process is gone.
    """
    tids = [int(tid) for tid in _list(directory, "task") if tid != str(than)]
    if not tids:
        return []
    if _is_own_pid_namespace(root):
        compared = [(tid, _kcmp_files(than, tid)) for tid in tids]
        if all(same is not None for _tid, same in compared):
            return [tid for tid, same in compared if not same]
    whole = os.stat(f"task/{than}/fd", dir_fd=directory).st_size
    return [tid for tid in tids if _size(directory, tid, whole) != whole]


def may_share_fds(root: str, pid: int, parent: int) -> bool:
    """Whether two processes have one descriptor table, clone(2) with CLONE_FILES; True as well
    where there is no telling."""
    return not _is_own_pid_namespace(root) or _kcmp_files(parent, pid) is not False


def _list(directory: int, name: str) -> list[str]:
    opened = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
    try:
        return os.listdir(opened)
    finally:
        os.close(opened)


def _size(directory: int, tid: int, default: int) -> int:
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


def _kcmp_files(than: int, tid: int) -> bool | None:
    """Whether the two share a descriptor table; None when the kernel does not say."""
    call = _kcmp()
    if call is None:
        return None
    result = call(_SYS_KCMP[platform.machine()], than, tid, _KCMP_FILES, 0, 0)
    if result < 0:
        return True if ctypes.get_errno() == 3 else None  # ESRCH: the thread ended.
    return bool(result == 0)
