"""The capabilities of the agent's own process."""

from __future__ import annotations

import re

from .procfs.files import read_or_empty

# linux/capability.h: CAP_DAC_READ_SEARCH is 2, CAP_SYS_PTRACE is 19.
_NEEDED = 1 << 2 | 1 << 19
_EFFECTIVE = re.compile(rb"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)


def is_privileged(status: bytes | None = None) -> bool:
    """Return whether the process may read the descriptors of all processes.

    Reading them takes both capabilities above. ``status`` is the content of ``/proc/self/status``;
    None reads it.
    """
    found = _EFFECTIVE.search(read_or_empty("/proc/self/status") if status is None else status)
    return found is not None and int(found[1], 16) & _NEEDED == _NEEDED
