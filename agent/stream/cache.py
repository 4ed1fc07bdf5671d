"""A cache bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

# What an entry takes besides its bytes: empty ones must not be kept without bounds.
ENTRY_BYTES = 300


class ChunkCache(Generic[K, V]):
    """The newest values by key, at most ``max_bytes`` of them; ``size_of`` returns a value's size.

    The oldest entries are dropped, whether they were used or not: what is encoded of a stream is
    wanted for a short time, and to keep the order of use takes longer than the rest of ``get``.
    """

    def __init__(self, max_bytes: int, size_of: Callable[[V], int]) -> None:
        self._max_bytes = max_bytes
        self._size_of = size_of
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.size = 0

    def get(self, key: K) -> V | None:
        """Return the value of a key; None where there is none."""
        return self._entries.get(key)

    def put(self, key: K, value: V) -> None:
        """Keep a value; drop the oldest ones where there are too many bytes."""
        replaced = self._entries.pop(key, None)
        if replaced is not None:
            self.size -= self._size_of(replaced) + ENTRY_BYTES
        self._entries[key] = value
        self.size += self._size_of(value) + ENTRY_BYTES
        while self.size > self._max_bytes:
            _, oldest = self._entries.popitem(last=False)
            self.size -= self._size_of(oldest) + ENTRY_BYTES
