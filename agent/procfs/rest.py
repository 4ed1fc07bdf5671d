"""Shows whether a process has run since it was last looked at, from ``task/TID/schedstat``.

Each line has the time a thread spent on a processor and waiting for one, in ns, and how often it
was given one (Documentation/scheduler/sched-stats.rst). Where none of them moved nobody ran who
could have opened or closed a descriptor: a process changes its own table, or another does that
shares it, clone(2) with CLONE_FILES. It knows nothing of descriptors.

Before Linux 5.12 threads that are the kernel's accept for io_uring: there it proves nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NamedTuple

from .files import opened, read_or_empty

# What all threads show where the kernel keeps no such times.
_UNKNOWN = b"0 0 0"


class Asked(NamedTuple):
    """Whether this process has run, if it has at most so many threads, and whether it shares its
    descriptors with its ``parent``; 0 where it cannot."""

    pid: int
    threads: int
    parent: int


def ran(root: str, asked: Iterable[Asked]) -> tuple[dict[int, bytes | None], list[int]]:
    """What differs when a process has run in between, None where there is no telling; and those
    that may share their descriptors with their parents. Those that are gone are left out."""
    seen: dict[int, bytes | None] = {}
    sharing: list[int] = []
    for pid, threads, parent in asked:
        try:
            seen[pid] = _shown(root, pid, threads)
        except OSError:
            continue
        if parent:
            from .threads import may_share  # Only here: it loads ctypes.

            if may_share(root, pid, parent):
                sharing.append(pid)
    return seen, sharing


def _shown(root: str, pid: int, most: int) -> bytes | None:
    """None of more than ``most`` threads: then to ask costs more than it saves. Raises OSError."""
    with opened(f"{root}/{pid}/task") as tasks:
        tids = os.listdir(tasks)
        if len(tids) > most:
            return None
        lines = [read_or_empty(f"{tid}/schedstat", tasks) for tid in tids]
    if any(not line or line.startswith(_UNKNOWN) for line in lines):
        return None
    return b"".join(f"{tid} ".encode() + line for tid, line in zip(tids, lines, strict=True))
