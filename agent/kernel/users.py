"""User ids to names, as the system's name service knows them, getpwuid(3). Blocking.

It knows only ids. Answers are kept: a name service may be slow, and a poll asks for thousands.
"""

from __future__ import annotations

import os
import pwd
import time

from ..model import Owner
from ..text import decode

# A name may be given to an id later, or changed; seconds until it is asked for again.
KEEP_SECONDS = 300.0


class Users:
    """The names of user ids."""

    def __init__(self) -> None:
        self.known: dict[int | None, Owner] = {}  # Those asked for so far.
        self._asked = time.monotonic()

    def owner(self, uid: int) -> Owner:
        """The id with its name."""
        known = self.known.get(uid)
        return known if known is not None else self._ask(uid)

    def expire(self) -> None:
        """Forget what was asked too long ago; called once a poll."""
        now = time.monotonic()
        if now - self._asked > KEEP_SECONDS:
            self._asked = now
            self.known.clear()

    def _ask(self, uid: int) -> Owner:
        try:
            name: str | None = decode(os.fsencode(pwd.getpwuid(uid).pw_name))
        except (KeyError, OverflowError):  # Unknown, or a uid beyond uid_t.
            name = None
        owner = self.known[uid] = Owner(uid, name)
        return owner
