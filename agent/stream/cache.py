"""What has been encoded and may be asked for again: bounded in bytes, the least used goes first.

It knows nothing of what it keeps.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class ChunkCache(Generic[K]):
    """Chunks by key, at most ``size`` bytes of them."""

    def __init__(self, size: int) -> None:
        self._most = size
        self._chunks: OrderedDict[K, bytes] = OrderedDict()
        self.size = 0

    def get(self, key: K) -> bytes | None:
        """The chunk of this key; None when it is not kept."""
        chunk = self._chunks.get(key)
        if chunk is not None:
            self._chunks.move_to_end(key)
        return chunk

    def put(self, key: K, chunk: bytes) -> None:
        """Keep it; others make room."""
        self.size -= len(self._chunks.pop(key, b""))
        self._chunks[key] = chunk
        self.size += len(chunk)
        while self.size > self._most:
            _, oldest = self._chunks.popitem(last=False)
            self.size -= len(oldest)
