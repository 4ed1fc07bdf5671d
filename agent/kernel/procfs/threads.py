"""The process of each thread. Blocking.

Format: ``/proc/TID/status`` and ``/proc/TID/stat``, proc_pid_status(5) and proc_pid_stat(5). A
thread has such a directory, although ``/proc`` does not list it.
"""

from __future__ import annotations

import os
import re

from .files import read_or_empty

_TGID = re.compile(rb"^Tgid:\t(\d+)$", re.MULTILINE)
_KERNEL_THREAD = 0x0020_0000  # PF_KTHREAD in include/linux/sched.h.
_KTHREADD = 2  # The parent of all kernel threads; it has no parent itself.


def find_process(root: str, tid: int) -> int | None:
    """Return the process of a thread, 0 for a kernel thread, None if there is no such thread."""
    if _is_kernel_thread(root, tid):
        return 0
    found = _TGID.search(read_or_empty(f"{root}/{tid}/status"))
    return None if found is None else int(found[1])


def list_threads(root: str) -> dict[int, int]:
    """Return thread → process of all threads, 0 for kernel threads. Raises OSError if processes
    cannot be listed."""
    found: dict[int, int] = {}
    for name in os.listdir(root):
        if name.isdecimal():
            try:
                tids = os.listdir(f"{root}/{name}/task")
            except OSError:  # It has ended.
                continue
            pid = 0 if len(tids) == 1 and _is_kernel_thread(root, int(name)) else int(name)
            found.update((int(tid), pid) for tid in tids if tid.isdecimal())
    return found


def is_initial_pid_namespace(root: str) -> bool:
    """Return whether a procfs shows the initial pid namespace, whose ids trace events contain.

    Only there pid 2 is a thread of the kernel.
    """
    return _is_kernel_thread(root, _KTHREADD)


def _is_kernel_thread(root: str, tid: int) -> bool:
    _before, _closed, fields = read_or_empty(f"{root}/{tid}/stat").rpartition(b")")
    flags = fields.split()[6:7]
    return bool(flags) and flags[0].isdigit() and bool(int(flags[0]) & _KERNEL_THREAD)
