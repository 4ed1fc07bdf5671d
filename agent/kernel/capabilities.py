"""Whether we may look into everybody's processes."""

from __future__ import annotations

import re

from .procfs.files import read_or_empty

# linux/capability.h: CAP_DAC_READ_SEARCH is 2, CAP_SYS_PTRACE is 19.
_NEEDED = 1 << 2 | 1 << 19
_EFFECTIVE = re.compile(rb"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)


def privileged(status: bytes | None = None) -> bool:
    """Whether both capabilities that it takes are effective; ``status`` is /proc/self/status."""
    found = _EFFECTIVE.search(read_or_empty("/proc/self/status") if status is None else status)
    return found is not None and int(found[1], 16) & _NEEDED == _NEEDED
