"""Names of users, and the privileges of the agent's own process. Blocking."""

from __future__ import annotations

import os
import pwd
import re
import time
from functools import cache

from ..model import Owner
from ..text import decode
from .procfs.files import read_or_empty

# A uid may be given a name, or another one, later.
MAX_AGE_SECONDS = 300.0

# linux/capability.h: CAP_DAC_READ_SEARCH is 2, CAP_SYS_PTRACE is 19.
_NEEDED = 1 << 2 | 1 << 19
_EFFECTIVE = re.compile(rb"^CapEff:\s*([0-9a-f]+)$", re.MULTILINE)


class Users:
    """A cache of user names. The name service, getpwuid(3), may be slow, and a poll needs
    thousands. ``find_owner`` returns the uid with its name."""

    def __init__(self) -> None:
        self.find_owner = cache(_look_up)
        self._started = time.monotonic()  # When the cache was last empty.

    def expire(self) -> None:
        """Empty the cache if it is older than MAX_AGE_SECONDS; to be called once a poll."""
        now = time.monotonic()
        if now - self._started > MAX_AGE_SECONDS:
            self._started = now
            self.find_owner.cache_clear()


def _look_up(uid: int) -> Owner:
    try:
        name: str | None = decode(os.fsencode(pwd.getpwuid(uid).pw_name))
    except (KeyError, OverflowError):  # An unknown uid, or one beyond uid_t.
        name = None
    return Owner(uid, name)


def is_privileged(status: bytes | None = None) -> bool:
    """Return whether the process may read the descriptors of all processes. Reading them takes both
    capabilities above. ``status`` is the content of ``/proc/self/status``; None reads it."""
    found = _EFFECTIVE.search(read_or_empty("/proc/self/status") if status is None else status)
    return found is not None and int(found[1], 16) & _NEEDED == _NEEDED
