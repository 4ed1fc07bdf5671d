"""Where a batch of reads is, for whoever waits for it. It knows nothing of threads."""

from __future__ import annotations

from collections.abc import Callable, Hashable


def _never(_place: Hashable) -> bool:
    return False


class Progress:
    """Shared by the thread that reads a batch and by the one that waits for it.

    ``at`` is what is being read, ``stopped`` ends the batch before its next item, ``avoids``
    returns whether something must not be read because an earlier read of it hangs.
    """

    __slots__ = ("at", "avoids", "stopped")

    def __init__(self, avoids: Callable[[Hashable], bool] = _never) -> None:
        self.at: Hashable = None
        self.stopped = False
        self.avoids = avoids
