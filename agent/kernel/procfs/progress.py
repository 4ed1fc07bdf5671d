"""The progress of a batch of reads, for the thread that waits for it."""

from __future__ import annotations

from collections.abc import Callable, Hashable


def _never(_place: Hashable) -> bool:
    return False


class Progress:
    """Shared by the thread that reads a batch and the thread that waits for it.

    ``at`` is what is being read. ``avoids`` returns whether something must not be read because an
    earlier read of it hangs.
    """

    __slots__ = ("at", "avoids", "stopped")

    def __init__(self, avoids: Callable[[Hashable], bool] = _never) -> None:
        self.at: Hashable = None
        self.stopped = False
        self.avoids = avoids

    def begin(self, place: Hashable) -> bool:
        """Record that ``place`` is read next; return False if the batch is to end instead."""
        if self.stopped:
            return False
        self.at = place
        return True

    def stop(self) -> None:
        """End the batch before its next item."""
        self.stopped = True
