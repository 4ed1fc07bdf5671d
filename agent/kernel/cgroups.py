"""Cgroups by the inode of their directories: where a socket is accounted whose holder is hidden.

It knows the cgroup2 file system only, which everybody may read. Blocking.
"""

from __future__ import annotations

import os
import time

from ..text import decode

# Where systemd mounts the unified hierarchy; the second one beside v1.
MOUNTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified")
# Cgroups come and go; those that are not known are looked for at most so often, in seconds.
RETRY_SECONDS = 5.0


class Cgroups:
    """Paths of cgroups, as ``/proc/PID/cgroup`` writes them, by inode."""

    def __init__(self, mounts: tuple[str, ...] = MOUNTS) -> None:
        unified = [path for path in mounts if os.path.exists(f"{path}/cgroup.controllers")]
        self._root = unified[-1] if unified else None
        # Beside v1, where processes are somewhere else, its root tells nothing.
        self._beside = len(mounts) > 1 and self._root == mounts[1]
        self._paths: dict[int, str] = {}
        self._looked = -RETRY_SECONDS

    def path(self, inode: int) -> str | None:
        """The cgroup with this inode; None when there is none to be found."""
        known = self._paths.get(inode)
        if known is None and time.monotonic() - self._looked >= RETRY_SECONDS:
            self._looked = time.monotonic()
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
            if path or not self._beside:
                paths[inode] = path or "/"
        return paths
