"""Names of user ids from the system's name service, getpwuid(3). Blocking.

Answers are cached: a name service may be slow, and a poll needs thousands.
"""

from __future__ import annotations

import os
import pwd
import time
from functools import cache

from ..model import Owner
from ..text import decode

# A uid may be given a name, or another one, later.
MAX_AGE_SECONDS = 300.0


class Users:
    """A cache of user names. ``find_owner`` returns the uid with its name."""

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
