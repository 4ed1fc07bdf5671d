"""The place that a batch of blocking reads has reached, for the one that waits for the batch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")


def _never(_place: Hashable) -> bool:
    return False


class Progress:
    """Shared by the thread that reads a batch and by the event loop, which waits for it.

    ``place`` is what is being read, None before the first item. ``avoids`` returns whether a place
    must not be read because an earlier read of it hangs.
    """

    __slots__ = ("_stopped", "avoids", "place")

    def __init__(self, avoids: Callable[[Hashable], bool] = _never) -> None:
        self.place: Hashable = None
        self.avoids = avoids
        self._stopped = False

    def begin(self, place: Hashable) -> None:
        """Record that ``place`` is read next, where it changes within an item of ``each``."""
        self.place = place

    def each(
        self, items: Iterable[T], place_of: Callable[[T], Hashable] | None = None
    ) -> Iterator[T]:
        """Yield the items until ``stop`` is called; ``place`` is then that of the item yielded.

        Without ``place_of`` an item is its own place and must be hashable.
        """
        for item in items:
            if self._stopped:
                return
            self.place = place_of(item) if place_of else item
            yield item

    def stop(self) -> None:
        """End the batch before its next item."""
        self._stopped = True
