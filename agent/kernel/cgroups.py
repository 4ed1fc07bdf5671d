"""Paths of cgroups by the inodes of their directories. Blocking.

The cgroup of a socket is known even where its holder is hidden. Only cgroup2 file systems are read,
which every user may do.
"""

from __future__ import annotations

import os
import time

from ..text import decode

# Where systemd mounts the unified hierarchy; the second path is used beside cgroup v1.
MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
# Cgroups come and go: for an unknown inode the hierarchy is walked again, at most this often.
MIN_WALK_INTERVAL_SECONDS = 5.0


class Cgroups:
    """The cgroups of the unified hierarchy, as ``/proc/PID/cgroup`` writes them."""

    def __init__(self, mounts: tuple[str, ...] = MOUNTS) -> None:
        unified = [path for path in mounts if os.path.exists(f"{path}/cgroup.controllers")]
        self._root = unified[-1] if unified else None
        # Beside v1 every process may be in the root of v2, which therefore means nothing.
        self._is_beside_v1 = len(mounts) > 1 and self._root == mounts[1]
        self._paths: dict[int, str] = {}  # By inode.
        self._walked = -MIN_WALK_INTERVAL_SECONDS

    def find_path(self, inode: int) -> str | None:
        """Return the path of the cgroup with this inode, None if it cannot be found."""
        known = self._paths.get(inode)
        if known is None and time.monotonic() - self._walked >= MIN_WALK_INTERVAL_SECONDS:
            self._walked = time.monotonic()
            self._paths = self._walk()
            known = self._paths.get(inode)
        return known

    def _walk(self) -> dict[int, str]:
        if self._root is None:
            return {}
        paths = {}
        for directory, _directories, _files in os.walk(self._root):
            try:
                inode = os.stat(directory).st_ino
            except OSError:  # It was removed meanwhile.
                continue
            path = decode(os.fsencode(directory[len(self._root) :]))
            if path or not self._is_beside_v1:
                paths[inode] = path or "/"
        return paths
